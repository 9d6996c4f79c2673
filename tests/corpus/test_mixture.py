"""UniMax and the mixture of shards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus.mixture import Replay, Shard, mixture, unimax, unimax_budgets
from hagane.errors import RecipeError

SIZES = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(1, 10**9), min_size=1, max_size=12)


@given(SIZES, st.floats(1, 1e10), st.floats(1, 10))
def test_rates_sum_to_one_and_no_language_is_repeated_more_than_the_cap(sizes, budget, repeats):
    rates = unimax(sizes, budget, repeats)
    assert sum(rates.values()) == pytest.approx(1)
    if budget <= repeats * sum(sizes.values()):
        assert all(rates[name] * budget <= repeats * size * (1 + 1e-9) for name, size in sizes.items())
    else:  # every language is read as often as it may be: rates are as the sizes are
        assert all(rates[name] == pytest.approx(size / sum(sizes.values())) for name, size in sizes.items())


@given(SIZES, st.floats(1, 1e9), st.floats(1, 10))
def test_languages_that_reach_no_cap_have_equal_budgets_and_the_others_have_less(sizes, budget, repeats):
    budgets = unimax_budgets(sizes, budget, repeats)
    free = [budgets[name] for name, size in sizes.items() if budgets[name] < repeats * size * (1 - 1e-9)]
    if free:
        assert max(free) == pytest.approx(min(free))
        assert all(value <= max(free) * (1 + 1e-9) for value in budgets.values())
    assert sum(budgets.values()) == pytest.approx(min(budget, repeats * sum(sizes.values())))


def test_the_example_of_one_small_and_two_large_languages():
    assert unimax({"small": 10, "large": 1000, "larger": 5000}, 640, max_repeats=4) == pytest.approx(
        {"small": 40 / 640, "large": 300 / 640, "larger": 300 / 640}
    )


def test_fixed_shares_come_first_and_sources_of_one_language_share_by_size():
    shards = {
        "problems.en": Shard("problems", "en", 5),
        "problems.ja": Shard("problems", "ja", 5),
        "web.en": Shard("web", "en", 300),
        "books.en": Shard("books", "en", 100),
        "web.sv": Shard("web", "sv", 400),
        "web.xx": Shard("web", "xx", 0),
    }
    rates = mixture(shards, 100, shares={"problems": 0.4, "absent": 0.3})
    assert rates == pytest.approx({"problems.en": 0.2, "problems.ja": 0.2, "web.en": 0.225, "books.en": 0.075, "web.sv": 0.3})


def test_shares_of_the_only_sources_are_scaled_to_one():
    rates = mixture({"a.en": Shard("a", "en", 1), "b.en": Shard("b", "en", 1)}, 10, shares={"a": 0.3, "b": 0.1})
    assert rates == pytest.approx({"a.en": 0.75, "b.en": 0.25})


def test_nothing_to_mix_is_refused():
    with pytest.raises(RecipeError, match="no text"):
        mixture({"a.en": Shard("a", "en", 0)}, 10)
    with pytest.raises(RecipeError, match="more than 1"):
        mixture({"a.en": Shard("a", "en", 1), "b.en": Shard("b", "en", 1)}, 10, shares={"a": 0.7, "b": 0.7})


def test_replayed_languages_have_their_share_of_what_no_source_fixes():
    shards = {
        "problems.en": Shard("problems", "en", 5),
        "web.en": Shard("web", "en", 4000),
        "web.de": Shard("web", "de", 1000),
        "web.is": Shard("web", "is", 300),
        "web.fo": Shard("web", "fo", 100),
    }
    rates = mixture(shards, 1000, shares={"problems": 0.2}, replay=Replay(frozenset({"en", "de"}), 0.25))
    assert rates == pytest.approx({"problems.en": 0.2, "web.en": 0.1, "web.de": 0.1, "web.is": 0.3, "web.fo": 0.3})
    only = {name: shard for name, shard in shards.items() if shard.language == "en"}
    assert mixture(only, 1000, replay=Replay(frozenset({"en"}), 0.25)) == mixture(only, 1000)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10**6), min_size=2), st.sets(st.sampled_from("abcdefgh")), st.floats(0, 0.99))
def test_rates_with_replay_sum_to_one_and_none_is_negative(sizes, known, share):
    rates = mixture({name: Shard("web", name, size) for name, size in sizes.items()}, 1e5, replay=Replay(frozenset(known), share))
    assert sum(rates.values()) == pytest.approx(1) and min(rates.values()) >= 0
    if known & sizes.keys() and sizes.keys() - known:
        assert sum(rates[name] for name in known & sizes.keys()) == pytest.approx(share)
