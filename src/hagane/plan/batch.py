"""The batch: how many tokens one optimizer step reads.

For a given number of tokens Step Law (Li et al. 2025) says what is best. A given time is another question: part of a step costs the same whatever it reads
(Muon's iterations, the way to the experts, a GPU's launches), so a larger batch reads more in that time. Two steps of unlike batches tell how much, and the
loss law what it is worth against what a batch beyond Step Law's loses (docs/notebook.md, "The batch at equal time").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hagane.recipe.schema import Recipe
from hagane.recipe.types import Machine, StepRate

MAX_ROWS_TOKENS = {"cpu": 8192, "cuda": 65536}  # a micro-step beyond this is no faster and takes more memory
PENALTY = 0.0105  # of the loss, times the square of the doublings between a batch and Step Law's: 1.2, 2.0 and 3.0 of them lost 1.6, 4.3 and 9.2 %
FEW_TOKENS = 1024  # of the smaller of the two steps that are timed
MOST_DOUBLINGS = 4  # of the largest micro-step


def step_law_batch(tokens: float) -> float:
    """Tokens of an optimizer step for a run of `tokens` (Li et al. 2025)."""
    return float(0.58 * tokens**0.571)


def given_batch(recipe: Recipe) -> int | None:
    """Tokens of an optimizer step where the recipe gives its rows, or, for the size that it publishes and no budget asks to be changed, its tokens."""
    train = recipe.train
    if train.rows is None:
        return recipe.published.batch_tokens if recipe.budget is None else None
    return train.rows * (train.accumulation or 1) * train.context


def batch_rule(recipe: Recipe, tokens: float) -> int:
    """Tokens of an optimizer step for a run of `tokens`: Step Law's, as a power of two of rows, unless the recipe says."""
    context, given = recipe.train.context, given_batch(recipe)
    if given is not None:
        return given
    return int(2 ** max(0, round(math.log2(max(1.0, step_law_batch(tokens) / context))))) * context


@dataclass(frozen=True)
class Batch:
    """Rows of a micro-step, micro-steps of a step, and why."""

    rows: int
    accumulation: int
    reason: str

    @classmethod
    def of(cls, recipe: Recipe, machine: Machine, total_rows: int, reason: str, most: int | None = None) -> Batch:
        """`total_rows` in as few micro-steps as may be, of `most` rows each."""
        accumulation = recipe.train.accumulation or max(1, math.ceil(total_rows / (most or most_rows(recipe, machine))))
        return cls(recipe.train.rows or math.ceil(total_rows / accumulation), accumulation, reason)


def by_tokens(recipe: Recipe, machine: Machine, tokens: float) -> Batch:
    """The batch for a run of `tokens`: the recipe's, or Step Law's."""
    if recipe.train.rows is not None:
        return Batch.of(recipe, machine, recipe.train.rows, f"{recipe.train.rows} rows of {recipe.train.context} tokens, as the recipe says")
    total = max(1, batch_rule(recipe, tokens) // recipe.train.context)
    if given_batch(recipe) is not None:
        return Batch.of(recipe, machine, total, f"{total} rows of {recipe.train.context} tokens: as its makers had it (published.batch_tokens)")
    reason = (
        f"{total} rows of {recipe.train.context} tokens: Step Law (Li et al. 2025), 0.58 D^0.571 = {step_law_batch(tokens):,.0f} tokens for D = {tokens:,.0f}"
    )
    return Batch.of(recipe, machine, total, reason)


def most_rows(recipe: Recipe, machine: Machine) -> int:
    """Rows of the largest micro-step worth having."""
    return max(1, MAX_ROWS_TOKENS[machine.device] // recipe.train.context)


def by_time(
    recipe: Recipe, machine: Machine, seconds: float, most: int, loss: Callable[[float], float], time_rows: Callable[[int], StepRate | None]
) -> Batch | None:
    """The batch with the lowest expected loss after `seconds` of training; None where nothing was timed. Asked only where the recipe leaves it open.

    `most` rows of a micro-step fit into memory; `loss(tokens)` is the law's for the shape; `time_rows(rows)` measures a micro-step.
    """
    context = recipe.train.context
    few = min(most, max(1, FEW_TOKENS // context))
    many = min(most, 8 * few)
    short, long = time_rows(few), time_rows(many)
    if short is None or long is None or many == few:
        return None
    each = max((long.step_seconds - short.step_seconds) / (many - few), 0.1 * long.step_seconds / many)  # noise must not make rows free
    fixed = max(0.0, short.step_seconds - few * each)

    def tokens(rows: int) -> float:
        return seconds * rows * context / (rows * each + fixed * math.ceil(rows / most))

    def expected(rows: int) -> float:
        return loss(tokens(rows)) * (1 + PENALTY * math.log2(rows * context / step_law_batch(tokens(rows))) ** 2)

    total = min((2**power for power in range(round(math.log2(most)) + MOST_DOUBLINGS)), key=expected)
    reason = (
        f"{total} rows of {context} tokens: lowest expected loss in this time, as a step takes {1e3 * fixed:.0f} ms "
        f"and {1e3 * each:.{1 if each < 0.01 else 0}f} ms a row here; "
        f"for the tokens alone it would be {step_law_batch(tokens(total)):,.0f} tokens (Step Law, Li et al. 2025)"
    )
    return Batch.of(recipe, machine, total, reason, most)
