"""Number words for 0..9,999 in nine languages, and back.

One canonical form per language, so that a number has exactly one spelling and a spelling one number. Where usage is
free the choice is: English without "and"; Chinese 两 before 千 and 二 elsewhere; Swedish ett and Norwegian en as in plain
counting; Icelandic masculine ones (einn, tveir, ...) with neuter multipliers (tvö hundruð) and "og" before the last part;
German "einhundert", "eintausend"; Swedish, Finnish and German as one word. `parse` also reads the other common spellings.
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
    return tuple("".join(piece for _, _, piece in _pieces(number, table)) for number in range(LIMIT))


@cache
def all_places(language: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """For 0..9,999 the pieces of the spelling in spoken order, each with the places and digits it says: ("k4", "fyratusen"), ("t1u2", "tolv").

    The pieces in a row are the spelling; a zero inside a number is not spoken and has no piece.
    """
    return tuple(_marked(_pieces(number, TABLES[language])) for number in range(LIMIT))


def _marked(pieces: list[tuple[str, int, str]]) -> tuple[tuple[str, str], ...]:
    marked, silent = [], ""
    for place, digit, piece in pieces:
        if piece:
            marked.append(_one_place(f"{silent}{place}{digit}", piece))
            silent = ""
        elif digit:
            silent = f"{place}{digit}"  # the ten of a teen is said with its one
    return tuple(marked)


@cache
def _one_place(mark: str, piece: str) -> tuple[str, str]:
    """The pair, one object however many numbers have it: nine tables of all numbers took 50 MB, which training after them was then seen to use."""
    return mark, piece


def _pieces(number: int, table: Table) -> list[tuple[str, int, str]]:
    """(place, digit, piece of the spelling with its joiner) in spoken order; the pieces in a row are the spelling."""
    thousand, hundred, ten, one = number // 1000, number // 100 % 10, number // 10 % 10, number % 10
    tens = table.tens[ten] if ten else ""
    ones = table.ones[one] if one or not number else ""
    if ten == 1 and table.teens:
        tens, ones = "", table.teens[one]
    elif ten == 1 and number < 100 and table.ten_alone:
        tens = table.ten_alone
    order = [("k", thousand, table.thousands[thousand] if thousand else ""), ("h", hundred, table.hundreds[hundred] if hundred else "")]
    if table.ones_first and ten > 1 and one:
        order += [("u", one, table.ones_first[one]), ("t", ten, tens)]
    else:
        order += [("t", ten, tens), ("u", one, ones)]
    last = max(index for index, (_, _, word) in enumerate(order) if word)
    pieces: list[tuple[str, int, str]] = []
    spoken, below = False, False  # has anything been spoken yet: at all, below a hundred
    for index, (place, digit, word) in enumerate(order):
        joiner = ""
        if word and spoken:
            joiner = table.ones_joiner if below else table.joiner
            if index == last and table.last_joiner:
                joiner = table.last_joiner
            elif index >= 2 and not below and table.rest_joiner:
                joiner = table.rest_joiner
            elif index >= 2 and not below and table.zero_mark and (hundred == 0 or ten == 0):
                joiner = table.zero_mark
        pieces.append((place, digit, joiner + word))
        spoken = spoken or bool(word)
        below = below or (bool(word) and index >= 2)
    return pieces


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
    below = {squash(text): number for number, text in enumerate(all_words(language)[:100])}
    if table.ten_alone:
        below |= {table.tens[1] + (table.ones[one] if one else ""): 10 + one for one in range(10)}
    variants = {squash(text): squash(canonical) for text, canonical in table.variants.items()}
    below |= {text: below[canonical] for text, canonical in variants.items()}
    for text, canonical in variants.items():  # a variant is also heard inside a compound: tjugo + en, tjue + én
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
    below = grammar.below_100.get(_without_joiner(rest, grammar.joiners))
    return value + below if below else None  # "four thousand zero" is no number


def _without_joiner(text: str, joiners: tuple[str, ...]) -> str:
    for joiner in joiners:
        if text.startswith(joiner) and len(text) > len(joiner):
            return text[len(joiner) :]
    return text


def squash(text: str) -> str:
    """Lower case, NFKC, without spaces and hyphens: what counts when two spellings are compared."""
    return re.sub(r"[\s\-\u00ad\u2010\u2011]+", "", unicodedata.normalize("NFKC", text).lower())
