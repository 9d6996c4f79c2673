"""How the other contestants are tuned: every try is a run of the whole time, and what is minimised is the figure they are judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Settings = dict[str, Any]
Measure = Callable[[Settings], float]  # bits per byte of a run at seed 0; a second question about the same settings costs nothing

LEARNING_RATES = (1e-3, 2e-3, 4e-3, 8e-3)
FIRST_SHAPE: Settings = {"width": 256, "layers": 4, "rows": 16, "vocabulary": 8192}
OTHER_SHAPES: tuple[Settings, ...] = ({"width": 192, "layers": 3}, {"width": 256, "layers": 4}, {"width": 256, "layers": 6})
DEPTHS, BATCHES = (3, 4, 5), (4096, 8192)


def tune_learning_rate(measure: Measure, shape: Settings, rates: Sequence[float] = LEARNING_RATES) -> Settings:
    """The best of `rates`; where that is at an end of the range, the range goes on by factors of two, twice at most."""
    tried = {rate: measure({**shape, "learning_rate": rate}) for rate in rates}
    best = min(tried, key=lambda rate: tried[rate])
    for _ in range(2):
        if len(tried) == 1 or min(tried) < best < max(tried):
            break
        beyond = best * 2 if best == max(tried) else best / 2
        tried[beyond] = measure({**shape, "learning_rate": beyond})
        best = min(tried, key=lambda rate: tried[rate])
    return {**shape, "learning_rate": best}


def tune_transformers(measure: Measure, own_vocabulary: int, start: Settings | None) -> Settings:
    """Learning rate, then shape, vocabulary (`own_vocabulary`: what hagane chose) and batch, each kept if it helps, then the rate again.

    With `start`, the best settings at a shorter time, its vocabulary and batch are kept.
    """
    first = {name: value for name, value in (start or FIRST_SHAPE).items() if name != "learning_rate"}
    rated = best = tune_learning_rate(measure, first)
    changes: list[Settings] = [dict(shape) for shape in OTHER_SHAPES]
    if start is None:
        changes += [{"vocabulary": own_vocabulary}, {"rows": first["rows"] // 2}]
    for change in changes:
        changed = {**best, **change}
        if changed != best and measure(changed) < measure(best):
            best = changed
    if best != rated:
        rate = best["learning_rate"]
        best = min([best, {**best, "learning_rate": rate * 2}, {**best, "learning_rate": rate / 2}], key=measure)
    return best


def tune_nanochat(measure: Measure, start: Sequence[Settings] = ()) -> list[Settings]:
    """All depths and batch sizes, best first; with `start`, just those."""
    tried = list(start) or [{"depth": depth, "batch": batch} for batch in BATCHES for depth in DEPTHS]
    return sorted(tried, key=measure)
