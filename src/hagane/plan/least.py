"""The smallest budget that a pattern can use: whether enough optimizer steps fit into it, told before anything is read or compiled."""

from __future__ import annotations

import math

from hagane.errors import RecipeError
from hagane.model.config import ModelConfig
from hagane.plan.batch import MAX_ROWS_TOKENS, batch_rule
from hagane.plan.choose import STEADY_SHARE
from hagane.plan.contexts import contexts, mean_tokens_per_second, stretches
from hagane.plan.cost import least_step_seconds
from hagane.plan.law import Law
from hagane.plan.shapes import shape_key
from hagane.plan.sketch import MINIMUM_STEPS, best_shape, budget_seconds, in_proportion, training_seconds
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import Budget, Machine

# Seconds of compiling one kind of layer from cold, where a pattern has several: 38 to 53 s were measured for the two kinds of amplimind-xl and of
# neurosynth-9, of which the sketch keeps 14 for every recipe.
KIND_SECONDS = 12.0
ROUND_SECONDS = 10.0  # budgets as people write them
CERTAIN = 0.75  # of MINIMUM_STEPS: with fewer expected a budget is refused, with more the plan times a real step and decides


def refuse_few_steps(recipe: Recipe, pinned: SizeSettings, machine: Machine, law: Law) -> None:
    """Raises RecipeError, with the smallest useful budget, where one of time, energy or money leaves far fewer than MINIMUM_STEPS.

    The arithmetic is on the side of the recipe: whatever vocabulary leaves most steps, no more than the least that a step was seen to take, and a
    quarter of MINIMUM_STEPS for errors of both.
    """
    budget = Budget.parse(recipe.budget) if recipe.budget else None
    seconds = budget_seconds(budget, machine, recipe.execution.price_per_hour) if budget else None
    if budget is None or seconds is None:
        return
    steps, step = expected_steps(recipe, pinned, machine, law, seconds)
    if steps >= CERTAIN * MINIMUM_STEPS:
        return
    low, high = seconds, seconds * 2
    while expected_steps(recipe, pinned, machine, law, high)[0] < MINIMUM_STEPS:
        low, high = high, high * 2
    while high - low > ROUND_SECONDS:
        middle = (low + high) / 2
        low, high = (low, middle) if expected_steps(recipe, pinned, machine, law, middle)[0] >= MINIMUM_STEPS else (middle, high)
    enough = math.ceil(high / ROUND_SECONDS) * ROUND_SECONDS
    amount = enough if budget.kind == "time" else math.ceil(budget.amount * enough / seconds * 100) / 100
    raise RecipeError(
        f"A budget of {budget} leaves about {steps:.0f} optimizer steps of {step:.1f} s or more for the pattern of recipe {recipe.name} on this "
        f"machine, and a model learns nothing in fewer than {MINIMUM_STEPS}. The smallest useful budget is about {Budget(kind=budget.kind, amount=amount)}; "
        "fewer experts (model.pattern.num_experts), a shorter train.context, or a smaller model.size where --set gives one, need less."
    )


def expected_steps(recipe: Recipe, pinned: SizeSettings, machine: Machine, law: Law, seconds: float) -> tuple[float, float]:
    """Optimizer steps that `seconds` leave, and the seconds of one: of the plan's shapes, one for each vocabulary, the one with most steps."""
    sizes = [pinned.vocabulary_size] if pinned.vocabulary_size else sorted(recipe.tokenizer.candidates)
    training = training_seconds(seconds, len(contexts(recipe)))
    if training <= 0:
        return 0.0, 0.0
    options = [best_shape(recipe, pinned, machine, size, training, law) for size in sizes]
    return max((_steps(recipe, config, machine, training) for config in in_proportion(options)), key=lambda found: found[0])


def _steps(recipe: Recipe, config: ModelConfig, machine: Machine, training: float) -> tuple[float, float]:
    """Steps of one shape in what compiling leaves of `training` seconds, and the seconds of a step."""
    training -= _cold_seconds(recipe, config, machine)
    if training <= 0:
        return 0.0, 0.0
    batch = batch_rule(recipe, training * mean_tokens_per_second(recipe, config, machine))
    micro_steps = max(1, math.ceil(batch / MAX_ROWS_TOKENS[machine.device]))

    def cost(context: int) -> float:
        return micro_steps * least_step_seconds(config, max(batch, context) / micro_steps, context, machine)

    step = stretches(recipe, cost, config.context)[1]
    return training * STEADY_SHARE / step, step


def _cold_seconds(recipe: Recipe, config: ModelConfig, machine: Machine) -> float:
    """Seconds of compiling that the sketch does not keep; none where a step of this shape was timed here before."""
    kinds = len(set(config.layers))
    key = shape_key(config, 0, 0, "").removesuffix("0x0-")
    if kinds == 1 or not recipe.execution.compile or any(known.startswith(key) for known in machine.steps):
        return 0.0
    return KIND_SECONDS * kinds * len(contexts(recipe))
