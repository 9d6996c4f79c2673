"""Duplicates and the held-out split follow from hashes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus.split import choose_held_out, first_of_equal


def hashes(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (count, 2), np.uint64)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30))
def test_the_first_of_equal_documents_stays(given_documents):
    values, ranks = [value for value, _ in given_documents], [rank for _, rank in given_documents]
    given_hashes = np.array([[value % 2, value] for value in values], np.uint64).reshape(-1, 2)
    firsts = {min((place for place, other in enumerate(values) if other == value), key=lambda place: (ranks[place], place)) for value in values}
    assert first_of_equal(given_hashes, np.array(ranks, np.int64)).tolist() == [place in firsts for place in range(len(values))]


@settings(max_examples=50)
@given(st.integers(0, 400), st.floats(0.001, 0.3), st.integers(1000, 10**6), st.integers(0, 5))
def test_the_cap_holds_and_two_documents_give_one(count, share, cap, seed):
    sizes = np.random.default_rng(seed).integers(100, 20_000, count)
    held = choose_held_out(hashes(count, seed), sizes, share, cap)
    assert held.sum() >= (count >= 2)
    assert held.sum() < max(1, count)
    assert sizes[held].sum() <= cap or held.sum() == 1


def test_it_does_not_depend_on_the_order_of_documents():
    documents, sizes = hashes(500), np.full(500, 1000)
    order = np.random.default_rng(1).permutation(500)
    assert (choose_held_out(documents, sizes, 0.02, 10**6)[order] == choose_held_out(documents[order], sizes, 0.02, 10**6)).all()


def test_a_large_language_gives_the_share_that_was_asked_for():
    held = choose_held_out(hashes(100_000), np.full(100_000, 1000), 0.01, 10**9)
    assert 0.009 < held.mean() < 0.011
    assert (hashes(100_000)[held, 0] < 0.0101 * 2**64).all()


def test_a_small_language_gives_a_few_documents_and_keeps_the_most_of_itself():
    held = choose_held_out(hashes(100), np.full(100, 5000), 0.001, 400_000)
    assert 4 <= held.sum() <= 8
