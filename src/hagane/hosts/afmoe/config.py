"""config.json of `afmoe`, both ways, and what an afmoe cannot hold. Checked against transformers 5.23.

Windowed layers turn whole heads by their positions; layers that see the whole document know no positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.hosts.base import (
    Host,
    Json,
    attention,
    attention_from_host,
    common_fields,
    dense_of,
    differing,
    foreign_mixer,
    model_fields,
    refuse,
    require,
    routed_of,
)
from hagane.hosts.fields import kinds_of_layers
from hagane.hosts.sigmoid import experts, layers_from_host, routed_reason, sigmoid_reason, width_fields
from hagane.model.config import AttentionConfig, MixerConfig, ModelConfig

NAME, ARCHITECTURE = "afmoe", "AfmoeForCausalLM"
WINDOWED, FULL = "sliding_attention", "full_attention"


def can_hold(config: ModelConfig) -> str | None:
    blocks = routed_reason(config, NAME) or sigmoid_reason(config, NAME, groups=False) or _expert_reason(config)
    return foreign_mixer(config, NAME) or blocks or _attention_reason(config)


def _expert_reason(config: ModelConfig) -> str | None:
    if any(not ffn.normalise for ffn in routed_of(config)):
        return f"{NAME} always normalises the weights of experts"
    if not all(layer.post_mixer_norm and layer.post_ffn_norm for layer in config.layers):
        return f"{NAME} always has a norm after the mixer and one after the feed-forward"
    if config.embedding_scale not in (1.0, config.width**0.5):
        return f"{NAME} scales embeddings by the root of the width or not at all"
    return None


def _attention_reason(config: ModelConfig) -> str | None:
    mixers = [attention(config, index) for index in range(config.num_layers)]
    if any(not mixer.qk_norm or mixer.gate != "sigmoid" for mixer in mixers):
        return f"{NAME} always has QK-norm and a sigmoid output gate on attention"
    odd = differing([mixer.model_copy(update={"window": None, "rope": None, "partial_rotary": None}) for mixer in mixers])
    if odd is not None:
        return f"{NAME} needs the same heads in every layer; layer {odd} differs from layer 0"
    if any((mixer.window is None) != (mixer.rope is None) or mixer.rotary_dim not in (0, mixer.head_dim) for mixer in mixers):
        return f"{NAME} turns whole heads in windowed layers, and none in layers that see the whole document"
    windowed = [(mixer.window, mixer.rope) for mixer in mixers if mixer.window is not None]
    if not windowed:
        return f"{NAME} has windowed layers; this model has none"
    return f"{NAME} has one width of sliding window and one kind of positions" if differing(windowed) is not None else None


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    ffn, windows = routed_of(config)[0], [layer.mixer.window for layer in config.layers]
    first_full = next((index for index, window in enumerate(windows) if window is None), config.num_layers)
    return {
        **common_fields(config, ARCHITECTURE, NAME, special),
        **width_fields(config),
        "num_experts": ffn.num_experts,
        "num_shared_experts": ffn.shared_hidden // ffn.hidden,
        "num_dense_layers": len(dense_of(config)),
        "route_scale": ffn.scaling,
        "layer_types": [FULL if window is None else WINDOWED for window in windows],
        "sliding_window": next(window for window in windows if window is not None),
        "global_attn_every_n_layers": first_full + 1,
        "mup_enabled": config.embedding_scale != 1.0,
        "output_router_logits": False,
        # what the published files say and other readers than transformers ask for
        "score_func": "sigmoid", "route_norm": True, "n_group": 1, "topk_group": 1,
    }  # fmt: skip


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    refuse(host, score_func="sigmoid", route_norm=True, n_group=1, topk_group=1)
    windowed = attention_from_host(host, qk_norm=True, default_head_dim=128)
    windowed = windowed.model_copy(update={"gate": "sigmoid", "window": require(host, "sliding_window")})
    whole = windowed.model_copy(update={"window": None, "rope": None})
    by_name: dict[str, AttentionConfig] = {WINDOWED: windowed, FULL: whole}
    mixers: list[MixerConfig] = [by_name[kind] for kind in _layer_types(host)]
    ffn = experts(
        num_experts=require(host, "num_experts"), top_k=require(host, "num_experts_per_tok"), hidden=require(host, "moe_intermediate_size"),
        num_shared=require(host, "num_shared_experts"), scaling=float(host.get("route_scale") or 1.0),
    )  # fmt: skip
    layers = layers_from_host(host, mixers, ffn, host.get("num_dense_layers", 1), post_mixer_norm=True, post_ffn_norm=True)
    fields = model_fields(host)
    scale = fields["width"] ** 0.5 if host.get("mup_enabled") else 1.0
    return ModelConfig(layers=layers, **{**fields, "norm_epsilon": host.get("rms_norm_eps", 1e-5), "embedding_scale": scale})


def _layer_types(host: Mapping[str, Any]) -> list[str]:
    num_layers, every = require(host, "num_hidden_layers"), host.get("global_attn_every_n_layers") or 4
    kinds = kinds_of_layers(host, "layer_types", (WINDOWED, FULL))
    return kinds or [WINDOWED if (index + 1) % every else FULL for index in range(num_layers)]


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host, scales_embedding=True)
