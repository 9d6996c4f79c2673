"""How fast selection biases move where they hold a budget of null experts: FLOPs, time and energy of a plan count with the mean that a token is to use.

A bias that balances load alone needs no such rule. There the published rate holds for any length of training: what it has not reached leaves experts unevenly
loaded, beside a loss that pulls the same way, and no number of the plan changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from hagane.model.config import BIAS_RATE, ExpertsConfig, LayerConfig, ModelConfig
from hagane.recipe.schema import PatternSettings
from hagane.recipe.types import Phase

REACH, HIGHEST_BIAS_RATE = 6.0, 0.03
"""Steps x rate that biases of sigmoid scores, which lie between 0 and 1, need until the mean is at its budget though routers learn to leave it, and the rate
above which it overshoots (docs/notebook.md, "The budget of null experts")."""


def bias_rate(num_steps: int) -> float:
    """Rate of so many steps: what the reach asks, at least the published one."""
    return min(max(BIAS_RATE, float(f"{REACH / max(1, num_steps):.2g}")), HIGHEST_BIAS_RATE)


def derives_bias_rate(pattern: PatternSettings) -> bool:
    """Whether it is the plan that says how fast biases move. Not of softmax scores, which are the smaller the more outputs there are: no one rate fits them."""
    return pattern.bias_rate is None and pattern.null_experts > 0 and pattern.balance == "bias" and pattern.score == "sigmoid"


def with_bias_rate(config: ModelConfig, pattern: PatternSettings, phases: Sequence[Phase]) -> ModelConfig:
    """The model with the rate for these phases of training it from nothing, where the recipe leaves it open. Biases rest while indexers warm up alone."""
    if not derives_bias_rate(pattern):
        return config
    rate = bias_rate(sum(phase.num_steps for phase in phases if phase.index != "warmup"))
    made = {layer: _rated(layer, rate) for layer in (*config.layers, *config.mtp_layers)}  # one object for each kind of layer
    layers, further = (tuple(made[layer] for layer in layers) for layers in (config.layers, config.mtp_layers))
    return config.model_copy(update={"layers": layers, "mtp_layers": further})


def bias_rate_reason(config: ModelConfig, pattern: PatternSettings) -> dict[str, str]:
    """Why biases move as fast as they do: under "bias_rate", nothing for a model whose experts none balances."""
    rate = next((layer.ffn.bias_rate for layer in config.layers if isinstance(layer.ffn, ExpertsConfig) and layer.ffn.balance == "bias"), None)
    if rate is None:
        return {}
    if pattern.bias_rate is not None:
        return {"bias_rate": f"{rate:g} a step, as the recipe says"}
    if not derives_bias_rate(pattern):
        return {"bias_rate": f"{rate:g} a step, as published (Wang et al. 2024; DeepSeek-V3, 2024); override: model.pattern.bias_rate"}
    return {
        "bias_rate": f"{rate:.2g} a step, so that null experts come to their budget (the fewer steps, the faster; {BIAS_RATE:g} as published, at least); "
        "override: model.pattern.bias_rate"
    }


def _rated(layer: LayerConfig, rate: float) -> LayerConfig:
    if not isinstance(layer.ffn, ExpertsConfig):
        return layer
    return layer.model_copy(update={"ffn": layer.ffn.model_copy(update={"bias_rate": rate})})
