"""config.json of `qwen3_moe`, both ways, and what a qwen3_moe cannot hold. Checked against transformers 5.23.

Layers may be dense or routed, each kind with one shape. The weight of the z-loss has no field in the file: it is lost on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.hosts.base import Host, Json, attention_from_host, common_fields, dense_of, differing, mixer_reason, model_fields, refuse, require, routed_of
from hagane.model.config import DenseConfig, ExpertsConfig, LayerConfig, ModelConfig

NAME, ARCHITECTURE = "qwen3_moe", "Qwen3MoeForCausalLM"


def can_hold(config: ModelConfig) -> str | None:
    routed, dense = routed_of(config), dense_of(config)
    if not routed:
        return f"{NAME} has routed experts; this model has none"
    if any(ffn.balance == "bias" for ffn in routed):
        return f"{NAME} has no selection bias; balance the experts with balance = 'loss'"
    if any(ffn.score != "softmax" or ffn.num_groups > 1 or ffn.scaling != 1.0 for ffn in routed):
        return f"{NAME} weighs experts by their softmax alone: no sigmoid, groups or scaling"
    if any(ffn.shared_hidden for ffn in routed):
        return f"{NAME} has no shared experts"
    if differing([(ffn.num_experts, ffn.top_k, ffn.hidden, ffn.normalise) for ffn in routed]) is not None:
        return f"{NAME} needs the same experts in every routed layer"
    if dense and differing(dense) is not None:
        return f"{NAME} needs the same width in every dense layer"
    return mixer_reason(config, NAME, qk_norm=True, windows=False)


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    ffn, dense = routed_of(config)[0], dense_of(config)
    return {
        **common_fields(config, ARCHITECTURE, NAME, special),
        # the dense width is required even where no layer is dense; then what one token uses of the experts
        "intermediate_size": dense[0].hidden if dense else ffn.hidden * ffn.top_k,
        "moe_intermediate_size": ffn.hidden,
        "num_experts": ffn.num_experts,
        "num_experts_per_tok": ffn.top_k,
        "norm_topk_prob": ffn.normalise,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [index for index, layer in enumerate(config.layers) if isinstance(layer.ffn, DenseConfig)],
        "router_aux_loss_coef": ffn.aux_coefficient,
        "output_router_logits": False,
        "use_sliding_window": False,
        "sliding_window": None,
    }


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    refuse(host, use_sliding_window=False)
    experts = ExpertsConfig(
        num_experts=host.get("num_experts") or require(host, "num_local_experts"),
        top_k=require(host, "num_experts_per_tok"),
        hidden=require(host, "moe_intermediate_size"),
        normalise=bool(host.get("norm_topk_prob", False)),
        aux_coefficient=host.get("router_aux_loss_coef", 1e-3),
    )
    dense = DenseConfig(hidden=require(host, "intermediate_size"))
    mixer = attention_from_host(host, qk_norm=True)
    step, dense_layers = host.get("decoder_sparse_step", 1), set(host.get("mlp_only_layers") or ())
    is_routed = [index not in dense_layers and (index + 1) % step == 0 for index in range(require(host, "num_hidden_layers"))]
    layers = tuple(LayerConfig(mixer=mixer, ffn=experts if routed else dense) for routed in is_routed)
    return ModelConfig(layers=layers, **model_fields(host))


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host)
