"""The fit finds constants that are known, is not moved by one broken run, and its intervals hold as often as they say."""

import math
import time

import numpy as np
import pytest

from hagane.errors import RunError
from hagane.plan.fit import DRAWS, Prior, Run, _Problem, constants_of, fit, fit_languages
from hagane.plan.fit import NOISE as ASSUMED
from hagane.plan.law import Constants, LanguageLaw, Law, Point, Range

TRUE = Constants(irreducible=0.7, a=0.25, alpha=0.3, b=0.9, beta=0.22, share=0.4, kappa=-0.04)
NOISE = 0.004


def points(parameters=(1.3e5, 4.5e5, 7.5e5, 1.3e6), num_bytes=(1.5e6, 3e6, 6e6), vocabularies=(1024, 2048, 4096)):
    grid = [Point(n, n, d, vocabularies[(i + j) % len(vocabularies)]) for i, n in enumerate(parameters) for j, d in enumerate(num_bytes)]
    return [*grid, Point(7e5, 2.1e6, 3e6, 2048), Point(1.3e6, 4e6, 6e6, 2048)]


def runs_of(law, at, seed=0, noise=NOISE):
    generator = np.random.default_rng(seed)
    return [Run(point, law.loss(point) * math.exp(noise * generator.standard_normal())) for point in at]


def law_of(fitted, at):
    largest = max(point.flops for point in at)
    return Law(
        corpus="a", constants=fitted.constants, draws=tuple(map(constants_of, fitted.draws)), noise=fitted.noise, source="test",
        fit=Range(runs=len(at), flops=largest, bytes=(1, 1), parameters=(1, 1), vocabularies=(2048,)),
    )  # fmt: skip


def test_known_constants_are_found_where_the_runs_tell_them():
    wide = points(parameters=(1e5, 1e6, 1e7, 1e8, 1e9), num_bytes=(1e6, 1e7, 1e8, 1e9, 1e10))
    fitted = fit(runs_of(TRUE, [*wide, Point(1e8, 1e9, 1e10, 2048), Point(1e7, 1e8, 1e9, 2048)], noise=0.001), draws=0).constants
    assert fitted.irreducible == pytest.approx(0.7, rel=0.03)
    assert fitted.alpha == pytest.approx(0.3, rel=0.05) and fitted.beta == pytest.approx(0.22, rel=0.05)
    assert fitted.share == pytest.approx(0.4, abs=0.05) and fitted.kappa == pytest.approx(-0.04, abs=0.01)


def test_eight_times_the_compute_is_predicted_from_a_small_ladder():
    runs = runs_of(TRUE, points())
    largest = max(runs, key=lambda run: run.point.flops)
    target = Point(largest.point.active * 2.8, largest.point.active * 2.8, largest.point.bytes * 2.9, 2048)
    predicted = fit(runs, draws=0).constants.loss(target)
    assert abs(predicted - TRUE.loss(target)) < 0.15 * (TRUE.loss(largest.point) - TRUE.loss(target))


def test_one_broken_run_moves_the_prediction_less_than_its_interval():
    runs, target = runs_of(TRUE, points()), Point(2e6, 2e6, 2e7, 2048)
    before = fit(runs, draws=0).constants.loss(target)
    broken = [*runs[:5], Run(runs[5].point, runs[5].bits_per_byte * 1.3), *runs[6:]]
    assert fit(broken, draws=0).constants.loss(target) == pytest.approx(before, rel=0.01)


def test_the_gradient_is_the_slope_of_the_loss():
    problem, theta = _Problem(points(), Prior()), np.array(Prior().mean) + 0.1
    slope = problem.log_loss(theta)[1]
    for index in range(len(theta)):
        step = np.eye(len(theta))[index] * 1e-6
        assert slope[:, index] == pytest.approx((problem.log_loss(theta + step)[0] - problem.log_loss(theta - step)[0]) / 2e-6, abs=1e-6)


def test_constants_that_no_run_tells_stay_at_their_prior():
    dense = [run for run in runs_of(TRUE, points(vocabularies=(2048,))) if run.point.active == run.point.total]
    fitted = fit(dense, draws=0).constants
    assert fitted.share == pytest.approx(0.5, abs=1e-3) and fitted.kappa == pytest.approx(0.0, abs=1e-3)


def test_eighty_percent_intervals_hold_about_eighty_percent():
    """Laws drawn from the prior, a new ladder each, and no error of form: 50 cases, so 80 % has a standard error of six points."""
    generator, prior = np.random.default_rng(1), Prior()
    held, at, target = 0, points(), Point(2.5e6, 2.5e6, 1.8e7, 2048)
    for case in range(50):
        truth = constants_of(np.array(prior.mean) + np.array(prior.deviation) * generator.standard_normal(7))
        law = law_of(fit(runs_of(truth, at, seed=case, noise=ASSUMED), draws=16, seed=case), [target])
        _, low, high = law.predict(target, same_text=True)
        held += low <= truth.loss(target) * math.exp(ASSUMED * generator.standard_normal()) <= high
    assert 0.66 * 50 <= held <= 0.94 * 50, held


def test_too_few_runs_and_losses_that_are_none_are_refused():
    with pytest.raises(RunError, match="at least 4 finished runs and there are 3"):
        fit(runs_of(TRUE, points())[:3])
    with pytest.raises(RunError, match="not a positive number"):
        fit([*runs_of(TRUE, points()), Run(points()[0], math.nan)])


def test_the_same_runs_give_the_same_law_in_seconds():
    started = time.monotonic()
    first, second = (fit(runs_of(TRUE, points())) for _ in range(2))
    assert len(first.draws) == DRAWS and np.array_equal(first.theta, second.theta)
    assert all(np.array_equal(one, other) for one, other in zip(first.draws, second.draws, strict=True))
    assert time.monotonic() - started < 20


def language_runs(own):
    """Two languages: one is 1.4 times as hard; in the last runs the mixture is tilted."""
    runs, shares = [], {"sv": 0.5, "smj": 0.5}
    for index, point in enumerate([*points(), *points()[:2]]):
        tilted = {"sv": 0.8, "smj": 0.2} if index >= len(points()) else shares
        read = {name: share * point.bytes for name, share in tilted.items()}
        losses = {}
        for name, level in (("sv", 0.8), ("smj", 1.2)):
            losses[name] = level * sum(TRUE.terms(point, (read[name] / shares[name] / point.bytes) ** own))
        runs.append(Run(point, sum(losses.values()) / 2, losses, read))
    return runs


@pytest.mark.parametrize("own", [0.2, 0.8])
def test_a_tilted_mixture_tells_what_a_language_s_own_text_is_worth(own):
    runs = language_runs(own)
    fitted = fit(runs, draws=12)
    found, languages = fit_languages(runs, fitted)
    assert found == pytest.approx(own, abs=0.15)
    assert all(min(weights) >= 0 for language in languages.values() for weights in (language.weights, *language.draws))
    assert languages["smj"].share == pytest.approx(0.5)
    law = law_of(fitted, points()).model_copy(
        update={"own": found, "languages": {name: LanguageLaw(**vars(one), text_error=0.0) for name, one in languages.items()}}
    )
    target = Point(2.5e6, 2.5e6, 1.8e7, 2048)
    expected = 1.2 * sum(TRUE.terms(target))
    assert law.predict_language("smj", target, 0.5 * target.bytes)[0] == pytest.approx(expected, rel=0.03)
