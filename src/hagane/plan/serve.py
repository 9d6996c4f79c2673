"""The shape for a budget that training and a stated amount of serving share (Sardana et al. 2023, arXiv 2401.00448, "Beyond Chinchilla-Optimal").

A token that is served, read or written, costs a forward pass: a third of a token that is trained on. A smaller model trained for longer
reaches the loss of a larger one and is cheaper to serve, so the more is served, the smaller is the best shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hagane.errors import RecipeError
from hagane.model.config import ExpertsConfig, ModelConfig
from hagane.model.count import num_active_parameters
from hagane.plan.amounts import amount
from hagane.plan.cost import usual_speed
from hagane.plan.law import Law
from hagane.plan.sketch import MINIMUM_TRAINING_SECONDS, Candidate, Expected, Worth, affordable, best_alike, with_finer_experts
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import Budget, Machine, duration


class Served(NamedTuple):
    """A shape with how the seconds are divided, and its expected bits per byte."""

    config: ModelConfig
    training_seconds: float
    serving_seconds: float
    loss: float


def parse_tokens(text: str) -> float:
    """Read `5e9`, `5G`, `1T` or `200Mtokens`. Raises RecipeError."""
    try:
        found = Budget.parse(text if text.lower().endswith(("tok", "token", "tokens")) else f"{text}tokens")
    except RecipeError:
        raise RecipeError(f"--serve-tokens {text} is not a number of tokens. Write for example 5e9, 200M or 1T.") from None
    return found.amount


def serving_options(
    recipe: Recipe, pinned: SizeSettings, machine: Machine, vocabulary_size: int, seconds: float, law: Law, tokens: float, worth: Worth | None = None
) -> list[Served]:
    """Every shape that can be trained and serve `tokens` within `seconds`, in full batches at the speed of training's forward pass: first the one that is
    chosen, by the rule for training alone, then by expected loss.

    Raises RecipeError where none can.
    """

    def serving_seconds(one: Candidate) -> float:
        return tokens / (3 * usual_speed(one.work, machine, one.batch))

    def trained(candidates: Sequence[Candidate]) -> list[Expected]:
        left = [(one, seconds - serving_seconds(one)) for one in candidates]
        return [one.expected(training, machine, law, worth) for one, training in left if training >= MINIMUM_TRAINING_SECONDS]

    options = affordable(recipe, pinned, machine, vocabulary_size)
    found = trained(options)
    if not found:
        least = min(map(serving_seconds, options))
        raise RecipeError(
            f"serving {tokens:g} tokens takes {duration(least)} with the smallest model of this recipe, which leaves less than "
            f"{MINIMUM_TRAINING_SECONDS:g}s of {duration(seconds)} for training. Give a larger --budget or fewer --serve-tokens."
        )
    found += trained(with_finer_experts(recipe, pinned, machine, best_alike(found)))
    best = best_alike(found)
    first = sorted(found, key=lambda item: (item.one is not best, item.loss))
    serving = [serving_seconds(item.one) for item in first]
    return [Served(item.one.config, seconds - spent, spent, item.loss) for item, spent in zip(first, serving, strict=True)]


def served_lines(best: Served, tokens: float, alone: ModelConfig, budget: Budget, which: str = "largest") -> list[str]:
    """How the time is divided, why the shape is what it is, and how to ask for it: `budget` is what training alone takes, `which` of the shapes that are
    alike is taken."""
    without = f"without serving it would have {amount(num_active_parameters(alone))} active"
    reason = f"the {which} shape whose expected loss after that is like the lowest; {without}"
    if alone == best.config:
        reason = "the shape is the same as without serving"
    return [
        f"  serving    {amount(tokens)} tokens at a third of a trained token's cost (a forward pass) take {duration(best.serving_seconds)}, which leaves "
        f"{duration(best.training_seconds)} for training; {reason}",
        f"             to train it: --budget {budget.exact} {' '.join(f'--set {setting}' for setting in size_settings(best.config))}",
    ]


def size_settings(config: ModelConfig) -> list[str]:
    """Settings for which a plan of the same recipe has this shape and no other. Experts are as wide as they are: where top_k is given, nothing narrows them."""
    routed = next((layer.ffn for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)), None)
    found = [f"model.size.width={config.width}", f"model.size.num_layers={config.num_layers}", f"model.size.vocabulary_size={config.vocabulary_size}"]
    if routed is None:
        return found
    ratio = f"model.pattern.expert_ratio={routed.hidden / config.width:.6g}"
    return [*found, f"model.pattern.num_experts={routed.num_experts}", f"model.pattern.top_k={routed.top_k}", ratio]
