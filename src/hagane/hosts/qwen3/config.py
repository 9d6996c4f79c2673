"""config.json of `qwen3`, both ways, and what a qwen3 cannot hold. Checked against transformers 5.23."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.hosts.base import Host, Json, attention_from_host, common_fields, differing, mixer_reason, model_fields, require
from hagane.hosts.fields import given, kinds_of_layers
from hagane.model.config import DenseConfig, LayerConfig, ModelConfig

NAME, ARCHITECTURE = "qwen3", "Qwen3ForCausalLM"
WINDOWED, FULL = "sliding_attention", "full_attention"


def can_hold(config: ModelConfig) -> str | None:
    if any(not isinstance(layer.ffn, DenseConfig) for layer in config.layers):
        return f"{NAME} has no routed experts"
    odd = differing([layer.ffn for layer in config.layers])
    if odd is not None:
        return f"{NAME} needs the same feed-forward in every layer; layer {odd} differs from layer 0"
    return mixer_reason(config, NAME, qk_norm=True, windows=True)


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    windows = [layer.mixer.window for layer in config.layers]
    window = next((window for window in windows if window is not None), None)
    return {
        **common_fields(config, ARCHITECTURE, NAME, special),
        "intermediate_size": config.layers[0].ffn.hidden,
        "use_sliding_window": window is not None,
        "sliding_window": window,
        # transformers reads layer_types; older readers apply the window from this layer on
        "max_window_layers": next((index for index, window in enumerate(windows) if window is not None), config.num_layers),
        "layer_types": [FULL if window is None else WINDOWED for window in windows],
    }


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    num_layers = require(host, "num_hidden_layers")
    window = host.get("sliding_window", 4096) if host.get("use_sliding_window") else None
    kinds = kinds_of_layers(host, "layer_types", (FULL, WINDOWED))
    if kinds is None:
        first = given(host, "max_window_layers", 28)
        kinds = [FULL if index < first else WINDOWED for index in range(num_layers)]
    mixer = attention_from_host(host, qk_norm=True, default_head_dim=128)
    windowed = mixer.model_copy(update={"window": window})
    ffn = DenseConfig(hidden=require(host, "intermediate_size"))
    layers = tuple(LayerConfig(mixer=windowed if kind == WINDOWED else mixer, ffn=ffn) for kind in kinds)
    return ModelConfig(layers=layers, **model_fields(host))


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host)
