"""Likeness to good text: the model of characters against a written-out one, its chances against one, and what each way of telling sees."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus.likeness import CONCENTRATION, learn_likeness, learn_model, separation
from hagane.corpus.ngrams import ORDERS

TEXTS = ["en katt satt på en matta", "en matta", "katten åt en råtta och satt", "å"]


def cleaned(text):
    return f" {' '.join(text.split())} "


def written_out(train, text):
    """Bits per character of `text`, by dictionaries of strings."""
    counts = Counter(cleaned(own)[start : start + order] for own in train for order in range(1, ORDERS + 1) for start in range(len(cleaned(own)) - order + 1))
    total = sum(count for gram, count in counts.items() if len(gram) == 1)
    different = sum(len(gram) == 1 for gram in counts) + 1

    def chance(history, character):
        shorter = 1 / different if not history else chance(history[1:], character)
        if not history:
            return (counts[character] + CONCENTRATION * shorter) / (total + CONCENTRATION)
        return (counts[history + character] + CONCENTRATION * shorter) / (counts[history] + CONCENTRATION)

    whole = cleaned(text)
    return -sum(math.log2(chance(whole[max(0, place - ORDERS + 1) : place], whole[place])) for place in range(1, len(whole))) / (len(whole) - 1)


@pytest.mark.parametrize("text", [*TEXTS, "zebra", "satt en katt"])
def test_bits_are_those_of_the_written_out_model(text):
    assert learn_model(TEXTS).bits([text])[0] == pytest.approx(written_out(TEXTS, text), rel=1e-5)


def test_order_does_not_matter_and_text_without_letters_is_left_to_chance():
    one, other = learn_model(TEXTS), learn_model(TEXTS[::-1])
    assert (one.bits(TEXTS) == other.bits(TEXTS)).all()
    assert one.bits(["", "1234", "!?"]) == pytest.approx([math.log2(one.num_different)] * 3)
    assert learn_model([]).bits(["en katt"])[0] == pytest.approx(0.0), "of nothing known, one character is as likely as it can be"


@given(st.lists(st.text("abc ", min_size=1, max_size=30), min_size=1, max_size=5))
def test_chances_of_all_words_sum_to_no_more_than_one(train):
    model = learn_model([*train, "abc"])
    words = ["".join(letters) for length in (1, 2, 3) for letters in itertools.product("abcx", repeat=length)]  # x is new
    chances = 2.0 ** -(model.bits(words) * [len(word) + 1 for word in words])  # of the letters and the space that ends the word
    assert 0 < chances.sum() <= 1 + 1e-6


def documents(draw, words, count):
    return [" ".join(draw.choices(words, k=60)) for _ in range(count)]


@pytest.fixture(scope="module")
def kinds():
    draw = random.Random(0)
    words = ["".join(draw.choices("aeiourstnlkåäö", k=draw.randint(3, 7))) for _ in range(150)]
    foreign = ["".join(draw.choices("aeiourstnlkåäö", k=draw.randint(3, 7))) for _ in range(150)]
    good = documents(draw, words, 60)
    broken = [" ".join("".join(draw.sample(word, len(word))) for word in text.split()) for text in documents(draw, words, 60)]
    return good, documents(draw, words, 40), documents(draw, foreign, 60), broken


@pytest.mark.parametrize("by", ["both", "classifier", "perplexity"])
def test_other_words_are_told_from_good_ones(kinds, by):
    good, same, foreign, _ = kinds
    learned = learn_likeness(good, foreign, by)
    assert learned.separation > 0.95 and learned.by_classifier > 0.95 and learned.by_perplexity > 0.95
    assert separation(learned.likeness.scores(same), learned.likeness.scores(foreign)) > 0.95


def test_a_way_of_breaking_text_that_was_not_learned_from_is_seen_by_perplexity(kinds):
    """Letters of good words in disorder, where the other text that was learned from is of other words."""
    good, same, foreign, broken = kinds
    model = learn_likeness(good, foreign, "perplexity").likeness
    assert model.scores(same).min() > model.scores(broken).max()


def test_both_is_the_sum_of_the_two_in_units_of_their_spread(kinds):
    good, same, foreign, _ = kinds
    parts = {by: learn_likeness(good, foreign, by).likeness.scores(same) for by in ("both", "classifier", "perplexity")}
    np.testing.assert_allclose(parts["both"], parts["classifier"] + parts["perplexity"])
