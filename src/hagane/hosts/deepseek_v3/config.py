"""config.json of `deepseek_v3`, both ways, and what a deepseek_v3 cannot hold. Checked against transformers 5.23.

What only training needs is lost on the way: the weight of the z-loss, the rate of the bias, and which way of balancing it was (a model
comes back balanced by bias).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.errors import RecipeError
from hagane.hosts.base import Host, Json, differing, model_fields, outer_fields, refuse, require, rope_from_host
from hagane.hosts.fields import given, kinds_of_layers
from hagane.hosts.mtp import FIELD, modules_from_host, modules_reason
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


def ffn_reason(config: ModelConfig, host: str) -> str | None:
    """Why the feed-forwards do not fit a host with dense layers first and sigmoid experts beside shared ones after; None when they do."""
    ffns = [layer.ffn for layer in config.layers]
    routed = [ffn for ffn in ffns if isinstance(ffn, ExpertsConfig)]
    dense = ffns[: len(ffns) - len(routed)]
    late = next((index for index, ffn in enumerate(dense) if isinstance(ffn, ExpertsConfig)), None)
    if late is not None:
        return f"{host} has its dense layers before all routed ones; layer {late} is routed"
    if dense and differing(dense) is not None:
        return f"{host} needs the same width in every dense layer"
    if not routed:
        return None
    same = {"balance", "aux_coefficient", "z_coefficient", "bias_rate", "entropy_clamp"}
    if differing([ffn.model_dump(exclude=same) for ffn in routed]) is not None:
        return f"{host} needs the same experts in every routed layer"
    ffn = routed[0]
    if ffn.score != "sigmoid":
        return f"{host} weighs experts by the sigmoids of their scores; those of this model are weighed by {ffn.score}"
    if ffn.shared_gate:
        return f"{host} has no gate on shared experts"
    if not ffn.shared_hidden or ffn.shared_hidden % ffn.hidden:
        return f"{host} has shared experts as wide as the others; shared_hidden {ffn.shared_hidden} is not a multiple of {ffn.hidden}"
    return f"{host} judges groups of experts by two; this model has one expert" if ffn.num_experts < 2 else None


def ffn_fields(config: ModelConfig) -> Json:
    """Feed-forwards in config.json. What is required even where no layer uses it gets the dense width, and the fewest experts there can be."""
    routed = [layer.ffn for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)]
    dense = [layer.ffn.hidden for layer in config.layers if isinstance(layer.ffn, DenseConfig)]
    ffn = routed[0] if routed else ExpertsConfig(num_experts=2, top_k=1, hidden=dense[0], score="sigmoid", shared_hidden=dense[0])
    return {
        "intermediate_size": dense[0] if dense else ffn.hidden * ffn.top_k, "moe_intermediate_size": ffn.hidden, "first_k_dense_replace": len(dense),
        "moe_layer_freq": 1, "n_routed_experts": ffn.num_experts, "n_shared_experts": ffn.shared_hidden // ffn.hidden, "num_experts_per_tok": ffn.top_k,
        "n_group": ffn.num_groups, "topk_group": ffn.top_groups, "norm_topk_prob": ffn.normalise, "routed_scaling_factor": ffn.scaling,
        "scoring_func": "sigmoid", "topk_method": "noaux_tc", "aux_loss_alpha": ffn.aux_coefficient, FIELD: len(config.mtp_layers),
    }  # fmt: skip


def ffns_from_host(host: Mapping[str, Any], num_dense: int) -> list[DenseConfig | ExpertsConfig]:
    """The feed-forward of every layer, the first `num_dense` dense. The weight of a balancing loss is 0 where the file has none."""
    refuse(host, moe_layer_freq=1, scoring_func="sigmoid", topk_method="noaux_tc")
    num_layers = require(host, "num_hidden_layers")
    dense = DenseConfig(hidden=require(host, "intermediate_size")) if num_dense else None
    if num_dense >= num_layers:
        return [dense] * num_layers if dense is not None else []
    hidden = require(host, "moe_intermediate_size")
    experts = ExpertsConfig(
        num_experts=host.get("n_routed_experts") or require(host, "num_local_experts"), top_k=require(host, "num_experts_per_tok"), hidden=hidden,
        score="sigmoid", normalise=bool(host.get("norm_topk_prob", True)), scaling=host.get("routed_scaling_factor", 1.0),
        num_groups=host.get("n_group") or 1, top_groups=host.get("topk_group") or 1, shared_hidden=hidden * require(host, "n_shared_experts"),
        balance="bias", aux_coefficient=host.get("aux_loss_alpha") or 0.0,
    )  # fmt: skip
    return [*([dense] * num_dense if dense is not None else []), *[experts] * (num_layers - num_dense)]


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
    return latent_reason(config, NAME) or ffn_reason(config, NAME)


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    return {**outer_fields(config, ARCHITECTURE, NAME, special), **latent_fields(config), **ffn_fields(config)}


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    mixer = latent_from_host(host)
    layers = tuple(LayerConfig(mixer=mixer, ffn=ffn) for ffn in ffns_from_host(host, given(host, "first_k_dense_replace", 3)))
    return ModelConfig(layers=layers, mtp_layers=modules_from_host(host, layers), **model_fields(host))


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host, holds_modules=lambda config: modules_reason(config, NAME))
