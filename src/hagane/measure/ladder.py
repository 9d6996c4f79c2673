"""The ladder: train small models on the user's own corpus within a budget, fit its loss law, keep it where the plan finds it.

Everything lies in a run folder: `corpus` and `tokenizer` as in any run, then `ladder/design.json` (the runs, frozen), `ladder/runs/NAME/rung.json` (one
per finished run) and `ladder/law.json`. Killed at any moment it goes on with the same command: what is finished is not repeated, and the clock
counts active time.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from hagane.corpus.inputs import fingerprint
from hagane.errors import RecipeError
from hagane.folder import Run, write_atomic
from hagane.measure.rung import Ground, RungFacts, all_finished
from hagane.measure.small_runs import FIT_SECONDS, design_key, ground_of, refuse_unbounded, scored_bytes, train_all, whole_text
from hagane.plan.fit import FEWEST_RUNS, constants_of, fit, fit_languages
from hagane.plan.kept import corpus_inputs, corpus_paths, keep_law, pattern_name
from hagane.plan.ladder import TARGET_RATIO, Rung, design, refuse_little_text, targets
from hagane.plan.languages import generated_sources
from hagane.plan.law import LanguageLaw, Law, Range
from hagane.plan.sketch import training_seconds
from hagane.recipe.types import Frozen, duration
from hagane.run import walk


class FrozenDesign(Frozen):
    """The runs that a ladder is made of, and what they were chosen for."""

    key: str
    rungs: tuple[Rung, ...]
    expected_seconds: float
    expected_deviation: float


def climb(run: Run, target_seconds: float | None = None) -> Law:
    """Do the whole ladder of an open run folder, or go on with it. `target_seconds`: the budget the law is meant for, 8 times the ladder's otherwise.

    Raises RecipeError where the budget is not one of time, or too small, or the text by people is; DataError for the corpus.
    """
    refuse_unbounded(run.recipe, run.machine, "ladder")
    sources, generated = {source.name for source in run.recipe.corpus.sources}, generated_sources(run.recipe)
    if sources and sources == generated:
        raise RecipeError(f"recipe {run.recipe.name} has no text but generated problems, and a law of those tells nothing of yours. Give text with --corpus.")
    walk(run, until="tokenizer", report=False)
    ground = ground_of(run)
    by_people = sum(size for name, size in ground.known.shard_bytes.items() if ground.known.shard_source[name] not in generated)
    refuse_little_text(run.recipe, list(ground.known.bytes_per_token), by_people)
    plan = _design(ground, target_seconds)
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


def _design(ground: Ground, target_seconds: float | None) -> FrozenDesign:
    """The frozen design, or a new one where the ground, the budget or what it is for is another."""
    run, path = ground.run, ground.folder / "design.json"
    kept = _read_design(path)
    key = design_key(ground, target_seconds, None if kept is None else kept.key)
    if kept is not None and kept.key == key:
        return kept
    left = run.remaining(FIT_SECONDS)
    assert left is not None
    target = training_seconds(target_seconds or TARGET_RATIO * (run.clock.spent() + left))
    vocabularies = sorted(ground.known.bytes_per_token)
    text, scored = sum(ground.known.shard_bytes.values()), float(scored_bytes(ground))
    goals = targets(run.recipe, run.pinned_size, run.machine, max(1.0, target), vocabularies, run.law)
    chosen = design(run.recipe, run.machine, left, goals, vocabularies, scored_bytes=scored, text_bytes=float(text), spent=run.clock.spent())
    plan = FrozenDesign(key=key, rungs=chosen.rungs, expected_seconds=chosen.seconds, expected_deviation=chosen.deviation)
    write_atomic(path, plan.model_dump_json(indent=1))
    return plan


def _read_design(path: Path) -> FrozenDesign | None:
    """None where it is missing or damaged: it is made anew, and runs that are finished count all the same."""
    try:
        return FrozenDesign.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


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
        text=whole_text(ground),
        fit=Range(
            runs=len(runs), flops=max(point.flops for point in points), bytes=(min(read), max(read)),
            parameters=(min(point.active for point in points), max(point.active for point in points)),
            vocabularies=tuple(sorted({int(point.vocabulary) for point in points})),
        ),
        context=recipe.train.context, optimizer=recipe.train.optimizer, pattern=pattern_name(recipe.model.pattern),
        source=f"fitted on {len(runs)} runs of this corpus, of up to {max(read) / 1e6:.1f} MB of text, {today}",
    )  # fmt: skip
