"""Is an answer the expected one? Strict about the value, tolerant about how it is typed."""

from __future__ import annotations

import re
import unicodedata

from hagane.corpus.embedded.numbers import parse, squash

_GROUPED = re.compile(r"[0-9]{1,3}(?P<mark>[,.'’ \u00a0\u202f])[0-9]{3}(?:(?P=mark)[0-9]{3})*")
_SPACED = ("ja", "ko", "zh")  # spaces carry no meaning inside an answer


def same_answer(family: str, language: str, expected: str, given: str) -> bool:
    """Whether `given` says the same as `expected`.

    Ignored: outer white space, kind and number of inner spaces, case, full-width forms, a final full stop, thousands separators.
    For number words any correct spelling of the number counts (with or without "and", hyphens, gender). Anything more,
    such as a unit or a second number, is wrong.
    """
    wanted, got = normalise(expected, language), normalise(given, language)
    if wanted == got:
        return True
    if wanted.isdecimal():
        return got.isascii() and got.isdecimal() and bool(got) and int(wanted) == int(got) and not got.startswith("0")
    if family == "number_words":
        value = parse(expected, language)
        return value is not None and (squash(wanted) == squash(got) or parse(got, language) == value)
    return False


def normalise(text: str, language: str) -> str:
    """The text with everything removed that `same_answer` ignores."""
    text = unicodedata.normalize("NFKC", text).strip().lower()
    text = text.removesuffix(".").removesuffix("。").strip()
    if _GROUPED.fullmatch(text):
        return re.sub(r"[^0-9]", "", text)
    return re.sub(r"\s+", "" if language in _SPACED else " ", text)
