"""Intervals for what is reported: Wilson's for shares, the bootstrap for ratios of sums."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


def wilson(correct: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927): (low, high) in [0, 1]; all of it where nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    # exactly 0 and 1 at the ends, which rounding would miss
    return (0.0 if correct == 0 else max(0.0, middle - half)), (1.0 if correct == total else min(1.0, middle + half))


def bootstrap_ratio(
    numerator: Sequence[float], denominator: Sequence[float], seed: int = 0, replicates: int = 2000, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile interval (Efron 1979) of Σ numerator / Σ denominator over units drawn with replacement (documents, sentences).

    With a single unit there is no spread to measure: both ends are the ratio itself.
    """
    low, high = np.quantile(_ratios(numerator, denominator, seed, replicates), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_mean_ratio(
    groups: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int = 0, replicates: int = 2000, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The same for the mean of the ratios of several groups (languages), each (numerator, denominator), whose units are drawn apart."""
    ratios_R = np.mean([_ratios(*group, seed + number, replicates) for number, group in enumerate(groups)], axis=0)
    low, high = np.quantile(ratios_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _ratios(numerator: Sequence[float], denominator: Sequence[float], seed: int, replicates: int) -> NDArray[np.float64]:
    """Σ numerator / Σ denominator of every replicate."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if len(top) != len(bottom) or not len(top):
        raise ValueError(f"{len(top)} numerators and {len(bottom)} denominators: there must be as many, and at least one")
    generator = np.random.default_rng(seed)
    # counts of a multinomial are draws with replacement; in parts, so that memory stays small with many documents
    ratios = []
    for start in range(0, replicates, 200):
        count_RU = generator.multinomial(len(top), np.full(len(top), 1 / len(top)), size=min(200, replicates - start))
        ratios.append((count_RU @ top) / (count_RU @ bottom))
    joined: NDArray[np.float64] = np.concatenate(ratios)
    return joined
