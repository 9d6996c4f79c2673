"""What a language must bring: the fields every module of this folder fills.

Templates are `str.format` texts. Fields: {n} a number in digits, {w} the same in words; {date} and {later} ISO dates, {written} a date
in words; {a} {b} {c} numbers; {name} and {owner} a person; {thing}, {object}, {topic}, {counter}, {particle} a thing to count; {source}, {target},
{amount}, {unit} of a conversion. Numbers that stand beside a noun are never 1, and nouns are given in the form that follows a number,
so that no template has to inflect.
"""

from __future__ import annotations

from dataclasses import dataclass

Templates = tuple[str, ...]


@dataclass(frozen=True)
class Thing:
    """Something to count: `noun` as it follows a number or "how many", and its counter in Japanese, Korean, Chinese.

    Korean also needs `object` (with 를 or 을), `topic` (with 는 or 은) and `particle` (가 or 이, after the counter).
    """

    noun: str
    counter: str = ""
    object: str = ""
    topic: str = ""
    particle: str = ""


@dataclass(frozen=True)
class Conversion:
    """`source`: the given amount with its {n}, as a question says it; `target`: the asked unit, likewise.

    `amount` and `unit` are the same two on their own, where that differs: Korean 5km는 and 5km, Icelandic margir metrar and metrar.
    """

    source: str
    target: str
    amount: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Phrases:
    number_to_words: Templates
    words_to_number: Templates
    months: tuple[str, ...]
    date: str  # {day} {month} {year}
    date_to_written: Templates
    date_to_iso: Templates
    comparison: Templates
    addition: Templates
    subtraction: Templates
    multiplication: Templates
    stories: dict[str, Templates]
    names: tuple[str, ...]
    owners: tuple[str, ...]  # the case of "X has": Finnish Annalla; elsewhere the name itself
    things: tuple[Thing, ...]
    units: Templates
    conversions: dict[str, Conversion]
    days_between: Templates
    bought_on: str  # a sentence of fact: {written} {name} {a} {thing}
    counting: str  # introduces a row of numbers: {row}
