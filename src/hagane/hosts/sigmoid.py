"""Sigmoid experts with a selection bias in config.json, as the hosts after DeepSeek-V3 have them: dense layers first, then routed ones.

The weights of the losses and the rate of the bias have no field: they are lost on the way, and a model that comes from such a
file is balanced by its bias alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hagane.errors import RecipeError
from hagane.hosts.base import Json, differing, require
from hagane.model.config import DenseConfig, ExpertsConfig, LayerConfig, MixerConfig, ModelConfig
from hagane.recipe.types import first_reason


def routed_of(config: ModelConfig) -> list[ExpertsConfig]:
    return [layer.ffn for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)]


def dense_of(config: ModelConfig) -> list[DenseConfig]:
    return [layer.ffn for layer in config.layers if isinstance(layer.ffn, DenseConfig)]


def sigmoid_reason(config: ModelConfig, host: str, *, groups: bool) -> str | None:
    """Why the feed-forwards do not fit a host of sigmoid experts, with groups or without; None when they do."""
    routed, dense = routed_of(config), dense_of(config)
    if not routed:
        return f"{host} has routed experts; this model has none"
    if any(ffn.score != "sigmoid" for ffn in routed):
        return f"{host} weighs experts by sigmoids; set score = 'sigmoid'"
    if any(ffn.shared_gate or not ffn.shared_hidden or ffn.shared_hidden % ffn.hidden for ffn in routed):
        return f"{host} has shared experts as wide as the routed ones, at least one of them and without a gate"
    if not groups and any(ffn.num_groups > 1 for ffn in routed):
        return f"{host} has no groups of experts"
    if differing([_shape(ffn) for ffn in routed]) is not None:
        return f"{host} needs the same experts in every routed layer"
    if dense and differing(dense) is not None:
        return f"{host} needs the same width in every dense layer"
    late = next((index for index in range(len(dense), config.num_layers) if isinstance(config.layers[index].ffn, DenseConfig)), None)
    return None if late is None else f"{host} has its dense layers first; layer {late} is dense after routed ones"


def _shape(ffn: ExpertsConfig) -> tuple[object, ...]:
    return ffn.num_experts, ffn.top_k, ffn.hidden, ffn.shared_hidden, ffn.normalise, ffn.scaling, ffn.num_groups, ffn.top_groups


def width_fields(config: ModelConfig) -> Json:
    """Widths of feed-forward and expert. The dense one is required even where no layer is dense; then what one token uses of the experts."""
    ffn, dense = routed_of(config)[0], dense_of(config)
    return {"intermediate_size": dense[0].hidden if dense else ffn.hidden * ffn.top_k, "moe_intermediate_size": ffn.hidden, "num_experts_per_tok": ffn.top_k}


def deepseek_fields(config: ModelConfig) -> Json:
    """Experts as DeepSeek-V3 names them."""
    ffn = routed_of(config)[0]
    return {
        **width_fields(config),
        "n_routed_experts": ffn.num_experts,
        "n_shared_experts": ffn.shared_hidden // ffn.hidden,
        "n_group": ffn.num_groups,
        "topk_group": ffn.top_groups,
        "norm_topk_prob": ffn.normalise,
        "routed_scaling_factor": ffn.scaling,
        "first_k_dense_replace": len(dense_of(config)),
    }


def deepseek_from_host(host: Mapping[str, Any]) -> ExpertsConfig:
    """Experts as DeepSeek-V3 names them. Raises RecipeError where they cannot be."""
    return experts(
        num_experts=require(host, "n_routed_experts"), top_k=require(host, "num_experts_per_tok"), hidden=require(host, "moe_intermediate_size"),
        num_shared=require(host, "n_shared_experts"), num_groups=host.get("n_group") or 1, top_groups=host.get("topk_group") or 1,
        normalise=bool(host.get("norm_topk_prob", True)), scaling=float(host.get("routed_scaling_factor") or 1.0),
    )  # fmt: skip


def experts(*, hidden: int, num_shared: int, **settings: Any) -> ExpertsConfig:
    """Sigmoid experts balanced by their bias. Raises RecipeError with the reason where the numbers contradict."""
    try:
        return ExpertsConfig(hidden=hidden, shared_hidden=hidden * num_shared, score="sigmoid", balance="bias", aux_coefficient=0.0, **settings)
    except ValidationError as error:
        raise RecipeError(f"config.json: the experts cannot be as it says: {first_reason(error)}.") from None


def layers_from_host(host: Mapping[str, Any], mixers: list[MixerConfig], ffn: ExpertsConfig, num_dense: int, **norms: bool) -> tuple[LayerConfig, ...]:
    """`num_dense` dense layers, then routed ones."""
    dense = DenseConfig(hidden=require(host, "intermediate_size"))
    return tuple(LayerConfig(mixer=mixer, ffn=dense if index < num_dense else ffn, **norms) for index, mixer in enumerate(mixers))
