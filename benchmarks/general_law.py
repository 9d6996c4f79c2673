"""The law that a plan goes by where there was no ladder: fitted to small runs and to the published law of large models, and held against both.

    hagane ladder nordic --corpus DIR --budget 30min --out LADDER    # of as many languages as there are
    python benchmarks/settings.py --full --corpus DIR --out SETTINGS --seconds 200 --seeds 0 --arm ...    # shapes at equal time
    python benchmarks/general_law.py LADDER... --settings SETTINGS...

Prints the constants that belong into `hagane.plan.law.GENERAL`, what a token stands for in these languages at each vocabulary, and how far every run
is from the fit and from the law as it is in the code. Hoffmann et al. 2022 (approach 3) stands for models of 1e19 to 1e23 FLOPs: it is of English
web text cut into tokens of 4.5 bytes, and English is as the mean of the languages here in tokens a byte. The vocabulary's own effect, kappa, is held
at none: left free it is -0.018, and what it would choose was not run (docs/notebook.md, "The law again"). Languages: how far the general law,
told only how many bytes a token stands for in each, is from what was measured of it; the mean over languages of every run is taken out first, for that
is the law's own error. Every --settings folder is of a text of its own (give one of every length of run), and a text may be easier than that of the
ladders: its runs may all be lower or higher by one factor, which is printed, so that shapes are told apart by runs on the same text.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import finish
from hagane.measure.rung import RungFacts
from hagane.plan.fit import Prior, Run, fit
from hagane.plan.law import GENERAL, Constants, Point, usual_bytes_per_token

PUBLISHED_FLOPS = (1e19, 1e20, 1e21, 1e22, 1e23)
PUBLISHED_RATIOS = (10, 20, 60)  # tokens a parameter
ROUNDS = 20  # of fitting and of setting the factors of texts, which converge
PUBLISHED_BYTES_PER_TOKEN, PUBLISHED_VOCABULARY = 4.5, 32768.0


class Ladder(NamedTuple):
    """Finished runs of a ladder, and bytes per token of its tokenizer by vocabulary and language."""

    facts: list[RungFacts]
    bytes_per_token: dict[int, dict[str, float]]


def read_ladder(folder: Path) -> Ladder:
    paths = sorted(folder.glob("ladder/runs/*/rung.json"))
    if not paths:
        raise SystemExit(f"{folder} has no finished runs of a ladder. Give the folder of hagane ladder --out.")
    tokenizer = json.loads((folder / "tokenizer" / "facts.json").read_text(encoding="utf-8"))["facts"]["bytes_per_token"]
    facts = [RungFacts.model_validate_json(path.read_text(encoding="utf-8")) for path in paths]
    return Ladder(facts, {int(size): values for size, values in tokenizer.items()})


def read_settings(folder: Path) -> dict[str, Run]:
    """Runs of `settings.py` by name: other shapes at equal time, longer than those of a ladder, on another part of the text."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "point" in record:
            found[f"{record['arm']}, seed {record['seed']},"] = Run(Point(**record["point"]), record["bits_per_byte"])
    if not found:
        raise SystemExit(f"{folder} has no finished runs. Give the --out of settings.py.")
    return found


def published() -> list[Run]:
    """Hoffmann et al. 2022: L = 1.69 + 406.4 / N^0.34 + 410.7 / D^0.28 nats a token, as bits per byte of dense models."""
    runs = []
    for flops in PUBLISHED_FLOPS:
        for ratio in PUBLISHED_RATIOS:
            parameters = math.sqrt(flops / 6 / ratio)
            nats = 1.69 + 406.4 / parameters**0.34 + 410.7 / (ratio * parameters) ** 0.28
            point = Point(parameters, parameters, ratio * parameters * PUBLISHED_BYTES_PER_TOKEN, PUBLISHED_VOCABULARY)
            runs.append(Run(point, nats / math.log(2) / PUBLISHED_BYTES_PER_TOKEN))
    return runs


