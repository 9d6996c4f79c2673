"""config.json of `deepseek_v3`, both ways, and what a deepseek_v3 cannot hold. Checked against transformers 5.23.

What only training needs is lost on the way: the weight of the z-loss, the rate of the bias, and which way of balancing it was (a model
comes back balanced by bias).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.errors import RecipeError
from hagane.hosts.base import Host, Json, differing, model_fields, outer_fields, refuse, require, rope_from_host, routed_of
from hagane.hosts.fields import given, kinds_of_layers
from hagane.hosts.mtp import FIELD, modules_from_host, modules_reason
from hagane.hosts.sigmoid import deepseek_fields, deepseek_from_host, sigmoid_reason
from hagane.model.config import DenseConfig, ExpertsConfig, LatentConfig, LayerConfig, ModelConfig

NAME, ARCHITECTURE = "deepseek_v3", "DeepseekV3ForCausalLM"


def latent_reason(config: ModelConfig, host: str, *, index: bool = False, gate: bool = False) -> str | None:
    """Why the mixers do not fit a host with the same latent attention in every layer, with an indexer and a gate or without; None when they do."""
    foreign = next((index for index, layer in enumerate(config.layers) if not isinstance(layer.mixer, LatentConfig)), None)
    if foreign is not None:
        return f"{host} has latent attention only; layer {foreign} has a mixer of kind {config.layers[foreign].mixer.kind}"
    odd = differing([layer.mixer for layer in config.layers])
    if odd is not None:
        return f"{host} needs the same attention in every layer; layer {odd} differs from layer 0"
    mixer = config.layers[0].mixer
    if isinstance(mixer, LatentConfig) and (mixer.index is not None) != index:
        return f"{host} chooses the keys of every query by an indexer; this model has none" if index else f"{host} has no indexer that chooses keys"
    if isinstance(mixer, LatentConfig) and (mixer.gate != "none") != gate:
        return f"{host} has an output gate on attention; this model has none" if gate else f"{host} has no output gate on attention"
    return None


def latent_fields(config: ModelConfig) -> Json:
    """Latent attention in config.json. Its rotated rows are exchanged as neighbours (see `latent`), which every engine assumes."""
    mixer = config.layers[0].mixer
    assert isinstance(mixer, LatentConfig), "can_hold is asked first"
    return {
        "num_attention_heads": mixer.num_heads, "num_key_value_heads": mixer.num_heads, "q_lora_rank": mixer.query_rank, "kv_lora_rank": mixer.kv_rank,
        "qk_nope_head_dim": mixer.nope_dim, "qk_rope_head_dim": mixer.rope_dim, "v_head_dim": mixer.value_dim, "rope_interleave": True,
    }  # fmt: skip


def latent_from_host(host: Mapping[str, Any]) -> LatentConfig:
    refuse(host, hidden_act="silu", attention_bias=False, rope_interleave=True)
    num_heads = require(host, "num_attention_heads")
    refuse(host, num_key_value_heads=num_heads)
    return LatentConfig(
        num_heads=num_heads, query_rank=host.get("q_lora_rank"), kv_rank=require(host, "kv_lora_rank"), nope_dim=require(host, "qk_nope_head_dim"),
        rope_dim=require(host, "qk_rope_head_dim"), value_dim=require(host, "v_head_dim"), rope=rope_from_host(host),
    )  # fmt: skip


def ffn_fields(config: ModelConfig) -> Json:
    """Feed-forwards in config.json."""
    return {
        **deepseek_fields(config), "moe_layer_freq": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
        "aux_loss_alpha": next((ffn.aux_coefficient for ffn in routed_of(config)), 0.0), FIELD: len(config.mtp_layers),
    }  # fmt: skip


def ffns_from_host(host: Mapping[str, Any], num_dense: int) -> list[DenseConfig | ExpertsConfig]:
    """The feed-forward of every layer, the first `num_dense` dense. The weight of a balancing loss is 0 where the file has none."""
    refuse(host, moe_layer_freq=1, scoring_func="sigmoid", topk_method="noaux_tc")
    num_layers, alpha = require(host, "num_hidden_layers"), host.get("aux_loss_alpha") or 0.0
    # asked for fields of such layers only as there are
    dense = [DenseConfig(hidden=require(host, "intermediate_size"))] * min(num_dense, num_layers) if num_dense else []
    routed = [deepseek_from_host(host).model_copy(update={"aux_coefficient": alpha})] * (num_layers - num_dense) if num_dense < num_layers else []
    return [*dense, *routed]


def num_dense_from_host(host: Mapping[str, Any], default: int) -> int:
    """Layers before the first routed one, from the list that transformers writes or the number in published files."""
    kinds = kinds_of_layers(host, "mlp_layer_types", ("dense", "sparse"))
    if kinds is None:
        return given(host, "first_k_dense_replace", default)
    num_dense = kinds.count("dense")
    if "dense" in kinds[num_dense:]:
        raise RecipeError("config.json: mlp_layer_types has dense layers behind routed ones, which is not supported; hagane reads dense layers first.")
    return num_dense


def can_hold(config: ModelConfig) -> str | None:
    if any(layer.post_mixer_norm or layer.post_ffn_norm for layer in config.layers):
        return f"{NAME} has no norm after the mixer or the feed-forward"
    return latent_reason(config, NAME) or sigmoid_reason(config, NAME, groups=True)


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    return {**outer_fields(config, ARCHITECTURE, NAME, special), **latent_fields(config), **ffn_fields(config)}


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    mixer = latent_from_host(host)
    layers = tuple(LayerConfig(mixer=mixer, ffn=ffn) for ffn in ffns_from_host(host, given(host, "first_k_dense_replace", 3)))
    return ModelConfig(layers=layers, mtp_layers=modules_from_host(host, layers), **model_fields(host))


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host, holds_modules=lambda config: modules_reason(config, NAME))
