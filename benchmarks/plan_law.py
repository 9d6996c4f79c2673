"""Does the loss law of a ladder tell what larger models reach? Models of 8 times the compute of any run that was fitted, over several corpora.

    python benchmarks/plan_law.py --corpus DIR --corpus DIR --corpus DIR --full --keep KEEP    # some two hours on two quiet cores
    python benchmarks/plan_law.py --corpus DIR ... --full --keep KEEP --minutes 20             # the next 20 minutes of it; again until it says done
    python benchmarks/plan_law.py --quick                                                      # the embedded problems, runs of seconds

Every --corpus is one corpus (several folders with commas between them). Trainings are kept in KEEP and not repeated. A ladder's runs are the design
of `hagane ladder` for `--ladder` minutes; four targets of each corpus have 8 times the FLOPs of the dearest of them: other widths, vocabularies, dense and
with experts. The figures: the error as a share of the drop from the largest fitted run's loss to the target's, the same for a line through the two
largest runs (log loss over log FLOPs), the share of the 80 % intervals that hold, and their width. All runs of a corpus are scored on the same held-out
text. The figures of --quick say only that it works: its runs are shorter than any of a real ladder.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common import finish
from hagane.measure.ladder import fit_law, ground_of, scored_bytes
from hagane.measure.machine import profile
from hagane.measure.rung import Ground, RungFacts, finished, train_rung
from hagane.model.count import flops_per_token
from hagane.plan.ladder import Rung, cost_of, design, targets
from hagane.recipe.load import load_recipe, validate
from hagane.recipe.schema import Recipe
from hagane.run import create, walk

RATIO = 8.0
SHAPES = ((128, 4), (192, 3), (256, 5))  # of the targets
SAMPLE_BYTES = 40_000_000  # of a corpus: the targets read it about once


class Prediction(NamedTuple):
    """A target: bits per byte measured, predicted with interval, and by the line; `drop` is from the largest fitted run to it."""

    name: str
    measured: float
    predicted: float
    low: float
    high: float
    drop: float
    line: float


def training_flops(rung: Rung, recipe: Recipe) -> float:
    return 3 * rung.tokens * flops_per_token(rung.config(recipe), recipe.train.context)


def recipe_of(corpus: str, ladder_minutes: float, quick: bool) -> Recipe:
    """The recipe `nordic` on this text alone; generated problems would be the easier part of every language."""
    recipe, _ = load_recipe("nordic")
    values = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    paths = ["embedded:problems"] if quick else [str(Path(part).resolve()) for part in corpus.split(",")]
    values |= {"name": "law", "budget": f"{ladder_minutes}min", "corpus": {"sources": [{"name": "corpus", "path": paths}], "sample_bytes": SAMPLE_BYTES}}
    values["tokenizer"] = {"candidates": [300, 400] if quick else [1024, 2048, 4096, 8192]}
    if quick:
        values["corpus"] |= {"sample_bytes": 600_000, "held_out_share": 0.05}
        values |= {"train": {"context": 64}, "execution": {"compile": False, "threads": 1}, "evaluate": {"max_bytes": 4000}}
        values["tokenizer"]["sample_bytes"] = 200_000
        values["model"] = {"pattern": {"ffn": "experts", "num_experts": 4, "head_dim": 16}}
    return validate(values, "plan_law")


def quick_rungs() -> tuple[list[Rung], list[Rung]]:
    """Eight runs of a second, and two of 8 times the compute."""
    fitted = [Rung(width=w, num_layers=2, ffn="dense", vocabulary_size=400, tokens=t) for w in (16, 32) for t in (8_000, 16_000, 32_000)]
    fitted += [Rung(width=16, num_layers=2, ffn="dense", vocabulary_size=300, tokens=16_000)]
    fitted += [Rung(width=16, num_layers=2, ffn="experts", vocabulary_size=400, tokens=16_000)]
    aims = [Rung(width=w, num_layers=2, ffn=f, vocabulary_size=400, tokens=t) for w, f, t in ((32, "dense", 280_000), (48, "dense", 160_000))]
    return fitted, aims


def full_rungs(ground: Ground, minutes: float) -> tuple[list[Rung], list[Rung]]:
    """The ladder's own design for a target of 8 times its largest run, and targets around that compute."""
    recipe, machine = ground.run.recipe, ground.run.machine
    vocabularies, scored = sorted(ground.known.bytes_per_token), float(scored_bytes(ground))
    goals = targets(recipe, ground.run.pinned_size, machine, 8 * 60 * minutes, vocabularies, ground.run.law)
    text = float(sum(ground.known.shard_bytes.values()))
    fitted = list(design(recipe, machine, 60 * minutes, goals, vocabularies, scored_bytes=scored, text_bytes=text).rungs)
    return fitted, aims_of(recipe, max(training_flops(rung, recipe) for rung in fitted), vocabularies)


