"""Problems in nine languages: statement, worked thinking, answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from hagane.corpus.embedded.draws import Draws
from hagane.corpus.embedded.numbers import all_words
from hagane.corpus.embedded.phrases import PHRASES
from hagane.corpus.embedded.tasks import FAMILIES, LANGUAGES, Task, draw
from hagane.corpus.embedded.thinking import think


@dataclass(frozen=True, slots=True)
class Problem:
    family: str
    language: str
    key: str
    statement: str
    thinking: str
    answer: str


def written_date(language, year, month, day):
    phrases = PHRASES[language]
    return phrases.date.format(day=day, month=phrases.months[month - 1], year=year)


def render(task: Task, language: str, draws: Draws) -> Problem:
    p = PHRASES[language]
    n = task.numbers
    thinking, answer = think(task, language)
    f = task.family
    if f == "number_words":
        w = all_words(language)[n[0]]
        if task.variant == "to_words":
            s, answer = draws.pick(p.number_to_words).format(n=n[0]), w
        else:
            s = draws.pick(p.words_to_number).format(w=w)
    elif f == "dates":
        if task.variant == "to_written":
            s = draws.pick(p.date_to_written).format(date=answer)
            answer = written_date(language, *n)
        else:
            s = draws.pick(p.date_to_iso).format(written=written_date(language, *n))
    elif f in ("comparison", "multiplication"):
        s = draws.pick(getattr(p, f)).format(a=n[0], b=n[1])
    elif f == "addition_subtraction":
        s = draws.pick(p.subtraction if task.variant == "minus" else p.addition).format(a=n[0], b=n[1])
    elif f == "two_step":
        i = draws.below(len(p.names))
        t = draws.pick(p.things)
        s = draws.pick(p.stories[task.variant]).format(a=n[0], b=n[1], c=n[2], name=p.names[i], owner=p.owners[i], thing=t.noun, counter=t.counter, object=t.object, topic=t.topic, particle=t.particle)
    elif f == "units":
        c = p.conversions[task.variant]
        source = c.source.format(n=n[0])
        s = draws.pick(p.units).format(source=source, target=c.target, unit=c.unit.format(n=n[0]) if c.unit else "")
    else:
        y, m, d, m2, d2 = n
        s = draws.pick(p.days_between).format(date=f"{y}-{m:02}-{d:02}", later=f"{y}-{m2:02}-{d2:02}")
    return Problem(f, language, task.key, s, thinking, answer)


def problem(seed: int, index: int, split: str = "train", families: Sequence[str] = FAMILIES, languages: Sequence[str] = LANGUAGES) -> Problem:
    language = languages[index % len(languages)]
    family = families[index // len(languages) % len(families)]
    name = f"{seed}/{split}/{index}"
    return render(draw(family, name, split == "test"), language, Draws(name + "/p"))


def problems(seed, split="train", families=FAMILIES, languages=LANGUAGES):
    index = 0
    while True:
        yield problem(seed, index, split, families, languages)
        index += 1
