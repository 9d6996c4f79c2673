"""Number words for 0..9,999 in nine languages, and back.

One canonical form per language, so that a number has exactly one spelling and a spelling one number. Where usage is
free the choice is: English without "and"; Chinese 两 before 千 and 二 elsewhere; Swedish and Norwegian "ett/en" as in
plain counting; Icelandic masculine ones (einn, tveir, ...) with neuter multipliers (tvö hundruð) and "og" before the
last part; German "einhundert", "eintausend"; Finnish as one word. `parse` also reads the other common spellings.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from hagane.corpus.embedded.number_tables import TABLES, Table

LIMIT = 10_000


def words(number: int, language: str) -> str:
    """The canonical spelling of `number` (0 <= number < 10,000). Raises ValueError outside that range."""
    if not 0 <= number < LIMIT:
        raise ValueError(f"{number} is outside 0..{LIMIT - 1}")
    return all_words(language)[number]


@cache
def all_words(language: str) -> tuple[str, ...]:
    """Spellings of 0..9,999 in order: a table, since tens of thousands of problems read it."""
    table = TABLES[language]
    return tuple(_spell(number, table) for number in range(LIMIT))


def _spell(number: int, table: Table) -> str:
    if number < 100:
        return table.below_100[number]
    thousands, hundreds, rest = number // 1000, number // 100 % 10, number % 100
    parts = []
    if thousands:
        parts.append(table.thousands[thousands])
    if hundreds:
        parts.append(table.hundreds[hundreds])
    if rest:
        parts.append(table.rest_after_hundreds[rest])
    if table.zero_mark and _has_gap(number):
        parts[-1] = table.zero_mark + parts[-1]
    if table.last_joiner and len(parts) > 1:
        # Icelandic joins only before the last word of the number: "sjötíu og tveir" has its joiner already
        joiner = table.last_joiner if not (rest and table.last_joiner.strip() in parts[-1].split()) else " "
        return " ".join(parts[:-1]) + joiner + parts[-1]
    if table.rest_joiner and rest:
        return table.joiner.join(parts[:-1]) + table.rest_joiner + parts[-1]
    return table.joiner.join(parts)


def _has_gap(number: int) -> bool:
    """A zero digit between two non-zero ones, which Chinese speaks once (4002, 4020, 402; not 4200, 4300)."""
    return "0" in str(number).rstrip("0")


@dataclass(frozen=True)
class _Grammar:
    ones: dict[str, int]
    below_100: dict[str, int]
    hundred: re.Pattern[str]
    thousand: re.Pattern[str]
    joiners: tuple[str, ...]


@cache
def _grammar(language: str) -> _Grammar:
    table = TABLES[language]
    below = {squash(text): number for number, text in enumerate(table.below_100)}
    below |= {squash(text): number for number, text in enumerate(table.rest_after_hundreds) if text}
    variants = {squash(text): squash(canonical) for text, canonical in table.variants.items()}
    below |= {text: below[canonical] for text, canonical in variants.items() if canonical in below}
    for text, canonical in variants.items():  # a variant of a one is also heard inside a compound: tjugo + en, tjue + én
        below |= {spelling[: -len(canonical)] + text: number for spelling, number in list(below.items()) if number > 20 and spelling.endswith(canonical)}
    ones = {spelling: number for spelling, number in below.items() if 1 <= number <= 9}
    ones |= {squash(text): number for number, text in enumerate(table.multipliers) if text}
    return _Grammar(ones, below, re.compile(table.hundred), re.compile(table.thousand), tuple(squash(text) for text in table.joiners_read))


def parse(text: str, language: str) -> int | None:
    """The number a spelling stands for, or None where it is not one. Case, spaces and hyphens do not matter."""
    grammar = _grammar(language)
    rest, value = squash(text), 0
    if not rest:
        return None
    for pattern, size in ((grammar.thousand, 1000), (grammar.hundred, 100)):
        match = pattern.search(rest)
        if match is None:
            continue
        multiplier = _without_joiner(rest[: match.start()], grammar.joiners) if value else rest[: match.start()]
        if multiplier and multiplier not in grammar.ones:
            return None
        value += size * grammar.ones.get(multiplier, 1)
        rest = rest[match.end() :]
    if not value:
        return grammar.below_100.get(rest)
    if not rest:
        return value
    rest = _without_joiner(rest, grammar.joiners)
    below = grammar.below_100.get(rest)
    return value + below if below else None  # "four thousand zero" is no number


def _without_joiner(text: str, joiners: tuple[str, ...]) -> str:
    for joiner in joiners:
        if text.startswith(joiner) and len(text) > len(joiner):
            return text[len(joiner) :]
    return text


def squash(text: str) -> str:
    """Lower case, NFKC, without spaces and hyphens: what counts when two spellings are compared."""
    return re.sub(r"[\s\-\u00ad\u2010\u2011]+", "", unicodedata.normalize("NFKC", text).lower())


def parts(number: int, language: str) -> tuple[str, ...]:
    spelling = words(number, language)
    table = TABLES[language]
    digits = [int(d) for d in f"{number:04}"]
    below = number % 100
    ten = table.below_100[below - below % 10]
    pieces = {}
    rest = spelling
    for place, ready in (("k", table.thousands[digits[0]]), ("h", table.hundreds[digits[1]])):
        d = digits["kh".index(place)]
        if d:
            end = rest.index(ready) + len(ready)
            pieces[place], rest = rest[:end], rest[end:]
        else:
            pieces[place] = ""
    order = "khtu"
    core = table.rest_after_hundreds[below - below % 10] if below >= 10 else ""
    if 10 < below < 20 and not (core and rest.endswith(table.below_100[below % 10]) and language in ("ja", "ko", "zh")):
        pieces["t"], pieces["u"] = "", rest
    elif language == "de" and below > 20 and below % 10:
        pieces["u"], pieces["t"] = rest[: -len(ten)], ten
        order = "khut"
    elif below % 10 == 0:
        pieces["t"], pieces["u"] = (rest, "") if below else ("", rest)
    elif core and core in rest:
        end = rest.index(core) + len(core)
        pieces["t"], pieces["u"] = rest[:end], rest[end:]
    else:
        pieces["t"], pieces["u"] = "", rest
    return tuple(f"{p}{digits['khtu'.index(p)]}{pieces[p]}" for p in order)
