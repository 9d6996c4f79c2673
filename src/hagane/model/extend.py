"""A finished model made ready for longer texts: its positions are interpolated, and its weights stay as they are. No torch here.

Three ways, each a change of the rotary frequencies alone (d rotary dimensions, s the factor):

    linear  positions divided by s (Chen et al. 2023, "Extending context window via positional interpolation")
    ntk     theta becomes theta * s^(d / (d - 2)), so that the slowest pair turns s times slower and the fastest as before ("NTK-aware",
            in Peng et al. 2023, section 3.1): plain positions with another base
    yarn    pairs by how often they turn over the original context: slow ones as in linear, fast ones kept, and the scores made sharper
            (Peng et al. 2023)

A layer whose window is within the original context never sees a distance it was not trained on. Where all layers with positions are such,
nothing is interpolated; where some are not, all are, for the hosts with windows turn every layer alike.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from hagane.errors import RecipeError
from hagane.model.config import LatentConfig, LayerConfig, MixerConfig, ModelConfig, RopeConfig, YarnConfig

Method = Literal["linear", "ntk", "yarn"]


def extended(config: ModelConfig, factor: float, method: Method) -> ModelConfig:
    """The same model for `factor` times its context. Raises RecipeError where its positions are interpolated in another way already."""
    turning = [layer.mixer for layer in (*config.layers, *config.mtp_layers) if layer.mixer.rope is not None]
    changed: dict[str, Any] = {"context": math.ceil(config.context * factor)}
    if not all(mixer.window is not None and mixer.window <= config.context for mixer in turning):
        for name in ("layers", "mtp_layers"):
            changed[name] = tuple(_interpolated(layer, config.context, factor, method) for layer in getattr(config, name))
    return config.model_copy(update=changed)


def _interpolated(layer: LayerConfig, context: int, factor: float, method: Method) -> LayerConfig:
    mixer = layer.mixer
    if mixer.rope is None:
        return layer
    return layer.model_copy(update={"mixer": mixer.model_copy(update={"rope": _rope(mixer, mixer.rope, context, factor, method)})})


def _rope(mixer: MixerConfig, rope: RopeConfig, context: int, factor: float, method: Method) -> RopeConfig:
    if rope.scaling not in (None, method):
        raise RecipeError(f"extend.method = {method!r}, but the model's positions are interpolated by {rope.scaling!r} already. Take that, too.")
    if method == "linear":
        return RopeConfig(theta=rope.theta, linear=factor * (rope.linear or 1.0))
    if method == "ntk":
        if mixer.rotary_dim < 4:
            raise RecipeError(f"extend.method = 'ntk' changes how the pairs of a head turn against each other; {mixer.rotary_dim} dimensions are one pair.")
        return RopeConfig(theta=rope.theta * factor ** (mixer.rotary_dim / (mixer.rotary_dim - 2)))
    if rope.yarn is not None:
        return rope.model_copy(update={"yarn": rope.yarn.model_copy(update={"factor": factor * rope.yarn.factor})})
    # latent attention turns a part of a head only: its scores are scaled as a whole instead (DeepSeek-V3, 2024, section 4.3)
    whole = {"mscale": 1.0, "mscale_all_dim": 1.0} if isinstance(mixer, LatentConfig) else {}
    return RopeConfig(theta=rope.theta, yarn=YarnConfig(factor=factor, original_context=context, **whole))
