"""Which contexts a run trains at: shares of its steps, what they cost on average, and one schedule over phases of several contexts.

The tokens of a step stay the same from one context to the next: rows become fewer as they become longer. Shares are of the training time
for stages, and of the tokens of pretraining, hence of its steps, inside the curriculum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hagane.model.config import ModelConfig
from hagane.plan.cost import tokens_per_second, training_flops_per_token
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Machine, Phase


class Stretch(NamedTuple):
    """A stage, or a part of pretraining, at one context. `share` is of all optimizer steps of the run."""

    stage: str
    context: int
    share: float


class Part(NamedTuple):
    """A share of a phase's steps at a context of its own, and the batch it has there."""

    context: int
    rows: int
    accumulation: int
    share: float


def curriculum(recipe: Recipe) -> list[tuple[int, float]]:
    """(context, share of the steps) of pretraining in order; the last is train.context."""
    train = recipe.train
    parts = [(part.context, part.share) for part in train.curriculum]
    return [*parts, (train.context, 1 - sum(share for _, share in parts))]


def extended_context(recipe: Recipe, model_context: int) -> int | None:
    """Tokens of a row while a finished model of `model_context` is extended; None where the recipe asks for no extension."""
    return model_context * recipe.extend.factor if recipe.extend.share > 0 else None


def contexts(recipe: Recipe, model_context: int | None = None) -> list[int]:
    """Every context that is trained at: train.context first, since batch and speed are told for it."""
    longest = extended_context(recipe, model_context or recipe.train.context)
    return list(dict.fromkeys([recipe.train.context, *(context for context, _ in curriculum(recipe)), *([longest] if longest else [])]))


def stretches(recipe: Recipe, cost: Callable[[int], float], model_context: int | None = None) -> tuple[list[Stretch], float]:
    """All stretches, and the mean cost of a step. `cost(context)`: of a step at it, in any unit of which the shares of stages are."""
    share, context = recipe.midtrain.share + recipe.tune.share + recipe.extend.share, recipe.train.context
    if len(contexts(recipe, model_context)) == 1:  # shares of the time are shares of the steps, to the last bit
        found = [("pretrain", 1 - share), ("midtrain", recipe.midtrain.share), ("tune", recipe.tune.share)]
        return [Stretch(stage, context, part) for stage, part in found if part], cost(context)
    parts = curriculum(recipe)
    mean = sum(part * cost(length) for length, part in parts)
    steps = [("pretrain", length, (1 - share) * part / mean) for length, part in parts]
    steps += [("midtrain", context, recipe.midtrain.share / cost(context)), ("tune", context, recipe.tune.share / cost(context))]
    longest = extended_context(recipe, model_context or context)
    if longest is not None:
        steps.append(("extend", longest, recipe.extend.share / cost(longest)))
    total = sum(count for _, _, count in steps)
    return [Stretch(stage, length, count / total) for stage, length, count in steps if count], 1 / total


def mean_tokens_per_second(recipe: Recipe, config: ModelConfig, machine: Machine) -> float:
    """Expected speed of training over all contexts, from the matrix rate alone."""
    if len(contexts(recipe, config.context)) == 1:
        return tokens_per_second(config, recipe.train.context, machine)
    return 1 / stretches(recipe, lambda context: 1 / tokens_per_second(config, context, machine), config.context)[1]


def mean_training_flops(recipe: Recipe, config: ModelConfig) -> float:
    """FLOPs of a token of training, attention at the context it is trained at."""
    if len(contexts(recipe, config.context)) == 1:
        return training_flops_per_token(config, recipe.train.context)
    return stretches(recipe, lambda context: training_flops_per_token(config, context), config.context)[1]


def batch_at(context: int, base: int, rows: int, accumulation: int) -> tuple[int, int]:
    """Rows and accumulation of a step at `context` with as many tokens, and as many in a micro-step, as `rows` of `base` have; one row at least."""
    own_rows = max(1, rows * base // context)
    return own_rows, max(1, rows * accumulation * base // context // own_rows)


def split(whole: Phase, parts: Sequence[Part]) -> tuple[Phase, ...]:
    """One phase as several of unlike contexts; their learning rates are those of the whole, step by step."""
    if len(parts) == 1:
        return (whole,)
    ends = [round(whole.num_steps * sum(part.share for part in parts[: index + 1])) for index in range(len(parts))]
    phases = []
    for begin, end, part in zip([0, *ends], ends, parts):
        start, stop = (_level(whole, step / whole.num_steps) for step in (begin, end))
        # progress at which the decay begins, within this part
        bend = max(begin, min(end, whole.num_steps * (1 - whole.decay_share)))
        phases.append(whole.model_copy(update={
            "name": f"{whole.name} {part.context}", "context": part.context, "rows": part.rows, "accumulation": part.accumulation,
            "num_steps": max(1, end - begin), "learning_rate": whole.learning_rate * start,
            "warmup_steps": min(whole.warmup_steps, end) if begin == 0 else 0,
            "decay_share": (end - bend) / max(1, end - begin), "final_share": stop / start,
        }))  # fmt: skip
    return tuple(phases)


def _level(phase: Phase, progress: float) -> float:
    """Share of the peak learning rate, warm-up left out."""
    left = 1.0 - progress
    return 1.0 if left >= phase.decay_share else phase.final_share + (1.0 - phase.final_share) * left / phase.decay_share
