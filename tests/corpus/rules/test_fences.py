"""Fences come from a language's own documents, and from those of its script where it has too few."""

from collections import defaultdict

import numpy as np
import pytest

from hagane.corpus.rules.fences import FEWEST, judge, script_of
from hagane.corpus.rules.measure import FEATURES

DIGITS = [feature.name for feature in FEATURES].index("digits")
ALL = defaultdict(lambda: True)


def documents(count, digits):
    values = np.zeros((count, len(FEATURES)))
    values[:, DIGITS] = digits
    return values


def judged(groups, excerpt=lambda name: "abc", rules=ALL):
    values = np.concatenate([documents(count, digits) for _, count, digits in groups])
    languages = np.repeat([name for name, _, _ in groups], [count for _, count, _ in groups])
    return judge(values, languages, excerpt, 6.0, rules)


def test_what_is_ordinary_in_one_language_is_not_judged_by_another():
    found = judged([("en", 100, 0.0), ("ko", 100, 0.5), ("en", 1, 0.5)])
    assert np.flatnonzero(found.feature_D >= 0).tolist() == [200]
    assert found.languages["ko"].fences["digits"].median == 0.5


def test_a_small_language_takes_the_fences_of_its_script_and_of_no_other():
    texts = {"sv": "åäö", "smj": "bcd", "chr": "ᏣᎳᎩ"}
    found = judged([("sv", FEWEST, 0.0), ("smj", 3, 0.0), ("smj", 1, 0.9), ("chr", 30, 0.9)], texts.__getitem__)
    assert {name: own.taken_from for name, own in found.languages.items()} == {"sv": "sv", "smj": "script LATIN", "chr": "none"}
    assert np.flatnonzero(found.feature_D >= 0).tolist() == [FEWEST + 3]


def test_what_a_borrowed_fence_would_drop_often_is_a_habit_of_the_language():
    found = judged([("sv", FEWEST, 0.0), ("smj", 20, 0.0), ("smj", 3, 0.9), ("sma", 28, 0.0), ("sma", 2, 0.9)])
    assert found.languages["smj"].taken_from == found.languages["sma"].taken_from == "script LATIN"
    assert found.languages["smj"].fences["digits"].value is None
    assert np.flatnonzero(found.feature_D >= 0).tolist() == [FEWEST + 23 + 28, FEWEST + 23 + 29]


def test_too_few_documents_say_nothing():
    found = judged([("sv", FEWEST - 2, 0.0), ("sv", 1, 1.0)])
    assert found.languages["sv"].taken_from == "none"
    assert (found.feature_D < 0).all()


def test_a_rule_that_is_off_draws_no_fence():
    found = judged([("sv", 100, 0.0), ("sv", 1, 0.9)], rules={feature.rule: feature.rule != "lists" for feature in FEATURES})
    assert "digits" not in found.languages["sv"].fences
    assert (found.feature_D < 0).all()


@pytest.mark.parametrize(("text", "script"), [("Det var", "LATIN"), ("한국어 text는", "HANGUL"), ("ᏣᎳᎩ", "CHEROKEE"), ("12 34", "COMMON")])
def test_scripts(text, script):
    assert script_of(text) == script
