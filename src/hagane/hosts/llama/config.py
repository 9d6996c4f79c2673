"""config.json of `llama`, both ways, and what a llama cannot hold. Checked against transformers 5.23."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.hosts.base import Host, Json, attention, attention_from_host, common_fields, differing, mixer_reason, model_fields, require
from hagane.model.config import DenseConfig, LayerConfig, ModelConfig

NAME, ARCHITECTURE = "llama", "LlamaForCausalLM"


def can_hold(config: ModelConfig) -> str | None:
    if any(not isinstance(layer.ffn, DenseConfig) for layer in config.layers):
        return f"{NAME} has no routed experts"
    odd = differing([layer.ffn for layer in config.layers])
    if odd is not None:
        return f"{NAME} needs the same feed-forward in every layer; layer {odd} differs from layer 0"
    reason = mixer_reason(config, NAME, qk_norm=False, windows=False)
    if reason is None and config.width % attention(config).num_heads:
        return f"{NAME} needs a width that is a multiple of the heads; {config.width} is not one of {attention(config).num_heads}"
    return reason


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    ffn = config.layers[0].ffn
    return {**common_fields(config, ARCHITECTURE, NAME, special), "intermediate_size": ffn.hidden, "mlp_bias": False, "pretraining_tp": 1}


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    layer = LayerConfig(mixer=attention_from_host(host, qk_norm=False), ffn=DenseConfig(hidden=require(host, "intermediate_size")))
    return ModelConfig(layers=(layer,) * require(host, "num_hidden_layers"), **model_fields(host))


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host)
