"""The mixture that a response surface says is best for the user's objective, and how sure its gain over UniMax is.

Languages are read between a quarter of and four times as often as by UniMax, where proxies were trained; never more often than the recipe's `max_repeats`
allows. The best of mean and weighted objectives is found by sequential quadratic programming from several starts; the worst language's by the same with
the bound made a variable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from hagane.plan.law import effective_bytes
from hagane.plan.surface import Surface

Array = NDArray[np.float64]

REACH = 4.0  # how much more or less than by UniMax a language may be read
STARTS = 4
INTERVAL, NORMAL = (2.5, 97.5), 1.96  # percent of the draws, and the standard deviations of a normal distribution that are as many


@dataclass(frozen=True)
class Objective:
    """What is made least: the worst language's bits per byte where `weights` is None, else the weighted mean (weights sum to 1)."""

    weights: Mapping[str, float] | None

    @staticmethod
    def of(kind: str, importance: Mapping[str, float], languages: Sequence[str]) -> Objective:
        """As the recipe names it."""
        if kind == "worst":
            return Objective(None)
        raw = {name: importance.get(name, 0.0) if kind == "weighted" else 1.0 for name in languages}
        total = sum(raw.values())
        assert total > 0
        return Objective({name: value / total for name, value in raw.items()})

    def value(self, bits: Mapping[str, float]) -> float:
        """Of measured bits per byte by language."""
        return max(bits.values()) if self.weights is None else sum(weight * bits[name] for name, weight in self.weights.items())

    def of_array(self, languages: Sequence[str], bits: Array) -> Array:
        """Of bits per byte [..., L]."""
        found: Array = bits.max(-1) if self.weights is None else bits @ np.array([self.weights.get(name, 0.0) for name in languages])
        return found


@dataclass(frozen=True)
class Ground:
    """What may be mixed, for `total` bytes of training text: bytes there are of each free language, and what fixed sources bring of each language."""

    unique: Mapping[str, float]
    fixed: Mapping[str, float]  # language -> rate of its fixed sources
    fixed_unique: Mapping[str, float]
    total: float
    max_repeats: float

    @property
    def rest(self) -> float:
        """Share of the text that is free."""
        return 1 - sum(self.fixed.values())

    def caps(self) -> dict[str, float]:
        """The most that a free language may have of the free share."""
        return {name: min(1.0, self.max_repeats * size / max(1e-9, self.rest * self.total)) for name, size in self.unique.items()}

    def effective(self, rates: Mapping[str, float]) -> dict[str, float]:
        """Effective share of the text by language, for `rates` of the free share."""
        found: dict[str, float] = {}
        for name in sorted({*self.unique, *self.fixed}):
            free = effective_bytes(self.unique.get(name, 0.0), rates.get(name, 0.0) * self.rest * self.total)
            found[name] = (free + effective_bytes(self.fixed_unique.get(name, 0.0), self.fixed.get(name, 0.0) * self.total)) / self.total
        return found


class Gain(NamedTuple):
    """By how much less the objective is than with UniMax, relative: the fit, and its 95 % interval."""

    value: float
    low: float
    high: float


