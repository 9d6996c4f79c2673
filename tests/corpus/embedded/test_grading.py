"""Answers: tolerant of typing, strict about the value."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus.embedded import problems, same_answer

SAME = [
    ("addition_subtraction", "en", "4961", " 4961\n"),
    ("addition_subtraction", "de", "4961", "4.961"),
    ("addition_subtraction", "en", "4961", "4,961."),
    ("addition_subtraction", "sv", "14961", "14 961"),
    ("addition_subtraction", "nb", "14961", "14\u202f961"),
    ("addition_subtraction", "ja", "4961", "４９６１。"),
    ("number_words", "en", "four hundred seventy-two", "Four hundred and seventy-two."),
    ("number_words", "ko", "사천삼백칠십이", "사천 삼백 칠십이"),
    ("number_words", "is", "sjötíu og tveir", "sjötíu og tvö"),
    ("dates", "sv", "14 mars 2023", "14  Mars 2023."),
    ("dates", "ja", "2023年3月14日", "２０２３年 3月 14日"),
]
DIFFERENT = [
    ("addition_subtraction", "en", "4961", "4962"),
    ("addition_subtraction", "en", "4961", ""),
    ("addition_subtraction", "en", "4961", "4961 apples"),
    ("addition_subtraction", "en", "4961", "04961"),
    ("addition_subtraction", "en", "4961", "49,61"),
    ("addition_subtraction", "en", "4961", "-4961"),
    ("addition_subtraction", "en", "12", "1 2"),
    ("number_words", "sv", "fyra", "4"),
    ("number_words", "sv", "4", "fyra"),
    ("number_words", "en", "four", "five"),
    ("dates", "en", "2023-03-14", "2023-3-14"),
    ("dates", "fi", "14. maaliskuuta 2023", "14. maaliskuuta 2024"),
]


@pytest.mark.parametrize(("family", "language", "expected", "given"), SAME)
def test_the_same_answer_typed_otherwise(family, language, expected, given):
    assert same_answer(family, language, expected, given)


@pytest.mark.parametrize(("family", "language", "expected", "given"), DIFFERENT)
def test_another_answer(family, language, expected, given):
    assert not same_answer(family, language, expected, given)


def test_an_answer_is_itself_and_not_the_answer_to_another_problem():
    items = list(itertools.islice(problems(11), 72 * 4))
    for item in items:
        assert same_answer(item.family, item.language, item.answer, item.answer)
    for first, second in itertools.combinations(items, 2):
        if (first.family, first.language) == (second.family, second.language) and first.answer != second.answer:
            assert not same_answer(first.family, first.language, first.answer, second.answer)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_numbers_are_the_same_only_when_equal(first, second):
    assert same_answer("multiplication", "fi", str(first), f"{second:,}") == (first == second)
    assert same_answer("multiplication", "fi", str(first), str(second)) == (first == second)


@given(st.text(max_size=20))
def test_no_text_breaks_the_grader(text):
    for language, expected in (("ja", "四千"), ("en", "12"), ("sv", "14 mars 2023")):
        same_answer("number_words", language, expected, text)
