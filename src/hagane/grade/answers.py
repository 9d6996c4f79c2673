"""Strict rules for answers: numbers by value, words by form, problems of the generator by their own rule.

Tolerant of how a thing is written (digit grouping, full-width digits, letter case, a final full stop), strict about what it
says: nothing may stand beside the answer.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

from hagane.corpus.embedded import Problem, same_answer
from hagane.engine.reply import Reply

_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([ ,.'\u00a0\u2009\u202f])\d{3})(?:\1\d{3})*")
_MINUS = str.maketrans({"−": "-", "–": "-", "－": "-"})


def is_right(problem: Problem, reply: Reply) -> bool:
    """Whether a reply answers a problem of the generator: its thinking and its turn have ended, and the rest is the answer."""
    if reply.answer is None or not reply.finished:
        return False
    return bool(same_answer(problem.family, problem.language, problem.answer, reply.answer))


def readings(text: str) -> set[Decimal]:
    """The numbers that a text may mean: "1.234" is 1234 to some and 1.234 to others. Empty where it is not one number alone."""
    text = unicodedata.normalize("NFKC", text).translate(_MINUS).strip().removesuffix(".").removeprefix("+")
    sign, digits = (-1, text[1:].lstrip()) if text.startswith("-") else (1, text)
    values = set()
    if _GROUPED.fullmatch(digits):
        values.add(sign * Decimal(re.sub(r"\D", "", digits)))
    try:
        if re.fullmatch(r"\d+(?:[.,]\d+)?", digits):
            values.add(sign * Decimal(digits.replace(",", ".")))
    except InvalidOperation:  # digits of a script that Decimal does not read
        pass
    return values


def same_number(expected: str, given: str, tolerance: float = 0.0) -> bool:
    """Whether `given` can be read as the number `expected`, up to a relative `tolerance` (0: exactly)."""
    wanted = readings(expected)
    allowed = Decimal(str(tolerance))
    return any(abs(value - one) <= allowed * abs(one) for one in wanted for value in readings(given))


def same_words(expected: str, given: str) -> bool:
    """Whether two texts are the same but for letter case, spaces, Unicode form and a final full stop."""
    return _folded(expected) == _folded(given)


def _folded(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.split()).rstrip(".。").rstrip()