def aims_of(recipe: Recipe, largest: float, vocabularies: Sequence[int]) -> list[Rung]:
    """Four models of RATIO times `largest` FLOPs: three widths that are balanced at this size, one of them with experts and one with another vocabulary."""
    middle, other = vocabularies[len(vocabularies) // 2], vocabularies[0]
    aims = []
    kinds = ((SHAPES[0], "dense", middle), (SHAPES[1], "experts", middle), (SHAPES[1], "dense", other), (SHAPES[2], "dense", middle))
    for (width, layers), ffn, vocabulary in kinds:
        shape = Rung(width=width, num_layers=layers, ffn=ffn, vocabulary_size=vocabulary, tokens=1000)  # type: ignore[arg-type]
        tokens = math.ceil(RATIO * 1.01 * largest / training_flops(shape, recipe)) * 1000
        aims.append(shape.model_copy(update={"tokens": tokens}))
    return aims


def trained(ground: Ground, rungs: Sequence[Rung], ends: float) -> list[RungFacts] | None:
    """Facts of all runs; what is missing is trained until `ends`, then None."""
    found = []
    for number, rung in enumerate(rungs, 1):
        facts = finished(ground, rung)
        if facts is None:
            if time.monotonic() > ends:
                return None
            expected = cost_of(rung, ground.run.recipe, ground.run.machine, float(scored_bytes(ground)))
            print(f"{ground.run.folder.name}: {number} of {len(rungs)}: {rung.name}, about {expected.seconds:.0f}s", file=sys.stderr, flush=True)
            facts = train_rung(ground, rung, compiled=expected.compiled)
        found.append(facts)
    return found


def judged(ground: Ground, fitted: Sequence[RungFacts], aims: Sequence[RungFacts]) -> list[Prediction]:
    """Every target beside its prediction and the line's."""
    recipe, law = ground.run.recipe, fit_law(ground, fitted)
    constants = law.constants
    told = ", ".join(f"{name} {value:.3f}" for name, value in constants.model_dump().items())
    print(f"{ground.run.folder.name}: {len(fitted)} runs: {told}, noise {100 * law.noise:.2f} %")
    plain = sorted((item for item in fitted if not item.rung.tilt), key=lambda item: training_flops(item.rung, recipe))
    most = plain[-1]
    below = next(item for item in reversed(plain[:-1]) if training_flops(item.rung, recipe) < 0.8 * training_flops(most.rung, recipe))
    (x0, y0), (x1, y1) = ((math.log(training_flops(item.rung, recipe)), math.log(item.run().bits_per_byte)) for item in (below, most))
    found = []
    for item in aims:
        measured = item.run().bits_per_byte
        value, low, high = law.predict(item.run().point, same_text=True)
        line = math.exp(y1 + (y1 - y0) / (x1 - x0) * (math.log(training_flops(item.rung, recipe)) - x1))
        found.append(Prediction(f"{ground.run.folder.name} {item.rung.name}", measured, value, low, high, most.run().bits_per_byte - measured, line))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--corpus", action="append", default=[])
    parser.add_argument("--ladder", type=float, default=6.0, help="minutes of each ladder")
    parser.add_argument("--minutes", type=float, default=math.inf, help="train for so long and stop")
    parser.add_argument("--keep", type=Path, help="folder for trainings; a temporary one where not given")
    options = parser.parse_args()
    if options.full and not options.corpus:
        parser.error("--full needs at least one --corpus DIR")
    keep = options.keep or Path(tempfile.mkdtemp(prefix="hagane-law-"))
    ends, predictions, pending = time.monotonic() + 60 * options.minutes, [], False
    for index, corpus in enumerate(options.corpus if options.full else [""]):
        recipe = recipe_of(corpus, options.ladder, not options.full)
        machine = profile("cpu" if not options.full else "auto", recipe.execution.threads)
        opened = create(keep / f"corpus-{index}", recipe, "", machine, (), started=time.monotonic(), say=lambda text: print(text, file=sys.stderr))
        with opened as run:
            walk(run, until="tokenizer", report=False)
            ground = ground_of(run)
            fitted, aims = full_rungs(ground, options.ladder) if options.full else quick_rungs()
            facts, reached = trained(ground, fitted, ends), trained(ground, aims, ends)
            if facts is None or reached is None:
                pending = True
                continue
            predictions += judged(ground, facts, reached)
    if pending:
        print("not done yet: run the same command again")
        return
    report(predictions, options.full)


def report(predictions: Sequence[Prediction], full: bool) -> None:
    """The table and the line of JSON."""
    print(f"{'model':<50} {'measured':>9} {'predicted':>20} {'error/drop':>11} {'line':>7}")
    for item in predictions:
        interval = f"{item.predicted:.3f} ({item.low:.3f}-{item.high:.3f})"
        shares = f"{(item.predicted - item.measured) / item.drop:>+11.1%} {(item.line - item.measured) / item.drop:>+7.1%}"
        print(f"{item.name:<50} {item.measured:>9.3f} {interval:>20} {shares}")
    errors = [abs(item.predicted - item.measured) / abs(item.drop) for item in predictions]
    lines = [abs(item.line - item.measured) / abs(item.drop) for item in predictions]
    coverage = sum(item.low <= item.measured <= item.high for item in predictions) / len(predictions)
    figures = {
        "largest error over drop": max(errors), "median error over drop": statistics.median(errors), "median error of the line": statistics.median(lines),
        "error over the line's": statistics.median(errors) / max(1e-9, statistics.median(lines)), "predictions": float(len(predictions)),
        "coverage of 80 % intervals": coverage, "coverage, not too wide": coverage,
        "widest interval": max((item.high - item.low) / item.predicted for item in predictions),
    }  # fmt: skip
    goals = {
        "coverage of 80 % intervals": ">= 0.7", "coverage, not too wide": "<= 0.9", "largest error over drop": "<= 0.15", "error over the line's": "<= 1",
        "predictions": ">= 12", "widest interval": "<= 0.04",
    }  # fmt: skip
    finish("plan_law", "full" if full else "quick", figures, {"error over drop": statistics.pstdev(errors)}, goals if full else {})


if __name__ == "__main__":
    main()
