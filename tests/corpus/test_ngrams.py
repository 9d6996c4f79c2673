"""Excerpts are bounded, and grams are what they should be."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus.ngrams import NOTHING, NUM_BUCKETS, ORDERS, WINDOW, grams, windows


@given(st.integers(0, 20_000), st.integers(1, 9))
def test_an_excerpt_is_bounded_and_goes_from_the_beginning_to_the_end(length, count):
    text = "".join(chr(0x4E00 + place) for place in range(length))
    pieces = windows(text, count)
    assert 1 <= len(pieces) <= count
    assert all(len(piece) <= WINDOW and piece in text for piece in pieces)
    if length <= count * WINDOW:
        assert "".join(pieces) == text
    elif count > 1:
        assert pieces[0] == text[:WINDOW] and pieces[-1] == text[-WINDOW:]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_a_text_has_the_same_grams_alone_and_among_others(texts):
    together, starts = grams(texts)
    for text, own in zip(texts, np.split(together, starts[1:]), strict=True):
        assert (own == grams([text])[0]).all()


@pytest.mark.parametrize(
    "one, other",
    [
        ("Åke äter RÖDBETOR", "åke äter rödbetor"),
        (unicodedata.normalize("NFD", "Ærøskøbing på Fyn"), "ærøskøbing på fyn"),
        ("år 1998, den (tolfte) maj!", "år den tolfte maj"),
        ("ᏣᎳᎩ  \n ᎦᏬᏂᎯᏍᏗ", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ"),
        ("STRASSE", "straße"),
    ],
)
def test_what_makes_no_difference(one, other):
    assert grams([one])[0].tolist() == grams([other])[0].tolist()


def test_marks_belong_to_letters_and_cjk_signs_stay():
    assert grams(["किताब"])[0].tolist() != grams(["कतब"])[0].tolist()
    assert grams(["本。"])[0].tolist() != grams(["本"])[0].tolist()


def test_a_short_word_between_spaces_has_its_nine_grams():
    buckets, starts = grams(["av"])  # " av ": a, v; " a", "av", "v "; " av", "av "; " av "
    assert starts.tolist() == [0] and buckets.shape == (4, ORDERS)
    assert [(buckets[:, order] != NOTHING).sum() for order in range(ORDERS)] == [2, 3, 2, 1]
    assert buckets.max() < NUM_BUCKETS


def test_texts_without_letters_have_no_grams():
    buckets, starts = grams(["", "12 + 3 = 15", "\ud800"])
    assert len(starts) == 3 and not buckets.any()
