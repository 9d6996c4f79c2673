"""Loss against time and cost: what half or twice the training would buy, each with the shape that would be best for it."""

from __future__ import annotations

from collections.abc import Sequence

from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters
from hagane.plan.batch import given_batch
from hagane.plan.contexts import mean_training_flops
from hagane.plan.cost import joules, tokens_per_second, training_flops_per_token
from hagane.plan.facts import CurvePoint
from hagane.plan.law import Law
from hagane.plan.sketch import Worth, best_shape, given_flops, point_of
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import Machine, duration

RATIOS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def loss_curve(
    recipe: Recipe, pinned: SizeSettings, machine: Machine, law: Law, seconds: float, chosen: ModelConfig, bytes_per_token: float, speed: float,
    worth: Worth | None = None,
) -> tuple[CurvePoint, ...]:  # fmt: skip
    """Expected loss over training time around the `seconds` of the plan's own shape, `chosen`.

    `speed` is what was measured over what the matrix rate lets expect, `worth` what text brings that is read more than once.
    """
    found, flops = [], given_flops(recipe)
    for ratio in RATIOS:
        given = None if flops is None else flops * ratio
        config = best_shape(recipe, pinned, machine, chosen.vocabulary_size, seconds * ratio * speed, law, worth, given) if ratio != 1 else chosen
        per_second = speed * tokens_per_second(config, recipe.train.context, machine, given_batch(recipe))
        tokens = seconds * ratio * per_second if given is None else given / mean_training_flops(recipe, config)
        taken = seconds * ratio if given is None else tokens / per_second
        value, low, high = law.predict(point_of(config, tokens * bytes_per_token if worth is None else worth(tokens * bytes_per_token)))
        found.append(
            CurvePoint(
                seconds=taken, joules=joules(taken, machine), flops=tokens * training_flops_per_token(config, recipe.train.context),
                num_active_parameters=num_active_parameters(config), bits_per_byte=value, low=low, high=high,
            )
        )  # fmt: skip
    return tuple(found)


def curve_line(curve: Sequence[CurvePoint]) -> str:
    """The curve on one line: bits per byte that each training time is expected to reach, the plan's own in the middle."""
    told = [f"{point.bits_per_byte:.2f} in {duration(point.seconds)}{' (this plan)' * (index == len(curve) // 2)}" for index, point in enumerate(curve)]
    return "bits per byte of other training times: " + ", ".join(told)
