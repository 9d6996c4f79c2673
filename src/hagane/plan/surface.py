"""What small runs on different mixtures say about other mixtures: a regression for every language, and its bootstrap.

The logarithm of a language's bits per byte is linear in how much is read of every language, where "how much" is the share of the text after repeats are
discounted (Muennighoff et al. 2023), relative to the baseline's. Simple forms compete by their leave-one-out error over all languages together:

- `constant`: the mixture does not matter;
- `own text`: a power law of the language's own share;
- `own text and others`: the same, and a power of every other share, which ridge regression holds near zero;
- `mixing law`: the exponential of a linear function of the shares (Ye et al. 2024, "Data mixing laws", arXiv 2403.16952, with no irreducible loss);
- `own text and mixing law`: both.

More of its own text never harms a language: a fit that says so is noise, and its own share is taken out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEWEST_PROXIES = 6  # of fewer a leave-one-out error tells nothing
DRAWS = 400
LEAST_SHARE = 1e-6  # of the text: what is not read at all is taken as this, for its logarithm
_OUT = 1e9  # penalty of a share that a form does not use
_OWN = 0.1  # of a language's own share: next to none
_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class Proxy:
    """One finished run: effective share of the text by language, and held-out bits per byte by language."""

    shares: Mapping[str, float]
    bits_per_byte: Mapping[str, float]


@dataclass(frozen=True)
class Form:
    """A form of the regression: penalties of the logarithm of a language's own share, of the others' logarithms, and of all shares themselves."""

    name: str
    own: float
    others: float
    linear: float


FORMS = (
    Form("constant", _OUT, _OUT, _OUT),
    Form("own text", _OWN, _OUT, _OUT),
    *(Form("own text and others", _OWN, penalty, _OUT) for penalty in _PENALTIES),
    *(Form("mixing law", _OUT, _OUT, penalty) for penalty in _PENALTIES),
    *(Form("own text and mixing law", _OWN, _OUT, penalty) for penalty in _PENALTIES),
)


@dataclass(frozen=True)
class Surface:
    """Bits per byte by language as a function of shares: the fit, and one for each draw of the bootstrap.

    `weights_DLF` are an intercept, a coefficient per logarithm of a share and one per share, for the fit (draw 0) and the draws; `error` is the
    relative leave-one-out error of the chosen form (of `residual_NL`) and `constant_error` that of the constant.
    """

    languages: tuple[str, ...]  # whose loss is told
    domains: tuple[str, ...]  # whose shares it depends on
    baseline_F: Array
    form: Form
    error: float
    constant_error: float
    weights_DLF: Array
    residual_NL: Array  # relative, of every run as predicted from the others

    def log_bits(self, shares_F: Array, draw: int | None = 0) -> Array:
        """[L] for one draw, or [D, L] for all of them where `draw` is None. The first is the fit itself."""
        row_F = np.concatenate([[1.0], _features(shares_F[None], self.baseline_F)[0]])
        weights = self.weights_DLF if draw is None else self.weights_DLF[draw]
        value: Array = weights @ row_F
        return value


def fit_surface(proxies: Sequence[Proxy], baseline: Mapping[str, float], *, seed: int = 0, draws: int = DRAWS) -> Surface:
    """Choose a form by leave-one-out error, fit it, and fit it again to resampled runs."""
    assert len(proxies) >= FEWEST_PROXIES
    domains = tuple(sorted(baseline))
    languages = tuple(sorted(set.intersection(*(set(proxy.bits_per_byte) for proxy in proxies))))
    shares_NF = np.array([[proxy.shares.get(name, 0.0) for name in domains] for proxy in proxies])
    log_NL = np.log([[proxy.bits_per_byte[name] for name in languages] for proxy in proxies])
    baseline_F = np.array([baseline[name] for name in domains])
    own_L = [domains.index(name) if name in domains else None for name in languages]
    residuals = [_leave_one_out(form, shares_NF, baseline_F, log_NL, own_L) for form in FORMS]
    errors = [float(np.sqrt((residual_NL**2).mean())) for residual_NL in residuals]
    best = int(np.argmin(errors))
    form = FORMS[best]
    generator = np.random.default_rng(seed)
    chosen = [np.arange(len(proxies)), *(generator.integers(len(proxies), size=len(proxies)) for _ in range(draws))]
    features_NF = _features(shares_NF, baseline_F)
    weights_DLF = np.stack([_fit(form, features_NF[rows], log_NL[rows], own_L) for rows in chosen])
    return Surface(languages, domains, baseline_F, form, errors[best], errors[0], weights_DLF, residuals[best])


def _features(shares_NF: Array, baseline_F: Array) -> Array:
    """[N, 2F]: logarithms of the shares over the baseline's, and by how much they are more."""
    ratio_NF = np.maximum(shares_NF, LEAST_SHARE) / np.maximum(baseline_F, LEAST_SHARE)
    return np.concatenate([np.log(ratio_NF), ratio_NF - 1], axis=1)


def _penalties(form: Form, own: int | None, count: int) -> Array:
    """[2F] for `count` features."""
    penalty_F = np.repeat([form.others, form.linear], count // 2)
    if own is not None:
        penalty_F[own] = form.own
    return penalty_F


def _solve(features_NF: Array, penalty_F: Array) -> tuple[Array, Array]:
    """The rows [N, 1 + F] with their intercept, and the matrix [1 + F, N] that makes coefficients of observations."""
    rows = np.concatenate([np.ones((len(features_NF), 1)), features_NF], axis=1)
    solver = np.linalg.solve(rows.T @ rows + np.diag(np.concatenate([[1e-9], penalty_F])), rows.T)
    return rows, solver


def _fit(form: Form, features_NF: Array, log_NL: Array, own_L: Sequence[int | None]) -> Array:
    """[L, 1 + 2F]."""
    count = features_NF.shape[1]
    found = np.zeros((log_NL.shape[1], 1 + count))
    for language, own in enumerate(own_L):
        penalty_F = _penalties(form, own, count)
        found[language] = _solve(features_NF, penalty_F)[1] @ log_NL[:, language]
        if own is not None and found[language, 1 + own] + found[language, 1 + own + count // 2] > 0:
            penalty_F[[own, own + count // 2]] = _OUT
            found[language] = _solve(features_NF, penalty_F)[1] @ log_NL[:, language]
    return found


def _leave_one_out(form: Form, shares_NF: Array, baseline_F: Array, log_NL: Array, own_L: Sequence[int | None]) -> Array:
    """Relative errors [N, L], every run predicted from the others: residual / (1 - leverage), exact for ridge regression."""
    features_NF = _features(shares_NF, baseline_F)
    found = np.zeros_like(log_NL)
    for language, own in enumerate(own_L):
        rows, solver = _solve(features_NF, _penalties(form, own, features_NF.shape[1]))
        hat_NN = rows @ solver
        found[:, language] = (log_NL[:, language] - hat_NN @ log_NL[:, language]) / np.maximum(1e-6, 1 - np.diag(hat_NN))
    return found
