"""Pretraining text from the train split of the generator: worked problems, number tables, counting, dates, sentences in two languages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypedDict

from hagane.corpus.embedded.draws import Draws
from hagane.corpus.embedded.numbers import LIMIT, all_words
from hagane.corpus.embedded.phrases import PHRASES
from hagane.corpus.embedded.problems import PRACTICE, held_out_tasks, iso, problem, render, written_date
from hagane.corpus.embedded.tasks import FAMILIES, LANGUAGES, any_day, draw, is_test

LICENSE = "Apache-2.0"


class Record(TypedDict):
    """One document of a corpus."""

    id: str
    text: str
    lang: str
    source: str
    license: str


def documents(seed: int, language: str, num_bytes: int) -> Iterator[Record]:
    """Documents in `language` (a few hundred bytes to two kilobytes each) until at least `num_bytes` of UTF-8 are written."""
    written, index = 0, 0
    while written < num_bytes:
        draws = Draws(f"document/{seed}/{language}/{index}")
        text = draws.pick(_KINDS)(f"{seed}/{index}", language, draws)
        yield {"id": f"problems/{language}/{seed}/{index}", "text": text, "lang": language, "source": "problems", "license": LICENSE}
        written += len(text.encode())
        index += 1


def _worked(name: str, language: str, draws: Draws) -> str:
    """Ten problems with their solutions, families as often as in practice."""
    first = draws.below(10**9)
    found = [problem(first, index, "train", PRACTICE, (language,)) for index in range(first, first + 10)]
    return "\n\n".join(f"{item.statement}\n{item.thinking}\n{item.answer}" for item in found) + "\n"


def _number_table(name: str, language: str, draws: Draws) -> str:
    spelled = all_words(language)
    numbers = [draw("number_words", f"{name}/{language}/table/{line}", test=False).numbers[0] for line in range(24)]
    return "".join(f"{number} = {spelled[number]}\n" if draws.below(2) else f"{spelled[number]} = {number}\n" for number in numbers)


def _counting(name: str, language: str, draws: Draws) -> str:
    spelled, lines = all_words(language), []
    for _ in range(6):
        step = draws.pick((1, 1, 1, 2, 5, 10, 100, 1000))
        start = draws.below(min(LIMIT, 10 * step * draws.pick((2, 10, 100))))
        row = [number for number in range(start, min(LIMIT, start + 8 * step), step) if not is_test(f"number_words:{number}")]
        lines.append(PHRASES[language].counting.format(row=", ".join(spelled[number] for number in row)) if row else "")
    return "\n".join(line for line in lines if line) + "\n"


def _facts(name: str, language: str, draws: Draws) -> str:
    """Dates in both forms, and sentences in which somebody buys something on a day."""
    lines = []
    for line in range(6):
        day = draw("dates", f"{name}/{language}/facts/{line}", test=False).numbers
        lines += [f"{iso(*day)} = {written_date(language, *day)}", _bought(language, Draws(f"{name}/{language}/bought/{line}"))]
    return "\n".join(lines) + "\n"


def _bought(language: str, draws: Draws) -> str:
    phrases, day, thing, person = PHRASES[language], any_day(draws), draws.below(5), draws.below(5)
    named = phrases.things[thing]
    return phrases.bought_on.format(
        written=written_date(language, day.year, day.month, day.day),
        name=phrases.names[person],
        a=draws.between(2, 999),
        thing=named.noun,
        counter=named.counter,
        object=named.object,
    )


def _two_languages(name: str, language: str, draws: Draws) -> str:
    """The same sentences in this language and in another one."""
    other = draws.pick([code for code in LANGUAGES if code != language])
    lines = []
    for line in range(5):
        task = draw(draws.pick(FAMILIES), f"{name}/{language}/pair/{line}", test=False)
        pair = [render(task, code, Draws(f"{name}/{language}/pair/{line}/phrase")).statement for code in (language, other)]
        fact = [_bought(code, Draws(f"{name}/{language}/pair/{line}/fact")) for code in (language, other)]
        lines.append("\n".join(f"{code}: {text}" for texts in (pair, fact) for code, text in zip((language, other), texts)))
    return "\n\n".join(lines) + "\n"


# by how often a kind is drawn
_KINDS: tuple[Callable[[str, str, Draws], str], ...] = (*([_worked] * 7), _number_table, _number_table, _counting, _facts, _two_languages)


def parallel_sentences(count: int) -> list[dict[str, str]]:
    """`count` held-out sentences, each with the same meaning in all nine languages: language -> sentence.

    Statements of problems of the test split, families in turn; every fourth one a sentence of fact instead.
    """
    tasks = {family: held_out_tasks(family, -(-count // len(FAMILIES)), "parallel") for family in FAMILIES}
    sentences = []
    for index in range(count):
        task = tasks[FAMILIES[index % len(FAMILIES)]][index // len(FAMILIES)]
        if index % 4 == 3:
            sentences.append({language: _bought(language, Draws(f"parallel/fact/{index}")) for language in LANGUAGES})
        else:
            sentences.append({language: render(task, language, Draws(f"parallel/{index}")).statement for language in LANGUAGES})
    return sentences
