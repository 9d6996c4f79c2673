"""What is asked, before any language: a family, a variant and whole numbers, drawn from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date, timedelta
from typing import NamedTuple

from hagane.corpus.embedded.draws import Draws

FAMILIES = ("number_words", "dates", "comparison", "addition_subtraction", "multiplication", "two_step", "units", "days_between")
LANGUAGES = ("en", "ja", "ko", "zh", "sv", "nb", "is", "fi", "de")
STORIES = ("gain_loss", "loss_gain", "boxes_gain", "boxes_loss")
# conversion -> factor, or divisor of an amount that it divides
FACTORS = {"m>cm": 100, "km>m": 1000, "cm>mm": 10, "kg>g": 1000, "l>dl": 10, "h>min": 60, "min>s": 60, "week>day": 7}
DIVISORS = {"cm>m": 100, "m>km": 1000, "g>kg": 1000}
CONVERSIONS = (*FACTORS, *DIVISORS)

_LENGTHS = (1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4)  # digits of an operand: half of them have four
_TEST_SHARE = 20  # one identity in so many is held out


class Task(NamedTuple):
    """`identity` names the problem, `variant` the way it is asked (direction, order, story); both are the same in every language."""

    family: str
    identity: str
    variant: str
    numbers: tuple[int, ...]

    @property
    def key(self) -> str:
        return f"{self.family}:{self.identity}>{self.variant}"


def is_test(key: str) -> bool:
    """Whether a problem is held out (about 5 %): decided by its identity alone, so by neither its language nor how it is asked."""
    identity = key.partition(">")[0]
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little") % _TEST_SHARE == 0


def draw(family: str, name: str, test: bool) -> Task:
    """The first task of `family`, among those that the hash of `name` leads to, that is (or is not) held out."""
    attempt = 0
    while True:
        task = (_DRAW if test else _PRACTISED)[family](Draws(f"{name}/{attempt}"))
        if is_test(task.key) == test:
            return task
        attempt += 1


def _number(draws: Draws) -> int:
    digits = draws.pick(_LENGTHS)
    low = 10 ** (digits - 1) if digits > 1 else 0
    return draws.between(low, 10**digits - 1)


def _number_words(draws: Draws) -> Task:
    number = _number(draws)
    if number >= 10 and draws.below(5) == 0:  # teens have words of their own, and would be one number in ten
        number += draws.between(10, 19) - number % 100
    return Task("number_words", str(number), draws.pick(("to_words", "to_digits")), (number,))


def any_day(draws: Draws) -> date:
    """A day from 1900-01-01 to 2099-12-31."""
    return date(1900, 1, 1) + timedelta(days=draws.below(200 * 365 + 49))  # 1900..2099


def _dates(draws: Draws) -> Task:
    day = any_day(draws)
    return Task("dates", day.isoformat(), draws.pick(("to_written", "to_iso")), (day.year, day.month, day.day))


def _comparison(draws: Draws) -> Task:
    first, second = (draws.between(10 ** (digits - 1), 10**digits - 1) for digits in (draws.between(1, 6), draws.between(1, 6)))
    if draws.below(5) == 0:  # as long as each other and alike at the start: the hard case
        second = first - first % 10 ** draws.between(1, 3) + draws.below(10)
    if first == second:
        second += 1
    return Task("comparison", f"{max(first, second)},{min(first, second)}", "ab" if first > second else "ba", (first, second))


def _addition_subtraction(draws: Draws) -> Task:
    first, second = _number(draws), _number(draws)
    large, small = max(first, second), min(first, second)
    if draws.below(2):
        return Task("addition_subtraction", f"{large}+{small}", "ab" if first >= second else "ba", (first, second))
    return Task("addition_subtraction", f"{large}-{small}", "minus", (large, small))


def _multiplication(draws: Draws) -> Task:
    number, digit = _number(draws), draws.between(2, 9)
    return Task("multiplication", f"{max(number, digit)}*{min(number, digit)}", "ab", (number, digit))


def _two_step(draws: Draws) -> Task:
    story = draws.pick(STORIES)
    if story.startswith("boxes"):
        a, b = draws.between(12, 199), draws.between(2, 9)
        high = a * b - 2 if story == "boxes_loss" else 999
        numbers = (a, b, draws.between(2, min(high, 999)))
    else:
        a = draws.between(12, 999)
        b = draws.between(2, 999 if story == "gain_loss" else a - 2)
        c = draws.between(2, a + b - 2 if story == "gain_loss" else 999)
        numbers = (a, b, min(c, 999))
    return Task("two_step", f"{story}:{numbers[0]},{numbers[1]},{numbers[2]}", story, numbers)


def _units(draws: Draws) -> Task:
    conversion = draws.pick(CONVERSIONS)
    amount = draws.between(2, 99 if FACTORS.get(conversion) in (7, 60) else 999)
    if amount % 10 == 1:  # "21 hours" is a singular in Icelandic
        amount += 1
    amount *= DIVISORS.get(conversion, 1)
    return Task("units", f"{amount}:{conversion}".replace(">", "-"), conversion, (amount,))


def _days_between(draws: Draws) -> Task:
    first = any_day(draws)
    last = min(first + timedelta(days=draws.between(2, 45)), date(first.year, 12, 31))
    if last <= first + timedelta(days=1):  # too close to the end of the year: go back instead
        first = last - timedelta(days=draws.between(2, 45))
    return Task("days_between", f"{first}:{last}", "forward", (first.year, first.month, first.day, last.month, last.day))


_DRAW: dict[str, Callable[[Draws], Task]] = {
    "number_words": _number_words,
    "dates": _dates,
    "comparison": _comparison,
    "addition_subtraction": _addition_subtraction,
    "multiplication": _multiplication,
    "two_step": _two_step,
    "units": _units,
    "days_between": _days_between,
}


def _practised_number_words(draws: Draws) -> Task:
    """As asked in tests, but with more of what is rare and has words of its own: teens, round numbers, and words that begin a number (30, 26).

    Ten is both a teen and round, and where it is held out its word is only met inside longer numbers (410): every third teen is one.
    """
    task = _number_words(draws)
    number = task.numbers[0]
    if number >= 10:
        match draws.below(12):
            case 0 | 1:
                number += draws.pick((10, draws.between(10, 19), draws.between(10, 19))) - number % 100
            case 2 | 3 | 4:
                place = draws.pick((1, 1, 10, 100))
                number -= number // place % 10 * place
            case 5 | 6 | 7:
                number %= 100
    return Task(task.family, str(number), task.variant, (number,))


_PRACTISED = _DRAW | {"number_words": _practised_number_words}
