"""Which small models a ladder trains: the runs that tell most about the loss at the planned target, per second.

The rule is Bayesian c-optimality (Chaloner and Verdinelli 1995), greedily. Before anything is trained the constants of the law are as uncertain as their
priors; a run of a shape on an amount of text measures one combination of them, with the noise of a run and with an error of form that grows with the
distance in compute to the target. The next run is always the one that lowers the variance of the predicted log loss at the targets most for
its seconds. The targets are the shapes that the plan would weigh for the target budget: its best one, the rungs beside it, and the
smallest and largest vocabulary. So cheap runs come first, dear ones stand near the target, vocabularies and experts are varied just as much as they matter.

Every run has its own complete schedule: batch and peak learning rate follow from its number of tokens, so a checkpoint on the way is not a shorter
run. One trunk with several decays (Hu et al. 2024) would save at most 60 % of every shorter run of a shape, but holds batch and rate fixed: not done.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from hagane.errors import RecipeError
from hagane.model.config import ModelConfig
from hagane.model.count import flops_per_token
from hagane.plan.batch import batch_rule
from hagane.plan.cost import tokens_per_second
from hagane.plan.fit import NOISE, Prior, slopes
from hagane.plan.law import FORM_ERROR, Law, Point, usual_bytes_per_token
from hagane.plan.shapes import LADDER, shape
from hagane.plan.sketch import SCORING_SPEED, best_shape, point_of
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import Frozen, Machine, duration

TARGET_RATIO = 8.0  # the budget the law is for, over the ladder's own, where none is given
# Of fewer the loss is still that of the first steps: below 300,000 tokens every doubling took away more than the one before, which no power law does
# (docs/notebook.md, "The loss law of small models").
FEWEST_STEPS, FEWEST_TOKENS = 300, 400_000
LARGEST_SHARE = 0.3  # of the budget that one run may take
LEAST_RUNS, SPARE = 6, 1.6  # runs at least; seconds kept for each of them that is missing, over those of the cheapest run
EAGER_SPEED = 0.55  # of compiled speed: 28,000 and 51,000 tokens/s at width 64, two cores
COMPILE_SECONDS = 13.0  # until a compiled step runs, where nothing is kept
SET_UP_SECONDS = 1.5  # model, optimizer, weights written and read again
RESERVE = 0.92  # of the budget that is planned away: speed varies from minute to minute
ENCODE_BYTES_PER_SECOND = 6.0e6


class Rung(Frozen):
    """One small run. `tilt`: every other language is read twice as often, the others half as often; tells what a language's own text is worth.

    `weights`: how much of each language is read against the others, where that is what the run is to tell of.
    """

    width: int
    num_layers: int
    ffn: Literal["dense", "experts"]
    vocabulary_size: int
    tokens: int
    tilt: bool = False
    seed: int = 0
    weights: dict[str, float] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        mixture = hashlib.blake2b(json.dumps(self.weights, sort_keys=True).encode(), digest_size=4).hexdigest() if self.weights else ""
        marks = ("-tilt" if self.tilt else "") + (f"-m{mixture}" if mixture else "")
        return f"w{self.width}-l{self.num_layers}-{self.ffn}-v{self.vocabulary_size}-{self.tokens // 1000}k{marks}-s{self.seed}"

    def config(self, recipe: Recipe) -> ModelConfig:
        pattern = recipe.model.pattern.model_copy(update={"ffn": self.ffn} | ({"balance": "loss"} if self.ffn == "dense" else {}))
        return shape(pattern, SizeSettings(), width=self.width, num_layers=self.num_layers, vocabulary_size=self.vocabulary_size, context=recipe.train.context)


@dataclass(frozen=True)
class Cost:
    """How long a run of the ladder is expected to take, and whether it is worth compiling."""

    seconds: float
    compiled: bool


@dataclass(frozen=True)
class Design:
    """Runs in the order in which they are trained, the smallest first, and what they are expected to leave uncertain."""

    rungs: tuple[Rung, ...]
    seconds: float
    target: Point
    deviation: float  # of the predicted log loss at the target


def cost_of(rung: Rung, recipe: Recipe, machine: Machine, scored_bytes: float) -> Cost:
    """Seconds by the matrix rate, compiled where that pays, scoring of the held-out text included."""
    config = rung.config(recipe)
    speed = tokens_per_second(config, recipe.train.context, machine)
    compiled, eager = rung.tokens / speed + COMPILE_SECONDS, rung.tokens / speed / EAGER_SPEED
    score = scored_bytes / usual_bytes_per_token(rung.vocabulary_size) / (SCORING_SPEED * EAGER_SPEED * speed)
    use = recipe.execution.compile and compiled < eager
    return Cost((compiled if use else eager) + score + SET_UP_SECONDS, use)


def rung_point(rung: Rung, recipe: Recipe) -> Point:
    return point_of(rung.config(recipe), rung.tokens * usual_bytes_per_token(rung.vocabulary_size))


def targets(recipe: Recipe, pinned: SizeSettings, machine: Machine, seconds: float, vocabularies: Sequence[int], law: Law) -> list[Point]:
    """What the law will be asked: the best shape at the target budget first, then its neighbours and the outermost vocabularies."""
    middle = vocabularies[len(vocabularies) // 2]
    best = best_shape(recipe, pinned, machine, middle, seconds, law)
    configs = [best]
    for vocabulary in {min(vocabularies), max(vocabularies)} - {middle}:
        configs.append(best_shape(recipe, pinned, machine, vocabulary, seconds, law))
    widths = [width for width, _ in LADDER]
    place = min(range(len(widths)), key=lambda index: abs(widths[index] - best.width))
    for index in (place - 1, place + 1):
        if 0 <= index < len(LADDER):
            width, layers = LADDER[index]
            configs.append(shape(recipe.model.pattern, pinned, width=width, num_layers=layers, vocabulary_size=middle, context=recipe.train.context))
    context = recipe.train.context
    return [point_of(config, seconds * tokens_per_second(config, context, machine) * usual_bytes_per_token(config.vocabulary_size)) for config in configs]


def grid(recipe: Recipe, machine: Machine, seconds: float, vocabularies: Sequence[int], scored_bytes: float, most_bytes: float) -> list[tuple[Rung, Cost]]:
    """Every run that could be in a ladder: widths x tokens in powers of two x vocabularies x kinds of feed-forward."""
    kinds: tuple[Literal["dense", "experts"], ...] = ("dense", "experts") if recipe.model.pattern.ffn == "experts" else ("dense",)
    found = []
    for width, num_layers in LADDER:
        for ffn in kinds:
            for vocabulary in vocabularies:
                tokens = smallest_tokens(recipe)
                while tokens * usual_bytes_per_token(vocabulary) <= most_bytes:
                    rung = Rung(width=width, num_layers=num_layers, ffn=ffn, vocabulary_size=vocabulary, tokens=tokens)
                    cost = cost_of(rung, recipe, machine, scored_bytes)
                    if cost.seconds > seconds * LARGEST_SHARE:
                        break
                    found.append((rung, cost))
                    tokens *= 2
    return found


def smallest_tokens(recipe: Recipe) -> int:
    """The least that a run of a ladder trains on. The batch grows with the tokens, so the number that gives FEWEST_STEPS is searched."""
    tokens = max(FEWEST_TOKENS, FEWEST_STEPS * recipe.train.context)
    while tokens / batch_rule(recipe, tokens) < FEWEST_STEPS:
        tokens = math.ceil(tokens * 1.1)
    return tokens


def design(
    recipe: Recipe, machine: Machine, seconds: float, goals: Sequence[Point], vocabularies: Sequence[int], *, scored_bytes: float, text_bytes: float,
    spent: float = 0.0,
) -> Design:  # fmt: skip
    """Choose runs for `seconds`. Raises RecipeError where the budget or the text is too small for a ladder; `spent` seconds of it are gone already."""
    chosen, used, covariance = _greedy(recipe, machine, seconds, goals, vocabularies, scored_bytes, text_bytes)
    if len(chosen) < LEAST_RUNS:
        refuse_little_text(recipe, vocabularies, text_bytes)
        enough = math.ceil((seconds + spent) / 10) * 10  # budgets as people write them
        while len(_greedy(recipe, machine, enough - spent, goals, vocabularies, scored_bytes, text_bytes)[0]) < LEAST_RUNS:
            enough += 10 * math.ceil(enough / 100)
        least = duration(enough).replace(" ", "")
        raise RecipeError(f"the budget is too small for a ladder of {LEAST_RUNS} runs on this machine. Give --budget {least} or more.")
    chosen = _tilted(chosen)
    chosen.sort(key=lambda item: item[0].tokens * flops_per_token(item[0].config(recipe), recipe.train.context))
    asked = slopes(goals[:1], np.array(Prior().mean))[0]
    return Design(tuple(rung for rung, _ in chosen), used, goals[0], float(math.sqrt(max(0.0, asked @ covariance @ asked))))


def refuse_little_text(recipe: Recipe, vocabularies: Sequence[int], text_bytes: float) -> None:
    """Raise RecipeError where there is less text than the smallest run reads."""
    needed = smallest_tokens(recipe) * usual_bytes_per_token(min(vocabularies))
    if text_bytes < needed:
        raise RecipeError(
            f"the corpus has {text_bytes / 1e6:.2g} MB of text and the smallest run of a ladder reads {needed / 1e6:.2g} MB. Give more text with "
            "--corpus; until then hagane plan goes by the general law."
        )


def _greedy(
    recipe: Recipe, machine: Machine, seconds: float, goals: Sequence[Point], vocabularies: Sequence[int], scored_bytes: float, text_bytes: float
) -> tuple[list[tuple[Rung, Cost]], float, np.ndarray]:
    """The chosen runs, their seconds, and the covariance of theta that they leave."""
    options = grid(recipe, machine, seconds, vocabularies, scored_bytes, text_bytes)
    prior = Prior()
    covariance = np.diag(np.array(prior.deviation) ** 2)
    chosen: list[tuple[Rung, Cost]] = []
    if not options:
        return chosen, 0.0, covariance
    theta = np.array(prior.mean)
    rows, goal_rows = slopes([rung_point(rung, recipe) for rung, _ in options], theta), slopes(goals, theta)
    far = [FORM_ERROR * max(0.0, math.log(goals[0].flops / rung_point(rung, recipe).flops)) for rung, _ in options]
    variances = np.array([NOISE**2 + error**2 for error in far])
    left, encoded, cheapest = seconds * RESERVE, set[int](), min(cost.seconds for _, cost in options)
    own_O = np.array([rung.ffn == recipe.model.pattern.ffn for rung, _ in options])
    taken: dict[int, int] = {}
    while True:
        gains_O = _gains(covariance, rows, goal_rows, variances)
        costs_O = np.array([cost.seconds + (0 if rung.vocabulary_size in encoded else text_bytes / ENCODE_BYTES_PER_SECOND) for rung, cost in options])
        room = left - max(0, LEAST_RUNS - 1 - len(chosen)) * SPARE * cheapest  # a dear run must not leave a ladder of few
        # the first run is of the recipe's own kind: a law for models with experts must have seen one
        allowed_O = (costs_O <= room) & (bool(chosen) | own_O)
        worth_O = np.where(allowed_O, gains_O / costs_O, 0.0)
        for index, count in taken.items():
            worth_O[index] *= 0.0 if count >= 2 else 1.0  # a third copy of a run tells of noise only
        best = int(worth_O.argmax())
        if worth_O[best] <= 0:
            return chosen, seconds * RESERVE - left, covariance
        rung, cost = options[best]
        chosen.append((rung.model_copy(update={"seed": taken.get(best, 0)}), cost))
        taken[best] = taken.get(best, 0) + 1
        left -= float(costs_O[best])
        encoded.add(rung.vocabulary_size)
        seen = covariance @ rows[best]
        covariance = covariance - np.outer(seen, seen) / (rows[best] @ seen + variances[best])


def _gains(covariance: np.ndarray, rows: np.ndarray, goal_rows: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """By how much each run would lower the mean variance at the targets."""
    seen_OP = rows @ covariance
    shared_OG = seen_OP @ goal_rows.T
    gains: np.ndarray = (shared_OG**2).mean(1) / ((seen_OP * rows).sum(1) + variances)
    return gains


def _tilted(chosen: list[tuple[Rung, Cost]]) -> list[tuple[Rung, Cost]]:
    """The dearest run that has a copy, else a middle one, is read with a tilted mixture: the mean over languages hardly feels it."""
    copies = [index for index, (rung, _) in enumerate(chosen) if rung.seed]
    order = sorted(range(len(chosen)), key=lambda index: chosen[index][1].seconds)
    place = max(copies, key=lambda index: chosen[index][1].seconds) if copies else order[len(order) // 2]
    rung, cost = chosen[place]
    return [*chosen[:place], (rung.model_copy(update={"tilt": True}), cost), *chosen[place + 1 :]]
