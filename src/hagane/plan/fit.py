"""Fit the loss law to measured runs: maximum a posteriori with stated priors, draws by a bootstrap, languages by ridge regression.

A ladder has a dozen runs and the law seven constants, so what the runs do not tell stays at what larger studies published: every constant has a prior with
a stated width. The residuals are of the log loss under Huber's loss (as Hoffmann et al. 2022), minimised by L-BFGS from several starts. The
draws are a randomised maximum a posteriori: the measurements and the centres of the priors are drawn anew and the fit is repeated, which for a
linear model is a draw of the posterior (Bardsley et al. 2014, "Randomize-then-optimize"). Not resampling of runs: of twelve designed runs a
resample often leaves out the only ones that tell a constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

from hagane.errors import RunError
from hagane.plan.law import BYTES_UNIT, PARAMETERS_UNIT, VOCABULARY_UNIT, Constants, Point

Array = NDArray[np.float64]

FEWEST_RUNS = 4  # of fewer nothing is told but a level
DRAWS = 64
HUBER = 1.345  # standard deviations at which the loss turns linear: 95 % as efficient as least squares where errors are normal
NOISE, NOISE_RUNS = 0.006, 3.0  # two seeds of a small run differ by this share of the loss; the assumption weighs as much as three runs
_STARTS = ((0.0, 0.0), (0.5, -0.5), (-0.5, 0.5), (-0.5, -0.5))  # added to the logs of the two exponents


@dataclass(frozen=True)
class Run:
    """One finished run: where it stands, and held-out bits per byte overall (mean over languages) and by language."""

    point: Point
    bits_per_byte: float
    languages: Mapping[str, float] = field(default_factory=dict)
    own_bytes: Mapping[str, float] = field(default_factory=dict)  # effective bytes read of each language


@dataclass(frozen=True)
class Prior:
    """Centre and standard deviation of each entry of theta: log E, log A, log alpha, log B, log beta, logit g, kappa.

    E, A and B are in bits per byte of a model of a million parameters after ten megabytes: wide, they are the corpus' own. The exponents lie between
    those of Hoffmann et al. 2022 (0.34 and 0.28, with E; Besiroglu et al. 2024 find 0.35 and 0.37 in the same runs) and of Kaplan et al. 2020 (0.076 and
    0.095, from smaller models and with no E): geometric means, and a standard deviation that reaches both. Held at Hoffmann's values alone, the fit of
    small runs puts E near the losses it has seen and misses larger runs (docs/notebook.md, "The loss law of small models").
    g is 0.5 where active and total parameters count alike.
    """

    mean: tuple[float, ...] = (math.log(0.6), math.log(0.4), math.log(0.25), math.log(1.0), math.log(0.18), 0.0, 0.0)
    deviation: tuple[float, ...] = (0.5, 1.0, 0.5, 0.7, 0.5, 0.7, 0.1)


@dataclass(frozen=True)
class Fitted:
    """Theta of the best fit, of the draws, and the relative noise of a run."""

    theta: Array
    draws: tuple[Array, ...]
    noise: float

    @property
    def constants(self) -> Constants:
        return constants_of(self.theta)


def constants_of(theta: Array) -> Constants:
    e, a, alpha, b, beta, g, kappa = theta.tolist()
    return Constants(
        irreducible=math.exp(e), a=math.exp(a), alpha=math.exp(alpha), b=math.exp(b), beta=math.exp(beta), share=1 / (1 + math.exp(-g)), kappa=kappa
    )


class _Problem:
    """Log loss and its gradient at all runs."""

    def __init__(self, points: Sequence[Point], prior: Prior) -> None:
        self.active_R = np.log([point.active / PARAMETERS_UNIT for point in points])
        self.total_R = np.log([point.total / PARAMETERS_UNIT for point in points])
        self.bytes_R = np.log([point.bytes / BYTES_UNIT for point in points])
        self.vocabulary_R = np.log([point.vocabulary / VOCABULARY_UNIT for point in points])
        self.deviation = np.array(prior.deviation)

    def log_loss(self, theta: Array) -> tuple[Array, Array]:
        """[R] and its derivative [R, 7]."""
        alpha, beta, g = math.exp(theta[2]), math.exp(theta[4]), 1 / (1 + math.exp(-theta[5]))
        mix_R = (1 - g) * self.active_R + g * self.total_R
        e = math.exp(theta[0])
        a_R = np.exp(theta[1] - alpha * mix_R)
        b_R = np.exp(theta[3] - beta * self.bytes_R + theta[6] * self.vocabulary_R)
        loss_R = e + a_R + b_R
        slope_RP = np.stack(
            [
                np.full_like(a_R, e), a_R, -a_R * alpha * mix_R, b_R, -b_R * beta * self.bytes_R,
                -a_R * alpha * (self.total_R - self.active_R) * g * (1 - g), b_R * self.vocabulary_R,
            ],
            axis=1,
        )  # fmt: skip
        return np.log(loss_R), slope_RP / loss_R[:, None]

    def minimum(self, observed_R: Array, centre: Array, noise_R: Array, starts: Sequence[Array]) -> tuple[Array, float]:
        """The best theta over the starts, and its objective."""

        def objective(theta: Array) -> tuple[float, Array]:
            log_R, slope_RP = self.log_loss(theta)
            scaled_R = (log_R - observed_R) / noise_R
            inside_R = np.abs(scaled_R) <= HUBER
            value = np.where(inside_R, scaled_R**2 / 2, HUBER * (np.abs(scaled_R) - HUBER / 2)).sum()
            pulled = (theta - centre) / self.deviation
            slope = (np.clip(scaled_R, -HUBER, HUBER) / noise_R) @ slope_RP
            return float(value + pulled @ pulled / 2), slope + pulled / self.deviation

        low, high = centre - 6 * self.deviation, centre + 6 * self.deviation
        found = [minimize(objective, start, jac=True, method="L-BFGS-B", bounds=list(zip(low, high, strict=True))) for start in starts]
        best = min(found, key=lambda result: float(result.fun))
        return np.asarray(best.x), float(best.fun)


def slopes(points: Sequence[Point], theta: Array) -> Array:
    """Derivative of the log loss at the points after theta, [P, 7]."""
    return _Problem(points, Prior()).log_loss(theta)[1]


def fit(runs: Sequence[Run], *, prior: Prior | None = None, draws: int = DRAWS, seed: int = 0) -> Fitted:
    """Fit the law to the mean over languages. Raises RunError where there are fewer than FEWEST_RUNS runs or a loss that is no loss."""
    if len(runs) < FEWEST_RUNS:
        raise RunError(f"a loss law needs at least {FEWEST_RUNS} finished runs and there are {len(runs)}. Give hagane ladder a larger --budget.")
    if not all(math.isfinite(run.bits_per_byte) and run.bits_per_byte > 0 for run in runs):
        raise RunError("a run of the ladder ended with a loss that is not a positive number. Delete its folder and run hagane ladder again.")
    prior = prior or Prior()
    problem, observed_R, centre = _Problem([run.point for run in runs], prior), np.log([run.bits_per_byte for run in runs]), np.array(prior.mean)
    starts = [centre + np.array([0, 0, a, 0, b, 0, 0]) for a, b in _STARTS]
    noise = NOISE
    for _ in range(4):  # the noise and the fit depend on each other; this converges in two or three rounds
        theta, _value = problem.minimum(observed_R, centre, np.full(len(runs), noise), starts)
        starts = [theta]
        noise = _noise(problem, theta, observed_R, noise)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        measured_R = problem.log_loss(theta)[0] + noise * generator.standard_normal(len(runs))
        shifted = centre + problem.deviation * generator.standard_normal(len(centre))
        drawn.append(problem.minimum(measured_R, shifted, np.full(len(runs), noise), [theta])[0])
    return Fitted(theta, tuple(drawn), noise)


def _noise(problem: _Problem, theta: Array, observed_R: Array, noise: float) -> float:
    """Standard deviation of a run about the law: residuals over the degrees of freedom the fit left, pooled with what is assumed. Residuals are cut where
    Huber's loss turns linear, so that one broken run does not widen everything."""
    log_R, slope_RP = problem.log_loss(theta)
    residual_R = np.clip(observed_R - log_R, -2 * noise, 2 * noise)
    scaled_RP = slope_RP / noise
    information = scaled_RP.T @ scaled_RP
    used = float(np.trace(np.linalg.solve(information + np.diag(problem.deviation**-2), information)))
    freedom = max(0.5, len(observed_R) - used)
    return math.sqrt((NOISE_RUNS * NOISE**2 + float(residual_R @ residual_R)) / (NOISE_RUNS + freedom))


