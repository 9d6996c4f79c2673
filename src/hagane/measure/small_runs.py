"""Many small runs within a budget of time, one after another: what the ladder and the search for a mixture share.

What is finished is kept, whatever happens after it: the same command goes on, and the clock counts active time.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from hagane.corpus.inputs import list_inputs
from hagane.corpus.sample import estimate
from hagane.errors import RecipeError
from hagane.evaluate.bits_per_byte import read_held_out
from hagane.folder import Run
from hagane.measure.rung import Ground, finished, train_rung
from hagane.plan.ladder import Rung, cost_of, smallest_tokens
from hagane.plan.law import TextSize
from hagane.plan.sketch import budget_seconds
from hagane.plan.stage import known_from
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Budget, Machine, duration
from hagane.train.callbacks import ProgressDisplay

SCORED_BYTES = 600_000  # of held-out text in all: scoring stays a small part of a run of seconds
FIT_SECONDS = 5.0


def refuse_unbounded(recipe: Recipe, machine: Machine, command: str) -> None:
    """Raise RecipeError where the budget is not one of time, energy or money."""
    budget = Budget.parse(recipe.budget) if recipe.budget else None
    if budget is None or budget_seconds(budget, machine, recipe.execution.price_per_hour) is None:
        raise RecipeError(f"hagane {command} is bounded by time, and a budget of {recipe.budget or 'nothing'} is not. Give --budget, for example 30min.")


def ground_of(run: Run, name: str = "ladder") -> Ground:
    """What small runs stand on, once corpus and tokenizer are there. The held-out text is cut so that scoring it is quick."""
    known = known_from(run.facts("corpus"), run.facts("tokenizer"))
    most = min(run.recipe.evaluate.max_bytes, max(4000, SCORED_BYTES // max(1, len(known.held_out_bytes))))
    held_out = [part for part in read_held_out(run.path("corpus"), most, run.seed) if part.texts]
    if not held_out:
        raise RecipeError(f"{run.folder}: the corpus has no held-out text, so no loss can be measured. Give more documents with --corpus.")
    run.path(name).mkdir(exist_ok=True)
    return Ground(run, known, held_out, name)


def design_key(ground: Ground, target_seconds: float | None, kept: str | None) -> str:
    """What a design depends on. Where nothing but the target of the `kept` key is another, or it has none (it is of an older version), a new account of the
    budget begins: that design was paid for."""
    before = f"{ground.key()} {ground.run.recipe.budget}"
    key = f"{before} {target_seconds}"
    if kept is not None and kept != key and before in (kept, kept.rpartition(" ")[0]):
        ground.run.clock.restart()
    return key


def scored_bytes(ground: Ground) -> int:
    """Held-out text that every run is scored on."""
    return sum(len(text.encode()) for part in ground.held_out for text in part.texts)


def train_all(ground: Ground, rungs: Sequence[Rung], *, halve: bool = True, reserve: float = FIT_SECONDS) -> None:
    """Train what is not finished, in this order. What would not end `reserve` seconds before the budget does is halved, or left out and said."""
    run, scored = ground.run, float(scored_bytes(ground))
    pace: list[float] = []  # seconds taken over seconds expected
    for number, rung in enumerate(rungs, 1):
        done = finished(ground, rung)
        if done is not None:
            run.say(f"{ground.name:<10} {rung.name}: finished before")
            pace.append(done.seconds / cost_of(done.rung, run.recipe, run.machine, scored).seconds)
            continue
        left = run.remaining(reserve)
        slower = statistics.median(pace[-5:]) if pace else 1.0
        fitting = _that_fits(ground, rung, scored, slower, left, halve)
        if fitting is None:
            run.say(f"{ground.name:<10} {rung.name}: left out, {duration(max(0.0, left or 0.0))} are not enough for it")
            continue
        if finished(ground, fitting) is not None:
            continue
        expected = cost_of(fitting, run.recipe, run.machine, scored)
        later = sum(cost_of(other, run.recipe, run.machine, scored).seconds for other in rungs[number - 1 :]) * slower
        run.say(f"{ground.name:<10} {number} of {len(rungs)}: {fitting.name}, about {duration(expected.seconds * slower)}; about {duration(later)} to go")
        facts = train_rung(ground, fitting, compiled=expected.compiled, callbacks=[ProgressDisplay(f"{number}/{len(rungs)}")])
        pace.append(facts.seconds / expected.seconds)


def _that_fits(ground: Ground, rung: Rung, scored: float, slower: float, left: float | None, halve: bool) -> Rung | None:
    """The run, or with fewer tokens what ends in the time that is left; None where nothing does."""
    recipe = ground.run.recipe
    while left is not None and cost_of(rung, recipe, ground.run.machine, scored).seconds * slower > left:
        rung = rung.model_copy(update={"tokens": rung.tokens // 2})
        if not halve or rung.tokens < smallest_tokens(recipe):
            return None
    return rung


def whole_text(ground: Ground) -> tuple[TextSize, ...]:
    """Sizes of the whole corpus by shard: the run folder holds a sample of it."""
    sizes: dict[tuple[str, str], float] = {}
    inputs = [item for item in list_inputs(ground.run.recipe.corpus.sources, ("und",)).inputs if item.kind != "problems"]
    for item, languages in zip(inputs, estimate(inputs), strict=True):
        for language, size in languages.items():
            sizes[item.source, language] = sizes.get((item.source, language), 0.0) + size
    for name, kept in ground.known.shard_bytes.items():
        place = ground.known.shard_source[name], ground.known.shard_language[name]
        sizes[place] = max(sizes.get(place, 0.0), float(kept))
    return tuple(TextSize(source=source, language=language, bytes=size) for (source, language), size in sorted(sizes.items()))
