"""config.json of `deepseek_v3`, both ways, and what a deepseek_v3 cannot hold. Checked against transformers 5.23."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.errors import RecipeError
from hagane.hosts.base import Host, Json, differing, model_fields, outer_fields, refuse, require, rope_from_host
from hagane.model.config import DenseConfig, ExpertsConfig, LatentConfig, LayerConfig, ModelConfig

NAME, ARCHITECTURE = "deepseek_v3", "DeepseekV3ForCausalLM"


def latent_reason(config: ModelConfig, host: str) -> str | None:
    """Why the mixers do not fit a host with the same latent attention in every layer; None when they do."""
    foreign = next((index for index, layer in enumerate(config.layers) if not isinstance(layer.mixer, LatentConfig)), None)
    if foreign is not None:
        return f"{host} has latent attention only; layer {foreign} has a mixer of kind {config.layers[foreign].mixer.kind}"
    odd = differing([layer.mixer for layer in config.layers])
    return None if odd is None else f"{host} needs the same attention in every layer; layer {odd} differs from layer 0"


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


def can_hold(config: ModelConfig) -> str | None:
    if any(isinstance(layer.ffn, ExpertsConfig) for layer in config.layers):
        return f"{NAME} weighs experts by the sigmoids of their scores; those of this model are weighed by softmax"
    if differing([layer.ffn for layer in config.layers]) is not None:
        return f"{NAME} needs the same width in every dense layer"
    if any(layer.post_mixer_norm or layer.post_ffn_norm for layer in config.layers):
        return f"{NAME} has no norm after the mixer or the feed-forward"
    return latent_reason(config, NAME)


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    hidden = config.layers[0].ffn.hidden
    return {
        **outer_fields(config, ARCHITECTURE, NAME, special),
        **latent_fields(config),
        "intermediate_size": hidden,
        "first_k_dense_replace": config.num_layers,
        "moe_layer_freq": 1,
        "num_nextn_predict_layers": 0,
    }


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    num_layers = require(host, "num_hidden_layers")
    if host.get("first_k_dense_replace", 0) < num_layers:
        raise RecipeError("config.json: the experts of deepseek_v3 are not supported; hagane reads one whose first_k_dense_replace covers all layers.")
    layer = LayerConfig(mixer=latent_from_host(host), ffn=DenseConfig(hidden=require(host, "intermediate_size")))
    return ModelConfig(layers=(layer,) * num_layers, **model_fields(host))


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host)
