"""Problems in nine languages: statement, worked thinking, answer. Any problem is found by (seed, index) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hagane.corpus.embedded.draws import Draws
from hagane.corpus.embedded.numbers import all_words
from hagane.corpus.embedded.phrases import PHRASES
from hagane.corpus.embedded.tasks import DIVISORS, FACTORS, FAMILIES, LANGUAGES, Task, draw
from hagane.corpus.embedded.thinking import month_days, think

# Families as often as they need practice: words in nine languages share little, columns of digits share everything.
PRACTICE = ("number_words",) * 8 + ("comparison", "addition_subtraction", "two_step") * 2 + ("multiplication", "dates", "units", "days_between")


@dataclass(frozen=True, slots=True)
class Problem:
    """`key` is the same in every language; `thinking` has no tags and no final line break; `answer` is one short line."""

    family: str
    language: str
    key: str
    statement: str
    thinking: str
    answer: str


def problem(
    seed: int, index: int, split: Literal["train", "test"] = "train", families: Sequence[str] = FAMILIES, languages: Sequence[str] = LANGUAGES
) -> Problem:
    """The problem number `index` of an endless list: languages take turns, then families. A family named twice comes twice as often."""
    language = languages[index % len(languages)]
    family = families[index // len(languages) % len(families)]
    name = f"{seed}/{split}/{index}"
    return render(draw(family, name, split == "test"), language, Draws(f"{name}/phrase"))


def problems(
    seed: int, split: Literal["train", "test"] = "train", families: Sequence[str] = FAMILIES, languages: Sequence[str] = LANGUAGES
) -> Iterator[Problem]:
    """Problems 0, 1, 2, ... without end. Never one whose key `is_test` in the train split, and only such in the test split."""
    index = 0
    while True:
        yield problem(seed, index, split, families, languages)
        index += 1


def held_out_tasks(family: str, count: int, name: str) -> list[Task]:
    """`count` different held-out tasks of one family. Raises ValueError where the family has fewer."""
    tasks: dict[str, Task] = {}
    index = last_new = 0
    while len(tasks) < count:
        task = draw(family, f"{name}/{family}/{index}", test=True)
        if task.key not in tasks:
            tasks[task.key] = task
            last_new = index
        elif index - last_new > 1000:
            raise ValueError(f"{family} has only about {len(tasks)} held-out problems; {count} were asked for")
        index += 1
    return list(tasks.values())


def fixed_test(items_per_cell: int) -> list[Problem]:
    """`items_per_cell` held-out problems for every family and language, the same keys in all languages.

    Item by item, so that the first `72 * n` are again equal in families and languages.
    """
    tasks = {family: held_out_tasks(family, items_per_cell, "fixed") for family in FAMILIES}
    return [
        render(tasks[family][item], language, Draws(tasks[family][item].key)) for item in range(items_per_cell) for family in FAMILIES for language in LANGUAGES
    ]


def render(task: Task, language: str, draws: Draws) -> Problem:
    """A task in one language. The same `draws` choose the same phrasing, person and thing in every language."""
    return Problem(task.family, language, task.key, _statement(task, language, draws), think(task, language), answer(task, language))


def written_date(language: str, year: int, month: int, day: int) -> str:
    """A date as it is written in running text: 14 March 2023, 14. maaliskuuta 2023, 2023年3月14日."""
    phrases = PHRASES[language]
    return phrases.date.format(day=day, month=phrases.months[month - 1], year=year)


def answer(task: Task, language: str) -> str:
    """The one right answer: a number in digits, number words, or a date."""
    numbers = task.numbers
    match task.family, task.variant:
        case "number_words", "to_words":
            return all_words(language)[numbers[0]]
        case "number_words", _:
            return str(numbers[0])
        case "dates", "to_written":
            return written_date(language, *numbers)
        case "dates", _:
            return iso(*numbers)
        case "comparison", _:
            return str(max(numbers))
        case "addition_subtraction", variant:
            return str(numbers[0] - numbers[1] if variant == "minus" else numbers[0] + numbers[1])
        case "multiplication", _:
            return str(numbers[0] * numbers[1])
        case "two_step", story:
            a, b, c = numbers
            between = a * b if story.startswith("boxes") else a + b if story == "gain_loss" else a - b
            return str(between - c if story.endswith("loss") else between + c)
        case "units", conversion:
            return str(numbers[0] * FACTORS[conversion] if conversion in FACTORS else numbers[0] // DIVISORS[conversion])
    year, month, day, last_month, last_day = numbers
    return str(sum(month_days(year, between) for between in range(month, last_month)) - day + last_day)


def iso(year: int, month: int, day: int) -> str:
    return f"{year}-{month:02}-{day:02}"


def _statement(task: Task, language: str, draws: Draws) -> str:
    phrases, numbers = PHRASES[language], task.numbers
    match task.family, task.variant:
        case "number_words", "to_words":
            return draws.pick(phrases.number_to_words).format(n=numbers[0])
        case "number_words", _:
            return draws.pick(phrases.words_to_number).format(w=all_words(language)[numbers[0]])
        case "dates", "to_written":
            return draws.pick(phrases.date_to_written).format(date=iso(*numbers))
        case "dates", _:
            return draws.pick(phrases.date_to_iso).format(written=written_date(language, *numbers))
        case "comparison", _:
            return draws.pick(phrases.comparison).format(a=numbers[0], b=numbers[1])
        case "addition_subtraction", variant:
            return draws.pick(phrases.subtraction if variant == "minus" else phrases.addition).format(a=numbers[0], b=numbers[1])
        case "multiplication", _:
            return draws.pick(phrases.multiplication).format(a=numbers[0], b=numbers[1])
        case "two_step", story:
            return _story(story, language, draws, *numbers)
        case "units", conversion:
            names = phrases.conversions[conversion]
            source = names.source.format(n=numbers[0])
            bare = names.amount.format(n=numbers[0]) if names.amount else source
            return draws.pick(phrases.units).format(source=source, amount=bare, target=names.target, unit=names.unit or names.target)
    year, month, day, last_month, last_day = numbers
    return draws.pick(phrases.days_between).format(date=iso(year, month, day), later=iso(year, last_month, last_day))


def _story(story: str, language: str, draws: Draws, a: int, b: int, c: int) -> str:
    phrases = PHRASES[language]
    person = draws.below(len(phrases.names))
    thing = draws.pick(phrases.things)
    return draws.pick(phrases.stories[story]).format(
        a=a,
        b=b,
        c=c,
        name=phrases.names[person],
        owner=phrases.owners[person],
        thing=thing.noun,
        counter=thing.counter,
        object=thing.object,
        topic=thing.topic,
        particle=thing.particle,
    )
