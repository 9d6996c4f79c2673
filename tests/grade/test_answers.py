import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus.embedded import fixed_test
from hagane.engine.reply import parse
from hagane.grade.answers import is_right, readings, same_number, same_words


@given(st.integers(-(10**12), 10**12), st.sampled_from([",", ".", " ", "'", "\u202f", ""]), st.sampled_from(["", "."]))
def test_any_common_grouping_of_digits_is_the_same_number(number, mark, stop):
    assert same_number(str(number), f"{number:,}".replace(",", mark) + stop)


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_other_numbers_are_not(expected, given_number):
    assert same_number(str(expected), str(given_number)) == (expected == given_number)


@pytest.mark.parametrize("text", ("", "12 or 13", "12 apples", "1,23,4", "= 12", "12.3.4", "--5", "1 2", "twelve"))
def test_anything_beside_the_number_is_no_number(text):
    assert readings(text) == set()


def test_forms_of_a_number():
    assert same_number("1234", "１２３４") and same_number("-5", "−5") and same_number("3.5", "3,5") and same_number("7", "+7 ")
    assert same_number("1234", "1.234") and not same_number("1234", "1.2345")


def test_tolerance_is_relative_and_off_unless_asked_for():
    assert not same_number("100", "101") and same_number("100", "101", tolerance=0.01) and not same_number("100", "102", tolerance=0.01)
    assert not same_number("0", "0.001", tolerance=0.1)


def test_words():
    assert same_words("Twenty  One", " twenty one.") and same_words("が", "か\u3099") and not same_words("twenty one", "twenty")


def test_problems_are_graded_strictly():
    for problem in fixed_test(1):
        assert is_right(problem, parse(f"{problem.thinking}\n</think>\n\n{problem.answer}<|im_end|>", thinking=True))
        assert is_right(problem, parse(f"{problem.answer}<|im_end|>", thinking=False))
        wrong = [
            f"{problem.thinking}\n{problem.answer}<|im_end|>",
            f"x</think>\n\n{problem.answer}",
            f"x</think>\n\n{problem.answer} {problem.answer}<|im_end|>",
        ]
        assert not any(is_right(problem, parse(output, thinking=True)) for output in [*wrong, "x</think>\n\n<|im_end|>"])
        assert not is_right(problem, parse(problem.answer, thinking=False)), "the turn did not end"
