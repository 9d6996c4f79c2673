"""A finished model extended to eight times its context: how much does it find there, by how its positions are interpolated?

A model of grouped-query attention that finds every needle (`needles.py`) in rows of its context reads rows eight times as long: as it is, with each way of
interpolating, and each once more after a few steps on long rows, as the stage `extend` takes them. What it still finds in its own context is looked at too.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from claims.bench import Bench
from claims.needles import LAST_RATE, Stage, begun, config, fit, growing, look, place
from hagane.model.config import ModelConfig
from hagane.model.extend import extended
from hagane.train.stepper import torch_set_up
from peers.ratios import CONFIDENCE, paired
from small_models import keep

FACTOR = 8
METHODS = ("none", "linear", "ntk", "yarn")
LONG = {"full": (1, 40), "quick": (1, 2)}  # rows and steps at the long context


def base(mode: str) -> tuple[ModelConfig, list[Stage]]:
    """The model before, which sees all of its context, and how it is trained."""
    how = growing(mode)[:2]
    context = how[-1][1]
    return config("attention", context), how


def longer(mode: str) -> Stage:
    rows, steps = LONG[mode]
    return "dense", FACTOR * base(mode)[1][-1][1], rows, steps, LAST_RATE


def trained(bench: Bench, seed: int) -> dict[str, Any]:
    """Share of the needles found in the short and the long context: by method, before and after the steps on long rows."""
    (before, how), start = base(bench.mode), time.perf_counter()
    found: dict[str, Any] = {}
    with torch_set_up(threads=bench.threads, compiled=False):
        short = begun(before, seed)
        fit(short, bench.stream, how, np.random.default_rng([seed, 1]))
        lengths = before.context, FACTOR * before.context
        for method in METHODS:
            changed = before.model_copy(update={"context": lengths[1]}) if method == "none" else extended(before, FACTOR, method)
            long = begun(changed, seed)
            long.decoder.load_state_dict(short.decoder.state_dict())
            found[method] = {"before": [look(long.decoder, bench.stream, length, None)[0] for length in lengths]}
            long.decoder.train()
            fit(long, bench.stream, [longer(bench.mode)], np.random.default_rng([seed, 2]))
            found[method]["after"] = [look(long.decoder, bench.stream, length, None)[0] for length in lengths]
    return keep(path_of(bench, seed), {"found": found["yarn"]["after"][1], "seconds": time.perf_counter() - start, **found})


def path_of(bench: Bench, seed: int) -> Path:
    return place(bench, "extension", seed, [*base(bench.mode)[1], longer(bench.mode)])


def row(bench: Bench) -> None:
    before, _ = base(bench.mode)
    _, context, _, steps, _ = longer(bench.mode)
    places = [path_of(bench, seed) for seed in range(bench.seeds)]
    bench.at_once(trained, [(f"extension, seed {seed}", (seed,)) for seed, path in enumerate(places) if not path.exists()], figure="found")
    results = [json.loads(path.read_text()) for path in places]
    print(f"\nextension: needles found in rows of {before.context:,} and {context:,}, {bench.seeds} seeds; {steps} steps between")
    for method in METHODS:
        shown = []
        for when in ("before", "after"):
            short, long = zip(*(one[method][when] for one in results), strict=True)
            shown.append(f"{when} {statistics.fmean(short):.1%}, {statistics.fmean(long):.1%} ({min(long):.0%} to {max(long):.0%})")
            bench.note(f"needles at {FACTOR} x, {method}, {when}", statistics.fmean(long), max(long) - min(long))
        print(f"{method:<8}{'; '.join(shown)}")
    print(f"share found in rows of {context:,}, less that of YaRN, {CONFIDENCE:.0%} over paired seeds")
    for method in METHODS[:-1]:
        less = {when: paired([one[method][when][1] - one["yarn"][when][1] for one in results]) for when in ("before", "after")}
        print(f"{method:<8}{'; '.join(f'{when} {found}' for when, found in less.items())}")
        for when, found in less.items():
            bench.note(f"needles at {FACTOR} x, {method} less yarn, {when}", found.value, found.high - found.low)
