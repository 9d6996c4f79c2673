"""Which small runs tell most about the mixture: their shape, their number, and the mixtures they read.

Mixtures are drawn from a Dirichlet distribution around UniMax's (as in Liu et al. 2024, "RegMix", arXiv 2407.01492), in which a language's share varies by
about 0.7 of itself; a few runs of UniMax itself, that differ in their seed, are the baseline. All are of one shape, of the recipe's own pattern: the
largest of which enough fit into the budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hagane.corpus.mixture import Shard, unimax_budgets
from hagane.errors import RecipeError
from hagane.plan.ladder import ENCODE_BYTES_PER_SECOND, RESERVE, Cost, Rung, grid, rung_point, smallest_tokens
from hagane.plan.languages import rates_of
from hagane.plan.law import Law, usual_bytes_per_token
from hagane.plan.optimum import REACH, Ground
from hagane.plan.sketch import SPARE_TEXT
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Machine, duration

FEWEST, MOST = 12, 48  # sampled mixtures; between them 10 and two for every language
PAIRS = 3  # runs of the baseline, and of the mixture that is found
SPREAD = 2.0  # of the Dirichlet distribution: its parameter for a language of mean share; shares then vary by 0.7 of themselves


@dataclass(frozen=True)
class Shape:
    """What all proxies share, what one costs, and how many mixtures are sampled."""

    rung: Rung
    cost: Cost
    count: int


def choose_shape(
    recipe: Recipe, machine: Machine, law: Law, seconds: float, vocabulary: int, num_languages: int, *, scored_bytes: float, text_bytes: float, spent: float
) -> Shape:
    """The largest shape of which enough runs fit into `seconds`. Raises RecipeError, with the smallest useful budget, where none does."""
    wanted = min(MOST, max(FEWEST, 10 + 2 * num_languages))
    options = [option for option in grid(recipe, machine, math.inf, [vocabulary], scored_bytes, text_bytes) if option[0].ffn == recipe.model.pattern.ffn]
    if not options:
        needed = smallest_tokens(recipe) * usual_bytes_per_token(vocabulary)
        raise RecipeError(
            f"the corpus has {text_bytes / 1e6:.2g} MB of text and the smallest proxy reads {needed / 1e6:.2g} MB. Give more text with --corpus; until then "
            "UniMax mixes the languages."
        )
    left = (seconds - text_bytes / ENCODE_BYTES_PER_SECOND) * RESERVE
    fitting = [(rung, cost) for rung, cost in options if cost.seconds * (wanted + 2 * PAIRS) <= left]
    if fitting:
        rung, cost = min(fitting, key=lambda option: law.constants.loss(rung_point(option[0], recipe)))
        return Shape(rung, cost, wanted)
    rung, cost = min(options, key=lambda option: option[1].seconds)
    count = int(left / cost.seconds) - 2 * PAIRS
    if count < FEWEST:
        enough = (FEWEST + 2 * PAIRS) * cost.seconds / RESERVE + text_bytes / ENCODE_BYTES_PER_SECOND + spent
        least = duration(math.ceil(enough * 1.05 / 10) * 10).replace(" ", "")
        raise RecipeError(
            f"the budget is too small for {FEWEST} mixtures and their check on this machine ({cost.seconds:.0f} s a proxy). Give --budget {least} or more."
        )
    return Shape(rung, cost, count)


def target_ground(recipe: Recipe, text: Mapping[str, Shard], total_bytes: float) -> tuple[Ground, dict[str, float]]:
    """What may be mixed for a run of `total_bytes`, and UniMax's rates of the free share. `text`: the whole corpus by shard.

    A run reads a sample that is divided by UniMax, so more than its part of it, with a margin, is not there to be read.
    Raises RecipeError where fewer than two languages are free.
    """
    fixed_sources = {source.name for source in recipe.corpus.sources if source.share is not None}
    unimax_recipe = recipe.model_copy(update={"mix": recipe.mix.model_copy(update={"weights": {}})})
    rates = rates_of(unimax_recipe, text, total_bytes)
    whole: dict[str, float] = {}
    free: dict[str, float] = {}
    fixed: dict[str, float] = {}
    fixed_unique: dict[str, float] = {}
    for name, shard in text.items():
        if shard.size <= 0:
            continue
        if shard.source in fixed_sources:
            fixed[shard.language] = fixed.get(shard.language, 0.0) + rates[name]
            fixed_unique[shard.language] = fixed_unique.get(shard.language, 0.0) + min(shard.size, SPARE_TEXT * total_bytes * rates[name])
        else:
            whole[shard.language] = whole.get(shard.language, 0.0) + shard.size
            free[shard.language] = free.get(shard.language, 0.0) + rates[name]
    if len(free) < 2:
        raise RecipeError(
            f"there is nothing to mix: {'the only language' if free else 'no language'} whose share is not fixed by its source"
            f"{f' is {next(iter(free))}' if free else ' is there'}. Give text of two languages or more, or take corpus.sources[].share away."
        )
    rest = sum(free.values())
    unique = unimax_budgets(whole, SPARE_TEXT * total_bytes * rest, max_repeats=1)
    return Ground(unique, fixed, fixed_unique, total_bytes, recipe.corpus.max_repeats), {name: rate / rest for name, rate in free.items()}


def weights_of(rates: Mapping[str, float]) -> dict[str, float]:
    """Rates as weights of which the mean is 1: how a recipe writes them."""
    mean = sum(rates.values()) / len(rates)
    return {name: float(f"{rate / mean:.4g}") for name, rate in sorted(rates.items())}


def sampled(unimax: Mapping[str, float], count: int, seed: int) -> list[dict[str, float]]:
    """Mixtures around UniMax's, each drawn from its own seed: more of them begin with the same."""
    names = sorted(unimax)
    centre_F = np.array([unimax[name] for name in names])
    found = []
    for index in range(count):
        draw_F = np.random.default_rng([seed, index]).dirichlet(np.maximum(0.5, SPREAD * len(names) * centre_F))
        draw_F = np.clip(draw_F, centre_F / REACH, centre_F * REACH)
        found.append(dict(zip(names, (draw_F / draw_F.sum()).tolist(), strict=True)))
    return found


def proxies(shape: Shape, unimax: Mapping[str, float], seed: int) -> list[Rung]:
    """The baseline's runs first, then the sampled mixtures."""
    base = [shape.rung.model_copy(update={"weights": weights_of(unimax), "seed": number}) for number in range(PAIRS)]
    return base + [shape.rung.model_copy(update={"weights": weights_of(rates)}) for rates in sampled(unimax, shape.count, seed)]


def pairs(rung: Rung, rates: Mapping[str, float]) -> list[Rung]:
    """Runs of a mixture that differ from those of the baseline in nothing else."""
    return [rung.model_copy(update={"weights": weights_of(rates), "seed": number}) for number in range(PAIRS)]