def bounds_of(ground: Ground, unimax: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """How little and how much of the free share a language may have."""
    caps = ground.caps()
    return {name: (rate / REACH, max(rate, min(1.0, rate * REACH, caps[name]))) for name, rate in unimax.items()}


def best_mixture(
    surface: Surface, objective: Objective, ground: Ground, unimax: Mapping[str, float], starts: Sequence[Mapping[str, float]] = ()
) -> dict[str, float]:
    """Rates of the free share, summing to 1, within `bounds_of`. UniMax's own where nothing is better."""
    names = sorted(unimax)
    bounds = bounds_of(ground, unimax)
    low_F, high_F = (np.array([bounds[name][side] for name in names]) for side in (0, 1))

    def bits(rates_F: Array) -> Array:
        effective = ground.effective(dict(zip(names, rates_F.tolist(), strict=True)))
        return np.exp(surface.log_bits(np.array([effective[name] for name in surface.domains])))

    def score(rates_F: Array) -> float:
        return float(objective.of_array(surface.languages, bits(rates_F)))

    base_F = np.array([unimax[name] for name in names])
    best_F, least = base_F, score(base_F)
    for start in [unimax, *starts][: STARTS + 1]:
        start_F = np.clip([start.get(name, 0.0) for name in names], low_F, high_F)
        found_F = _onto(_descend(bits, score, objective, start_F, low_F, high_F), low_F, high_F)
        if score(found_F) < least * (1 - 1e-7):
            best_F, least = found_F, score(found_F)
    return dict(zip(names, best_F.tolist(), strict=True))


def _descend(
    bits: Callable[[Array], Array], score: Callable[[Array], float], objective: Objective, start_F: Array, low_F: Array, high_F: Array
) -> Array:
    """The minimum that sequential quadratic programming finds from here."""
    count = len(start_F)
    sums = {"type": "eq", "fun": lambda x: x[:count].sum() - 1}
    options = {"maxiter": 200, "ftol": 1e-9}
    if objective.weights is not None:
        found = minimize(score, start_F, method="SLSQP", bounds=list(zip(low_F, high_F, strict=True)), constraints=[sums], options=options)
        return np.asarray(found.x, dtype=np.float64)
    below = {"type": "ineq", "fun": lambda x: x[count] - bits(x[:count])}  # the worst is below a bound, and the bound is made least
    found = minimize(
        lambda x: x[count], np.append(start_F, score(start_F)), method="SLSQP", bounds=[*zip(low_F, high_F, strict=True), (0, None)],
        constraints=[sums, below], options=options,
    )  # fmt: skip
    return np.asarray(found.x[:count], dtype=np.float64)


def _onto(rates_F: Array, low_F: Array, high_F: Array) -> Array:
    """The nearest rates that keep the bounds and sum to 1: shifted and clipped (a minimiser leaves them by a rounding)."""
    near, far = float((low_F - rates_F).min()), float((high_F - rates_F).max())
    for _ in range(100):
        middle = (near + far) / 2
        if np.clip(rates_F + middle, low_F, high_F).sum() < 1:
            near = middle
        else:
            far = middle
    found: Array = np.clip(rates_F + far, low_F, high_F)
    return found


def gain_of(
    surface: Surface, objective: Objective, ground: Ground, unimax: Mapping[str, float], rates: Mapping[str, float], trained: tuple[int, int] | None = None
) -> Gain:
    """Predicted gain of `rates` over UniMax with the interval of the bootstrap.

    Resampling a dozen runs under a form of as many coefficients promises too much. So where it is known how many runs were `trained` on UniMax and on `rates`
    the interval is at least what these would have alone, with the leave-one-out error of the objective for the noise of a run.
    """
    values = []
    for mixture in (unimax, rates):
        effective = ground.effective(mixture)
        values.append(objective.of_array(surface.languages, np.exp(surface.log_bits(np.array([effective[name] for name in surface.domains]), None))))
    gain_D = 1 - values[1] / values[0]
    value, (low, high) = float(gain_D[0]), np.percentile(gain_D[1:], INTERVAL)
    half = 0.0
    if trained is not None:
        effective = ground.effective(rates)
        bits_L = np.exp(surface.log_bits(np.array([effective[name] for name in surface.domains])))
        noise_N = surface.residual_NL @ _slopes(objective, surface.languages, bits_L)
        half = NORMAL * float(np.sqrt((noise_N**2).mean())) * math.sqrt(sum(1 / max(1e-9, count) for count in trained))
    return Gain(value, min(float(low), value - half), max(float(high), value + half))


def _slopes(objective: Objective, languages: Sequence[str], bits_L: Array) -> Array:
    """[L]: how the logarithm of the objective moves with that of each language's bits per byte."""
    if objective.weights is None:
        parts_L = np.arange(len(bits_L)) == bits_L.argmax()
    else:
        parts_L = bits_L * np.array([objective.weights.get(name, 0.0) for name in languages])
    found: Array = parts_L / parts_L.sum()
    return found
