"""Sigmoid experts with a selection bias in config.json, as the hosts after DeepSeek-V3 have them: dense layers first, then routed ones.

The weights of the losses and the rate of the bias have no field: they are lost on the way, and a model that comes from such a
file is balanced by its bias alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hagane.errors import RecipeError
from hagane.hosts.base import Json, dense_of, differing, require, routed_of
from hagane.model.config import DenseConfig, ExpertsConfig, LayerConfig, MixerConfig, ModelConfig
from hagane.recipe.types import first_reason

_OF_TRAINING = {"balance", "aux_coefficient", "z_coefficient", "bias_rate", "entropy_clamp"}  # settings that change nothing a host computes


def sigmoid_reason(config: ModelConfig, host: str, *, groups: bool) -> str | None:
    """Why the feed-forwards do not fit a host of sigmoid experts, with groups or without; None when they do or there are none."""
    routed, dense = routed_of(config), dense_of(config)
    late = next((index for index in range(len(dense)) if isinstance(config.layers[index].ffn, ExpertsConfig)), None)
    if late is not None:
        return f"{host} has its dense layers before all routed ones; layer {late} is routed"
    if differing(dense) is not None:
        return f"{host} needs the same width in every dense layer"
    if not routed:
        return None
    if differing([ffn.model_dump(exclude=_OF_TRAINING) for ffn in routed]) is not None:
        return f"{host} needs the same experts in every routed layer"
    return _expert_reason(routed[0], host, groups)


def _expert_reason(ffn: ExpertsConfig, host: str, groups: bool) -> str | None:
    if ffn.score != "sigmoid":
        return f"{host} weighs experts by the sigmoids of their scores, this model by {ffn.score}; set score = 'sigmoid'"
    if ffn.shared_gate:
        return f"{host} has no gate on shared experts"
    if not ffn.shared_hidden or ffn.shared_hidden % ffn.hidden:
        return f"{host} has shared experts as wide as the others; shared_hidden {ffn.shared_hidden} is not a multiple of {ffn.hidden}"
    if not groups:
        return f"{host} has no groups of experts" if ffn.num_groups > 1 else None
    return f"{host} judges groups of experts by two; this model has one expert" if ffn.num_experts < 2 else None


def routed_reason(config: ModelConfig, host: str) -> str | None:
    """Why a host that always has experts does not fit; None when it does."""
    return None if routed_of(config) else f"{host} has routed experts; this model has none"


def _described(config: ModelConfig) -> ExpertsConfig:
    """The experts that fields speak of. They are required even where no layer has any: then the fewest that there can be, of the dense width."""
    routed = routed_of(config)
    if routed:
        return routed[0]
    hidden = dense_of(config)[0].hidden
    return ExpertsConfig(num_experts=2, top_k=1, hidden=hidden, score="sigmoid", shared_hidden=hidden)


def width_fields(config: ModelConfig) -> Json:
    """Widths of feed-forward and expert. The dense one is required even where no layer is dense; then what one token uses of the experts."""
    ffn, dense = _described(config), dense_of(config)
    return {"intermediate_size": dense[0].hidden if dense else ffn.hidden * ffn.top_k, "moe_intermediate_size": ffn.hidden, "num_experts_per_tok": ffn.top_k}


def deepseek_fields(config: ModelConfig) -> Json:
    """Experts as DeepSeek-V3 names them."""
    ffn = _described(config)
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
        num_experts=host.get("n_routed_experts") or host.get("num_local_experts") or require(host, "n_routed_experts"),
        top_k=require(host, "num_experts_per_tok"), hidden=require(host, "moe_intermediate_size"),
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
