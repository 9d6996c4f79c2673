"""config.json of `qwen3_next`, both ways, and what a qwen3_next cannot hold. Checked against transformers 5.23.

Layers of Gated DeltaNet and of gated attention in any order, dense or routed with a gated shared expert, each kind with one shape.
`full_attention_interval` says the same as `layer_types` for readers that know only that, where the order is regular. The weight of the
z-loss has no field in the file: it is lost on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from hagane.hosts.base import (
    Host,
    Json,
    attention_from_host,
    common_fields,
    dense_of,
    differing,
    model_fields,
    require,
    rotary_from_host,
    rotary_share,
    routed_of,
)
from hagane.hosts.fields import kinds_of_layers
from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, ExpertsConfig, LayerConfig, ModelConfig

NAME, ARCHITECTURE = "qwen3_next", "Qwen3NextForCausalLM"
LINEAR, FULL = "linear_attention", "full_attention"
ROTARY_SHARE = 0.25  # of a head, where the file does not say


def _deltas(config: ModelConfig) -> list[DeltaConfig]:
    return [layer.mixer for layer in config.layers if isinstance(layer.mixer, DeltaConfig)]


def _attentions(config: ModelConfig) -> list[AttentionConfig]:
    return [layer.mixer for layer in config.layers if isinstance(layer.mixer, AttentionConfig)]


def can_hold(config: ModelConfig) -> str | None:
    deltas, attentions = _deltas(config), _attentions(config)
    foreign = next((layer.mixer.kind for layer in config.layers if not isinstance(layer.mixer, (DeltaConfig, AttentionConfig))), None)
    if foreign is not None:
        return f"{NAME} mixes with Gated DeltaNet and attention only, not {foreign}"
    if not attentions:
        return f"{NAME} has attention in some of its layers; this model has none"
    if differing(deltas) is not None or differing(attentions) is not None:
        return f"{NAME} needs the same shape in all layers of Gated DeltaNet, and in all layers of attention"
    return _attention_reason(attentions[0]) or _block_reason(config)


def _attention_reason(mixer: AttentionConfig) -> str | None:
    if not mixer.qk_norm:
        return f"{NAME} always has QK-norm"
    if mixer.gate != "sigmoid":
        return f"{NAME} always has a sigmoid output gate on attention"
    if mixer.window is not None:
        return f"{NAME} has no sliding window"
    return f"{NAME} turns a part of each head by its position; this model turns none" if mixer.rope is None else None


def _block_reason(config: ModelConfig) -> str | None:
    if any(layer.post_mixer_norm or layer.post_ffn_norm for layer in config.layers):
        return f"{NAME} has no norm after the mixer or the feed-forward"
    routed = routed_of(config)
    if any(not (ffn.shared_hidden and ffn.shared_gate) for ffn in routed):
        return f"{NAME} has a gated shared expert beside routed ones; this model has none, or one without a gate"
    if any(ffn.balance == "bias" for ffn in routed):
        return f"{NAME} has no selection bias; balance the experts with balance = 'loss'"
    if any(ffn.score != "softmax" or ffn.num_groups > 1 or ffn.scaling != 1.0 for ffn in routed):
        return f"{NAME} weighs experts by their softmax alone: no sigmoid, groups or scaling"
    if differing([(ffn.num_experts, ffn.top_k, ffn.hidden, ffn.shared_hidden, ffn.normalise) for ffn in routed]) is not None:
        return f"{NAME} needs the same experts in every routed layer"
    return f"{NAME} needs the same width in every dense layer" if differing(dense_of(config)) is not None else None


def _interval(types: list[str]) -> Json:
    interval = types.index(FULL) + 1
    regular = all((kind == FULL) == ((index + 1) % interval == 0) for index, kind in enumerate(types))
    return {"full_attention_interval": interval} if regular else {}


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    mixer, types = _attentions(config)[0], [FULL if isinstance(layer.mixer, AttentionConfig) else LINEAR for layer in config.layers]
    first = config.layers[types.index(FULL)]
    fields = common_fields(config.model_copy(update={"layers": (first,)}), ARCHITECTURE, NAME, special)
    # sizes of a model without one such layer are its attention's, which fit any reader
    delta = next(iter(_deltas(config)), DeltaConfig(num_key_heads=1, num_value_heads=1, key_dim=mixer.head_dim, value_dim=mixer.head_dim))
    return {
        **fields,
        "num_hidden_layers": config.num_layers,
        "layer_types": types,
        **_interval(types),
        "partial_rotary_factor": rotary_share(mixer),
        "rope_parameters": {**fields["rope_parameters"], "partial_rotary_factor": rotary_share(mixer)},
        "linear_num_key_heads": delta.num_key_heads,
        "linear_num_value_heads": delta.num_value_heads,
        "linear_key_head_dim": delta.key_dim,
        "linear_value_head_dim": delta.value_dim,
        "linear_conv_kernel_dim": delta.taps,
        **_feed_forward_to_host(config),
    }


def _feed_forward_to_host(config: ModelConfig) -> Json:
    routed, dense = routed_of(config), dense_of(config)
    fields = {
        "mlp_only_layers": [index for index, layer in enumerate(config.layers) if isinstance(layer.ffn, DenseConfig)],
        "decoder_sparse_step": 1,
        "output_router_logits": False,
    }
    if not routed:
        return {**fields, "intermediate_size": dense[0].hidden, "num_experts": 0, "num_experts_per_tok": 0}
    ffn = routed[0]
    return {
        **fields,
        # the dense width is required even where no layer is dense; then what one token uses of the experts
        "intermediate_size": dense[0].hidden if dense else ffn.hidden * ffn.top_k,
        "num_experts": ffn.num_experts,
        "num_experts_per_tok": ffn.top_k,
        "moe_intermediate_size": ffn.hidden,
        "shared_expert_intermediate_size": ffn.shared_hidden,
        "norm_topk_prob": ffn.normalise,
        "router_aux_loss_coef": ffn.aux_coefficient,
    }


def _types(host: Mapping[str, Any]) -> list[str]:
    """What mixes in each layer. Raises RecipeError where the file names something else."""
    interval = host.get("full_attention_interval") or 4
    types = kinds_of_layers(host, "layer_types", (LINEAR, FULL))
    return types or [LINEAR if (index + 1) % interval else FULL for index in range(require(host, "num_hidden_layers"))]


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    share, whole = rotary_from_host(host, ROTARY_SHARE)
    attention = attention_from_host(whole, qk_norm=True, rotary_share=share).model_copy(update={"gate": "sigmoid"})
    delta = DeltaConfig(
        num_key_heads=require(host, "linear_num_key_heads"),
        num_value_heads=require(host, "linear_num_value_heads"),
        key_dim=require(host, "linear_key_head_dim"),
        value_dim=require(host, "linear_value_head_dim"),
        taps=require(host, "linear_conv_kernel_dim"),
    )
    types, routed = _types(host), _routed_layers(host)
    dense = DenseConfig(hidden=require(host, "intermediate_size")) if len(routed) < len(types) else None
    experts = _experts_from_host(host) if routed else None
    layers = tuple(
        LayerConfig(mixer=delta if kind == LINEAR else attention, ffn=experts if index in routed else dense) for index, kind in enumerate(types)
    )
    return ModelConfig(layers=layers, **model_fields(host))


def _routed_layers(host: Mapping[str, Any]) -> set[int]:
    if not require(host, "num_experts"):
        return set()
    step, dense = host.get("decoder_sparse_step", 1), set(host.get("mlp_only_layers") or ())
    return {index for index in range(require(host, "num_hidden_layers")) if index not in dense and (index + 1) % step == 0}


def _experts_from_host(host: Mapping[str, Any]) -> ExpertsConfig:
    return ExpertsConfig(
        num_experts=require(host, "num_experts"),
        top_k=require(host, "num_experts_per_tok"),
        hidden=require(host, "moe_intermediate_size"),
        shared_hidden=require(host, "shared_expert_intermediate_size"),
        shared_gate=True,
        normalise=bool(host.get("norm_topk_prob", True)),
        aux_coefficient=host.get("router_aux_loss_coef", 1e-3),
    )


def unused(names: Set[str], config: ModelConfig) -> set[str]:
    """The module for multi-token prediction, which stands beside the model in published files and is not read."""
    return {name for name in names if name.startswith("mtp.")}


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host, unused=unused)