LANGUAGE_WIDTH = 0.3  # standard deviation of a language's three weights about its level, relative
OWN_MEAN, OWN_WIDTH = 0.5, 0.25  # prior of the weight of a language's own text
_OWN_GRID = tuple(index / 20 for index in range(21))


@dataclass(frozen=True)
class FittedLanguage:
    weights: tuple[float, float, float]
    draws: tuple[tuple[float, float, float], ...]
    noise: float
    share: float


def fit_languages(runs: Sequence[Run], fitted: Fitted, *, seed: int = 0) -> tuple[float, dict[str, FittedLanguage]]:
    """The weight of a language's own text, and every language's weights of the three terms.

    With exponents of all languages together a language is linear in its weights: non-negative ridge regression, in closed form. Runs
    with another mixture tell how much of the data term is a language's own text.
    """
    names = sorted(set.intersection(*(set(run.languages) for run in runs)))
    shares = {name: float(np.median([run.own_bytes[name] / run.point.bytes for run in runs])) for name in names}
    losses = {own: sum(_language(runs, name, shares[name], fitted.constants, own, fitted.noise)[1] for name in names) for own in _OWN_GRID}
    own = min(_OWN_GRID, key=lambda value: losses[value] + ((value - OWN_MEAN) / OWN_WIDTH) ** 2)
    generator = np.random.default_rng(seed)
    found = {}
    for name in names:
        weights, _, residual_R = _language(runs, name, shares[name], fitted.constants, own, fitted.noise)
        noise = math.sqrt((NOISE_RUNS * NOISE**2 + float(residual_R @ residual_R)) / (NOISE_RUNS + max(0.5, len(runs) - 2)))
        drawn = tuple(
            _language(runs, name, shares[name], constants_of(theta), own, noise, noise * generator.standard_normal(len(runs)), generator.standard_normal(3))[0]
            for theta in fitted.draws
        )
        found[name] = FittedLanguage(weights, drawn, noise, shares[name])
    return own, found