def print_bytes_per_token(ladders: list[Ladder]) -> None:
    measured: dict[int, list[float]] = {}
    for ladder in ladders:
        for size, values in ladder.bytes_per_token.items():
            measured.setdefault(size, []).append(statistics.harmonic_mean([*values.values()]))
    means = {size: statistics.fmean(values) for size, values in sorted(measured.items())}
    slope, middle = np.polyfit([math.log2(size / 4096) for size in means], [*means.values()], 1)
    for size, value in means.items():
        print(f"  a token of {size:>6,}: {value:.3f} bytes, {usual_bytes_per_token(size):.3f} in the code")
    print(f"  {middle:.3f} bytes at 4,096 and {slope:.3f} more a doubling")


def language_errors(ladders: list[Ladder]) -> list[float]:
    """Log of measured over told, by run and language, less its mean over the languages of the run."""
    errors = []
    for ladder in ladders:
        for facts in ladder.facts:
            told = ladder.bytes_per_token[facts.rung.vocabulary_size]
            logs = [math.log(value * told[language]) for language, value in facts.bits_per_byte.items() if language in told]
            errors += [log - statistics.fmean(logs) for log in logs]
    return errors


def errors_of(constants: Constants, runs: list[Run]) -> list[float]:
    return [math.log(constants.loss(run.point) / run.bits_per_byte) for run in runs]


def fit_with_factors(texts: list[dict[str, Run]], ladder: list[Run]) -> tuple[Constants, list[float]]:
    """The constants, and how many times as hard as that of the ladders every text is: what its runs have in common beside the law.

    A factor is as uncertain beforehand as the distance of a run from the law, so one of a few runs is drawn towards 1: free ones would take away what runs
    of other lengths say of the text's exponent.
    """
    prior = Prior()
    held = replace(prior, deviation=(*prior.deviation[:-1], 1e-4))  # kappa
    factors = [1.0] * len(texts)
    for _ in range(ROUNDS):
        scaled = [replace(run, bits_per_byte=run.bits_per_byte / factor) for runs, factor in zip(texts, factors, strict=True) for run in runs.values()]
        constants = fit([*ladder, *scaled, *published()], draws=0, prior=held).constants
        factors = [math.exp(-statistics.median(errors_of(constants, [*runs.values()])) * len(runs) / (len(runs) + 1)) for runs in texts]
    return constants, factors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder", type=Path, nargs="+", help="run folder of hagane ladder")
    parser.add_argument("--settings", type=Path, nargs="*", default=[], help="--out of settings.py")
    options = parser.parse_args()
    ladders = [read_ladder(folder) for folder in options.ladder]
    named = {f"{one.rung.name} of {folder.name}": one.run() for folder, ladder in zip(options.ladder, ladders, strict=True) for one in ladder.facts}
    texts = [read_settings(folder) for folder in options.settings]
    constants, factors = fit_with_factors(texts, [*named.values()])
    for folder, runs, factor in zip(options.settings, texts, factors, strict=True):
        print(f"text of {folder.name}: {factor:.3f} times as hard as that of the ladders")
        named |= {f"{name} of {folder.name}": replace(run, bits_per_byte=run.bits_per_byte / factor) for name, run in runs.items()}
    small, large = [*named.values()], published()
    print("bytes that a token stands for, mean over languages")
    print_bytes_per_token(ladders)
    print(f"\nfitted: {constants!r}\nin the code: {GENERAL.constants!r}\n")
    names = [*named] + [f"Hoffmann, {run.point.flops:.0e} FLOPs, {run.point.active:.0e} parameters" for run in large]
    of_fit, of_code = errors_of(constants, [*small, *large]), errors_of(GENERAL.constants, [*small, *large])
    print(f"{'run':<46}{'bits per byte':>14}{'fit':>8}{'code':>8}")
    for name, run, one, other in zip(names, [*small, *large], of_fit, of_code, strict=True):
        print(f"{name:<46}{run.bits_per_byte:>14.3f}{one:>+8.1%}{other:>+8.1%}")
    languages = language_errors(ladders)
    figures = {
        "largest error of a small run": max(abs(error) for error in of_code[: len(small)]),
        "largest error at the published law": max(abs(error) for error in of_code[len(small) :]),
        "deviation of languages": statistics.pstdev(languages),
        "code against this fit": max(abs(one - other) for one, other in zip(of_fit, of_code, strict=True)),
    }
    goals = {"largest error of a small run": "<= 0.10", "largest error at the published law": "<= 0.05", "deviation of languages": "<= 0.15"}
    finish("general_law", f"{len(small)} runs", figures, {}, goals)


if __name__ == "__main__":
    main()
