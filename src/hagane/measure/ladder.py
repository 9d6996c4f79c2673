"""The ladder: train small models on the user's own corpus within a budget, fit its loss law, keep it where the plan finds it.

Everything lies in a run folder: `corpus` and `tokenizer` as in any run, then `ladder/design.json` (the runs, frozen), `ladder/runs/NAME/rung.json` (one
per finished run) and `ladder/law.json`. Killed at any moment it goes on with the same command: what is finished is not repeated, and the clock
counts active time.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from hagane.corpus.inputs import fingerprint, list_inputs
from hagane.corpus.sample import estimate
from hagane.errors import RecipeError
from hagane.evaluate.bits_per_byte import read_held_out
from hagane.folder import Run, write_atomic
from hagane.measure.rung import Ground, RungFacts, all_finished, finished, train_rung
from hagane.plan.fit import FEWEST_RUNS, constants_of, fit, fit_languages
from hagane.plan.kept import corpus_inputs, corpus_paths, keep_law
from hagane.plan.ladder import TARGET_RATIO, Rung, cost_of, design, smallest_tokens, targets
from hagane.plan.law import LanguageLaw, Law, Range, TextSize
from hagane.plan.sketch import training_seconds
from hagane.plan.stage import known_from
from hagane.recipe.types import Frozen, duration
from hagane.run import walk
from hagane.train.callbacks import ProgressDisplay

SCORED_BYTES = 600_000  # of held-out text in all: scoring stays a small part of a run of seconds
FIT_SECONDS = 5.0


class FrozenDesign(Frozen):
    """The runs that a ladder is made of, and what they were chosen for."""

    key: str
    rungs: tuple[Rung, ...]
    expected_seconds: float
    expected_deviation: float


def climb(run: Run, target_seconds: float | None = None) -> Law:
    """Do the whole ladder of an open run folder, or go on with it. `target_seconds`: the budget the law is meant for, 8 times the ladder's otherwise.

    Raises RecipeError where the budget is not one of time, or too small, or the text is; DataError for the corpus.
    """
    if run.remaining() is None:
        raise RecipeError(f"a ladder is bounded by time, and a budget of {run.recipe.budget or 'nothing'} is not. Give --budget, for example 30min.")
    walk(run, until="tokenizer", report=False)
    ground = ground_of(run)
    left = run.remaining(FIT_SECONDS)
    assert left is not None
    plan = _design(ground, left, target_seconds or TARGET_RATIO * (run.clock.spent() + left))
    run.say(
        f"ladder     {len(plan.rungs)} runs in about {duration(plan.expected_seconds)}; expected to tell the loss at the target within "
        f"{100 * plan.expected_deviation:.1f} % (one standard deviation)"
    )
    train_all(ground, plan.rungs)
    for folder in ground.folder.glob("text-*"):
        shutil.rmtree(folder)  # made again from the corpus in seconds, and large
    law = fit_law(ground, all_finished(ground))
    write_atomic(ground.folder / "law.json", law.model_dump_json())
    path = keep_law(law)
    run.say(f"ladder     {law.source}; kept in {path}")
    return law


def ground_of(run: Run) -> Ground:
    """What the runs of a ladder stand on. The held-out text is cut so that scoring it is quick."""
    known = known_from(run.facts("corpus"), run.facts("tokenizer"))
    most = min(run.recipe.evaluate.max_bytes, max(4000, SCORED_BYTES // max(1, len(known.held_out_bytes))))
    held_out = [part for part in read_held_out(run.path("corpus"), most, run.seed) if part.texts]
    if not held_out:
        raise RecipeError(f"{run.folder}: the corpus has no held-out text, so no loss can be measured. Give more documents with --corpus.")
    run.path("ladder").mkdir(exist_ok=True)
    return Ground(run, known, held_out)


def _design(ground: Ground, seconds: float, target_seconds: float) -> FrozenDesign:
    """The frozen design, or a new one where the ground or the budget is another."""
    run, path = ground.run, ground.folder / "design.json"
    key = f"{ground.key()} {run.recipe.budget}"
    kept = _read_design(path)
    if kept is not None and kept.key == key:
        return kept
    vocabularies = sorted(ground.known.bytes_per_token)
    text, scored = sum(ground.known.shard_bytes.values()), float(scored_bytes(ground))
    goals = targets(run.recipe, run.pinned_size, run.machine, max(1.0, training_seconds(target_seconds)), vocabularies, run.law)
    chosen = design(run.recipe, run.machine, seconds, goals, vocabularies, scored_bytes=scored, text_bytes=float(text), spent=run.clock.spent())
    plan = FrozenDesign(key=key, rungs=chosen.rungs, expected_seconds=chosen.seconds, expected_deviation=chosen.deviation)
    write_atomic(path, plan.model_dump_json(indent=1))
    return plan


def _read_design(path: Path) -> FrozenDesign | None:
    """None where it is missing or damaged: it is made anew, and runs that are finished count all the same."""
    try:
        return FrozenDesign.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def scored_bytes(ground: Ground) -> int:
    """Held-out text that every run is scored on."""
    return sum(len(text.encode()) for part in ground.held_out for text in part.texts)


def train_all(ground: Ground, rungs: Sequence[Rung]) -> None:
    """Train what is not finished, the smallest first. What would not end in time is halved, or left out and said."""
    run, scored = ground.run, float(scored_bytes(ground))
    pace: list[float] = []  # seconds taken over seconds expected
    for number, rung in enumerate(rungs, 1):
        done = finished(ground, rung)
        if done is not None:
            run.say(f"ladder     {rung.name}: finished before")
            pace.append(done.seconds / cost_of(done.rung, run.recipe, run.machine, scored).seconds)
            continue
        left = run.remaining(FIT_SECONDS)
        slower = statistics.median(pace[-5:]) if pace else 1.0
        fitting = _that_fits(ground, rung, scored, slower, left)
        if fitting is None:
            run.say(f"ladder     {rung.name}: left out, {duration(max(0.0, left or 0.0))} are not enough for it")
            continue
        if finished(ground, fitting) is not None:
            continue
        expected = cost_of(fitting, run.recipe, run.machine, scored)
        later = sum(cost_of(other, run.recipe, run.machine, scored).seconds for other in rungs[number - 1 :]) * slower
        run.say(f"ladder     {number} of {len(rungs)}: {fitting.name}, about {duration(expected.seconds * slower)}; about {duration(later)} to go")
        facts = train_rung(ground, fitting, compiled=expected.compiled, callbacks=[ProgressDisplay(f"{number}/{len(rungs)}")])
        pace.append(facts.seconds / expected.seconds)


def _that_fits(ground: Ground, rung: Rung, scored: float, slower: float, left: float | None) -> Rung | None:
    """The run, or with fewer tokens what ends in the time that is left; None where nothing does."""
    recipe = ground.run.recipe
    while left is not None and cost_of(rung, recipe, ground.run.machine, scored).seconds * slower > left:
        rung = rung.model_copy(update={"tokens": rung.tokens // 2})
        if rung.tokens < smallest_tokens(recipe):
            return None
    return rung


def fit_law(ground: Ground, facts: Sequence[RungFacts]) -> Law:
    """The law of the corpus from its finished runs. Raises RecipeError where there are too few."""
    run, recipe = ground.run, ground.run.recipe
    if len(facts) < FEWEST_RUNS:
        raise RecipeError(
            f"only {len(facts)} runs of the ladder were finished in {recipe.budget}; a law needs {FEWEST_RUNS}. Run it again with a larger "
            "--budget, when nothing else runs on this machine."
        )
    runs = [item.run() for item in facts]
    fitted = fit(runs, seed=run.seed)
    own, languages = fit_languages(runs, fitted, seed=run.seed)
    points = [one.point for one in runs]
    largest = max(facts, key=lambda item: item.run().point.flops)
    read = [point.bytes for point in points]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return Law(
        corpus=fingerprint(corpus_inputs(recipe.corpus)), paths=corpus_paths(recipe), fitted=today, constants=fitted.constants,
        draws=tuple(constants_of(theta) for theta in fitted.draws), noise=fitted.noise, own=own,
        languages={
            name: LanguageLaw(weights=one.weights, draws=one.draws, noise=one.noise, share=one.share, text_error=largest.text_error[name])
            for name, one in languages.items()
        },
        text=_whole_text(ground),
        fit=Range(
            runs=len(runs), flops=max(point.flops for point in points), bytes=(min(read), max(read)),
            parameters=(min(point.active for point in points), max(point.active for point in points)),
            vocabularies=tuple(sorted({int(point.vocabulary) for point in points})),
        ),
        context=recipe.train.context, optimizer=recipe.train.optimizer,
        source=f"fitted on {len(runs)} runs of this corpus, of up to {max(read) / 1e6:.1f} MB of text, {today}",
    )  # fmt: skip


def _whole_text(ground: Ground) -> tuple[TextSize, ...]:
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
