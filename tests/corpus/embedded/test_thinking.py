"""The thinking is arithmetically right, line by line, judged by a reader that knows only its notation."""

import re
from datetime import date

import pytest

from hagane.corpus.embedded.problems import answer, problem
from hagane.corpus.embedded.tasks import FAMILIES, LANGUAGES, Task, draw
from hagane.corpus.embedded.thinking import month_days, placed, think

COLUMN = re.compile(r"([xwkhtu])(\d)([+-])(\d)[+-](\d)=(\d)(\d)")
PRODUCT = re.compile(r"([xwkhtu])(\d)\*(\d)=(\d\d)\+(\d)=(\d)(\d)")
PLACED = r"(?:[xwkhtu]\d)+"


def unplaced(text: str) -> int:
    assert re.sub(r"\d", "", text) == "xwkhtu"[-len(text) // 2 :], text
    return int(re.sub(r"\D", "", text))


def read_operation(lines: list[str]) -> tuple[int, list[str]]:
    """Check one operation at the head of `lines`; return its result and the lines after it."""
    match = re.fullmatch(rf"({PLACED})([+*-])({PLACED}|\d)", lines[0])
    assert match, lines[0]
    first, sign = unplaced(match[1]), match[2]
    second = int(match[3]) if sign == "*" else unplaced(match[3])
    over, written, at = 0, "", 1
    while at < len(lines) and (column := (PRODUCT if sign == "*" else COLUMN).fullmatch(lines[at])):
        place = "uthkwx".index(column[1])
        assert place == len(written), "columns go from the right, none left out"
        assert int(column[2]) == first // 10**place % 10
        if sign == "*":
            assert int(column[3]) == second and int(column[4]) == int(column[2]) * second and int(column[5]) == over
            assert 10 * int(column[6]) + int(column[7]) == int(column[4]) + over
        else:
            assert column[3] == sign and int(column[4]) == second // 10**place % 10 and int(column[5]) == over
            value = int(column[2]) + (1 if sign == "+" else -1) * (int(column[4]) + over)
            assert value == int(column[7]) + (10 if sign == "+" else -10) * int(column[6])
        over, written, at = int(column[6]), column[7] + written, at + 1
    assert lines[at] == f"{over}{written}"
    result = first * second if sign == "*" else first + second if sign == "+" else first - second
    assert int(lines[at]) == result
    return result, lines[at + 1 :]


@pytest.mark.parametrize("family", ["addition_subtraction", "multiplication", "two_step"])
def test_columns_are_right_and_end_in_the_answer(family):
    for index in range(500):
        task = draw(family, f"columns/{index}", test=False)
        lines = think(task, "en").split("\n")
        result, lines = read_operation(lines)
        while lines:
            assert unplaced(re.match(PLACED, lines[0])[0]) == result, "the second step starts from the first result"
            result, lines = read_operation(lines)
        assert str(result) == answer(task, "en")


def test_the_steps_of_a_story_are_those_of_the_story():
    """The stories in figures, written a second time here."""
    meaning = {
        "gain_loss": lambda a, b, c: a + b - c,
        "loss_gain": lambda a, b, c: a - b + c,
        "boxes_gain": lambda a, b, c: a * b + c,
        "boxes_loss": lambda a, b, c: a * b - c,
    }
    for index in range(500):
        task = draw("two_step", f"story/{index}", test=False)
        assert answer(task, "fi") == str(meaning[task.variant](*task.numbers))
        assert min(task.numbers) >= 2 and int(answer(task, "fi")) >= 1


def test_comparison_looks_at_lengths_then_at_digits():
    for index in range(500):
        task = draw("comparison", f"compare/{index}", test=False)
        first, second = task.numbers
        head, lengths, *digits = think(task, "ja").split("\n")
        assert head == f"{placed(first)},{placed(second)}"
        assert lengths[:-1] == f"{len(str(first))},{len(str(second))}"
        signs = [line[-1] for line in (lengths, *digits)]
        assert set(signs[:-1]) <= {"="} and signs[-1] == ("<" if first < second else ">")
        assert answer(task, "ja") == str(max(first, second))


def test_days_between_agrees_with_the_calendar_of_python():
    for index in range(500):
        task = draw("days_between", f"days/{index}", test=False)
        year, month, day, last_month, last_day = task.numbers
        days = (date(year, last_month, last_day) - date(year, month, day)).days
        assert answer(task, "is") == str(days) and days >= 2
        lines = think(task, "is").split("\n")[1:]
        while lines:
            if match := re.fullmatch(r"(\d{4})-(\d\d):(\d\d)", lines[0]):
                assert int(match[3]) == month_days(int(match[1]), int(match[2]))
                lines = lines[1:]
            result, lines = read_operation(lines)
        assert result == days


def test_units_agree_with_their_definition():
    size = {"m": 1000, "cm": 10, "km": 10**6, "mm": 1, "kg": 1000, "g": 1, "l": 10, "dl": 1, "h": 3600, "min": 60, "s": 1, "week": 7, "day": 1}
    for index in range(500):
        task = draw("units", f"units/{index}", test=False)
        source, target = task.variant.split(">")
        assert int(answer(task, "ko")) * size[target] == task.numbers[0] * size[source]
        assert task.numbers[0] % 10 != 1, "21 needs a singular in some languages"
        operations = [line for line in think(task, "ko").split("\n") if re.fullmatch(PLACED + r"\*\d", line)]
        assert len(operations) == (task.variant in ("h>min", "min>s", "week>day"))


def test_thinking_is_short_and_the_same_in_every_language():
    """Longest allowed, in characters: one digit or sign is one token, so these are token counts too."""
    longest = {"addition_subtraction": 64, "multiplication": 75, "comparison": 70, "two_step": 140, "units": 50, "days_between": 130}
    for position, family in enumerate(FAMILIES):
        for item in range(50):
            task = draw(family, f"length/{item}", test=False)
            texts = {think(task, language) for language in LANGUAGES}
            if family in longest:
                assert len(texts) == 1 and len(texts.pop()) <= longest[family], (family, task)
            assert not any(text.endswith("\n") or "<" + "think" in text for text in texts), position


def test_thinking_of_a_whole_problem():
    found = problem(0, 3 * 9)  # English, the fourth family
    assert found.family == "addition_subtraction" and found.language == "en"
    assert read_operation(found.thinking.split("\n"))[0] == int(found.answer)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_place_of_a_spelled_number_has_its_turn(language):
    for number in (*range(120), *range(120, 10_000, 37)):
        marks = [part.partition("=")[0] for part in think(Task("number_words", "", "to_words", (number,)), language).splitlines()[1].split(",")]
        digits = {mark[index]: mark[index + 1] for mark in marks for index in range(0, len(mark), 2)}
        assert placed(number) == "".join(place + digits[place] for place in "khtu" if place in digits)
        assert len(digits) == len(str(number))


def test_practice_has_more_round_numbers_than_tests_and_none_of_theirs():
    practised = [draw("number_words", f"a/{index}", test=False) for index in range(600)]
    tested = [draw("number_words", f"a/{index}", test=True) for index in range(600)]
    assert not {task.key.partition(">")[0] for task in practised} & {task.key.partition(">")[0] for task in tested}
    rounder, plain = (sum(task.numbers[0] % 10 == 0 and task.numbers[0] % 100 > 10 for task in tasks) for tasks in (practised, tested))
    assert rounder > 1.5 * plain
