"""Contexts that a budget can train: a published curriculum yields to a budget as a published size does, and so does the learning rate for that size.

Rows of 16,384 tokens are more than a whole optimizer step of a laptop's run. All contexts are divided by one power of two, so that their
ratios, which are the mechanism, stay. Texts that numbers are found again in are divided likewise: they show what those contexts are worth, and reading texts a
hundred times as long as any row of training took most of a short run.
"""

from __future__ import annotations

from collections.abc import Collection

from hagane.folder import pinned_only
from hagane.plan.batch import step_law_batch
from hagane.plan.shapes import published
from hagane.plan.sketch import sketch
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Machine

ROWS = 8  # of the longest context of pretraining in a step, at least: fewer are too alike to learn from at once
SHORTEST = 32  # tokens; no context is lowered below it
SHORTEST_TEXT = 256  # likewise of a text that hides a number: the longest needle and its question are 133 bytes, and no vocabulary makes more tokens of them


def fitted(recipe: Recipe, pinned: Collection[str], machine: Machine) -> Recipe:
    """The recipe with contexts that its budget can train, and without the learning rate of a size that the budget changes. Contexts stay as they are without a
    curriculum or an extension, and what --set says stays.

    Raises RecipeError where the budget is too small for anything.
    """
    if _for_another_size(recipe, pinned):
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": None})})
    train = recipe.train
    if recipe.budget is None or "train.context" in pinned or train.rows is not None or not (train.curriculum or recipe.extend.share):
        return recipe
    while True:
        tokens = sketch(recipe, pinned_only(recipe, pinned), machine).tokens
        lengths = [recipe.train.context, *(step.context for step in recipe.train.curriculum)]
        if max(lengths) * ROWS <= step_law_batch(tokens) or min(lengths) // 2 < SHORTEST or any(length % 2 for length in lengths):
            return recipe
        recipe = _halved(recipe, "evaluate.retrieval.lengths" not in pinned)


def _halved(recipe: Recipe, texts: bool) -> Recipe:
    """With contexts half as long, and `texts` that hide numbers likewise."""
    train, retrieval = recipe.train, recipe.evaluate.retrieval
    curriculum = tuple(step.model_copy(update={"context": step.context // 2}) for step in train.curriculum)
    update: dict[str, object] = {"train": train.model_copy(update={"context": train.context // 2, "curriculum": curriculum})}
    if texts:
        lengths = tuple(sorted({max(min(length, SHORTEST_TEXT), length // 2) for length in retrieval.lengths}))
        update["evaluate"] = recipe.evaluate.model_copy(update={"retrieval": retrieval.model_copy(update={"lengths": lengths})})
    return recipe.model_copy(update=update)


def _for_another_size(recipe: Recipe, pinned: Collection[str]) -> bool:
    """Whether the recipe's learning rate is that of a size which its budget changes."""
    if recipe.budget is None or recipe.train.learning_rate is None or published(recipe.model, recipe.train.context) is None:
        return False
    return not any(name.startswith("model.size") or name == "train.learning_rate" for name in pinned)