def _language(
    runs: Sequence[Run], name: str, share: float, constants: Constants, own: float, noise: float, moved_R: Array | None = None, moved_3: Array | None = None
) -> tuple[tuple[float, float, float], float, Array]:
    """Weights of a language, its scaled squared residuals, and its relative residuals [R]. `moved` are for draws."""
    observed_R = np.array([run.languages[name] for run in runs])
    terms_R3 = np.array([constants.terms(run.point, max(1e-9, run.own_bytes[name] / share / run.point.bytes) ** own) for run in runs])
    level = float(np.median(observed_R / terms_R3.sum(1)))
    wanted_R = np.ones(len(runs)) if moved_R is None else 1 + moved_R
    centre_3 = np.full(3, level) if moved_3 is None else np.maximum(0.0, level * (1 + LANGUAGE_WIDTH * moved_3))
    rows = np.concatenate([terms_R3 / observed_R[:, None] / noise, np.eye(3) / (LANGUAGE_WIDTH * level)])
    weights, _ = nnls(rows, np.concatenate([wanted_R / noise, centre_3 / (LANGUAGE_WIDTH * level)]))
    residual_R = terms_R3 @ weights / observed_R - 1
    pulled = (weights / level - 1) / LANGUAGE_WIDTH
    return (float(weights[0]), float(weights[1]), float(weights[2])), float((residual_R / noise) @ (residual_R / noise) + pulled @ pulled), residual_R
