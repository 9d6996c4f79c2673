import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.evaluate.intervals import bootstrap_mean_ratio, bootstrap_ratio, wilson

COUNTS = st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(COUNTS)
def test_wilson_holds_the_share_and_stays_in_the_unit_interval(counts):
    correct, total = counts
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    assert low < high
    mirrored = wilson(total - correct, total)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(COUNTS)
def test_wilson_solves_its_equation(counts):
    """Its ends are the shares p whose normal test statistic against the observed share is exactly z."""
    correct, total = counts
    for end in wilson(correct, total):
        if 0 < end < 1:
            assert abs(correct / total - end) == pytest.approx(1.959964 * (end * (1 - end) / total) ** 0.5, rel=1e-5)


@given(COUNTS, st.integers(2, 20))
def test_more_items_narrow_the_interval(counts, times):
    (low, high), (inner_low, inner_high) = wilson(*counts), wilson(counts[0] * times, counts[1] * times)
    assert inner_high - inner_low < high - low


def test_published_values():
    assert wilson(0, 0) == (0, 1)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.5, 100)), min_size=1, max_size=30), st.integers(0, 5))
def test_bootstrap_lies_between_the_extremes_of_the_units(pairs, seed):
    top, bottom = zip(*pairs)
    low, high = bootstrap_ratio(top, bottom, seed, replicates=200)
    ratios = [one / two for one, two in pairs]
    assert min(ratios) - 1e-9 <= low <= high <= max(ratios) + 1e-9
    assert bootstrap_ratio(top, bottom, seed, replicates=200) == (low, high)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    draw, hits = np.random.default_rng(0), 0
    for trial in range(300):
        size = draw.integers(1, 20, 60)
        low, high = bootstrap_ratio(size * 3.0 + draw.normal(0, 4, 60), size, trial, replicates=400)
        hits += low <= 3.0 <= high
    assert 0.88 <= hits / 300 <= 0.98


def test_one_document_has_no_spread_and_unequal_lists_are_refused():
    assert bootstrap_ratio([3.0], [2.0]) == (1.5, 1.5)
    with pytest.raises(ValueError, match="as many"):
        bootstrap_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_ratio([], [])


def test_wilson_covers_the_truth_as_often_as_it_says():
    draw = random.Random(0)
    covered = 0
    for _ in range(2000):
        low, high = wilson(sum(draw.random() < 0.9 for _ in range(28)), 28)
        covered += low <= 0.9 <= high
    assert covered / 2000 > 0.92


def test_the_mean_of_groups_has_the_interval_of_independent_draws():
    draw = random.Random(0)
    groups = [([draw.gauss(mean, 1) for _ in range(400)], [1.0] * 400) for mean in (0.0, 4.0)]
    low, high = bootstrap_mean_ratio(groups)
    middle = np.mean([np.mean(top) for top, _ in groups])
    half = 1.96 * sum(np.var(top) / 400 for top, _ in groups) ** 0.5 / 2
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=0.015)
    assert bootstrap_mean_ratio(groups[:1]) == bootstrap_ratio(*groups[0])
