"""Bits per byte by language and overall, and the ratio of one contestant's to the best of the others, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Bits = dict[str, list[float]]  # language -> bits of its documents
REPLICATES, CONFIDENCE = 1000, 0.95
OVERALL, BY_BYTES = "overall", "all bytes together"


@dataclass(frozen=True)
class Ratio:
    """Ours over the best of the others (`best` names it), with a bootstrap interval over documents and seeds."""

    best: str
    ours: float
    theirs: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.ours / self.theirs


def mean_bits(bits: Bits, num_bytes: Mapping[str, Sequence[int]]) -> float:
    """Bits per byte, mean over languages; infinite for a model that diverged."""
    mean = sum(sum(values) / sum(num_bytes[language]) for language, values in bits.items()) / len(bits)
    return mean if math.isfinite(mean) else math.inf


def figures(seeds: Sequence[Bits], num_bytes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Overall, all bytes together, and every language; mean over seeds."""
    arrays = {language: np.array([bits[language] for bits in seeds]) for language in num_bytes}
    return _figures({language: (array.sum(1), np.full(len(seeds), sum(num_bytes[language]))) for language, array in arrays.items()})


def _figures(sums: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> dict[str, float]:
    """From (bits per seed, bytes per seed) of every language."""
    rates = {language: float((bits_S / bytes_S).mean()) for language, (bits_S, bytes_S) in sums.items()}
    total = sum(bits_S for bits_S, _ in sums.values()) / sum(bytes_S for _, bytes_S in sums.values())
    return {OVERALL: float(np.mean(list(rates.values()))), BY_BYTES: float(np.mean(total)), **rates}


def compare(ours: Sequence[Bits], others: Mapping[str, Sequence[Bits]], num_bytes: Mapping[str, Sequence[int]]) -> dict[str, Ratio]:
    """Every figure of ours over that of the contestant which is best at it."""
    own = figures(ours, num_bytes)
    theirs = {name: figures(seeds, num_bytes) for name, seeds in others.items()}
    draws = draws_of({"": ours, **others}, num_bytes)
    ratios = {}
    for key, value in own.items():
        best = min(theirs, key=lambda name: theirs[name][key])
        drawn = np.array([draw[""][key] / draw[best][key] for draw in draws])
        low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        ratios[key] = Ratio(best, value, theirs[best][key], float(low), float(high))
    return ratios


@dataclass(frozen=True)
class Paired:
    """A mean over seeds and its interval; both bounds are NaN of a single seed."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.3f} (one seed)" if math.isnan(self.low) else f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def paired(values: Sequence[float]) -> Paired:
    """Mean of what is compared seed by seed (differences, ratios), with the interval of Student's t. A Ratio is of documents, which have bits each."""
    count, mean = len(values), float(np.mean(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Paired(mean, mean - half, mean + half)


def draws_of(contestants: Mapping[str, Sequence[Bits]], num_bytes: Mapping[str, Sequence[int]]) -> list[dict[str, dict[str, float]]]:
    """Figures of all contestants on resampled documents (the same ones for all of them) and resampled seeds: the same ones, too, of all with as many, for a
    seed is an order of the text and a draw of weights that contestants have in common; each its own of the others."""
    generator = np.random.default_rng(0)
    arrays = {name: {language: np.array([bits[language] for bits in seeds]) for language in num_bytes} for name, seeds in contestants.items()}
    sizes = {language: np.array(values, dtype=np.float64) for language, values in num_bytes.items()}
    draws = []
    for _ in range(REPLICATES):
        documents = {language: generator.integers(0, len(size), len(size)) for language, size in sizes.items()}
        draw, drawn = {}, {}
        for name, bits in arrays.items():
            count = len(contestants[name])
            seeds = drawn.setdefault(count, generator.integers(0, count, count))
            draw[name] = _figures(
                {language: (bits[language][seeds][:, chosen].sum(1), np.full(count, sizes[language][chosen].sum())) for language, chosen in documents.items()}
            )
        draws.append(draw)
    return draws
