"""Right answers by problem family, language and mode.

Every problem is asked through the chat template, answered greedily, and graded strictly: a thinking part that never ends
and a turn that never ends are wrong, whatever they contain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from hagane.corpus.embedded import Problem
from hagane.engine.generate import generate
from hagane.engine.reply import decode, parse
from hagane.evaluate.facts import Cell, Mode, Sample, Unanswered
from hagane.evaluate.intervals import wilson
from hagane.grade.answers import is_right
from hagane.model.decoder import Decoder
from hagane.tokenizer.chat import ChatEncoder
from hagane.tokenizer.special import END_OF_TEXT, IM_END, THINK

ALL = "all"


@dataclass(frozen=True)
class Accuracy:
    """What one mode got right. `right[i]` belongs to problem i; the samples are the first problem of a cell, not chosen by result."""

    right: tuple[bool, ...]
    cells: tuple[Cell, ...]
    samples: tuple[Sample, ...]
    unanswered: Unanswered
    generated_tokens: int


def accuracy(decoder: Decoder, tokenizer: Tokenizer, problems: Sequence[Problem], mode: Mode, max_new_tokens: int = 256, batch_size: int = 256) -> Accuracy:
    """Ask all problems in one mode. `max_new_tokens` bounds thinking and answer together; an output cut off by it is wrong."""
    encoder, thinking = ChatEncoder(tokenizer), mode == "thinking"
    prompts = [encoder.prompt([{"role": "user", "content": problem.statement}], thinking) for problem in problems]
    stop_ids = [encoder.special[IM_END], encoder.special[END_OF_TEXT]]
    generated = generate(decoder, prompts, max_new_tokens, stop_ids, batch_size=batch_size)
    outputs = [decode(tokenizer, ids) for ids in generated]
    replies = [parse(output, thinking) for output in outputs]
    right = tuple(is_right(problem, reply) for problem, reply in zip(problems, replies, strict=True))
    shown = [f"{THINK}\n{output}" if thinking else output for output in outputs]
    unanswered = Unanswered(mode=mode, thinking_open=sum(reply.answer is None for reply in replies), unfinished=sum(not reply.finished for reply in replies))
    samples = choose_samples(problems, shown, right, mode)
    return Accuracy(right, cells(problems, right, mode), samples, unanswered, sum(map(len, generated)))


def cells(problems: Sequence[Problem], right: Sequence[bool], mode: str) -> tuple[Cell, ...]:
    """One cell per family and language, in the order in which they come."""
    total = Counter((problem.family, problem.language) for problem in problems)
    correct = Counter((problem.family, problem.language) for problem, is_right in zip(problems, right, strict=True) if is_right)
    return tuple(_cell(family, language, mode, correct[family, language], count) for (family, language), count in total.items())


def totals(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Sums per mode over everything, over languages (by family) and over families (by language)."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for cell in cells:
        for key in ((ALL, ALL, cell.mode), (cell.family, ALL, cell.mode), (ALL, cell.language, cell.mode)):
            pair = sums.setdefault(key, [0, 0])
            pair[0] += cell.correct
            pair[1] += cell.total
    # the whole first, then families, then languages
    ordered = sorted(sums, key=lambda key: (key[2], key[0] != ALL or key[1] != ALL, key[0] == ALL))
    return tuple(_cell(*key, *sums[key]) for key in ordered)


def _cell(family: str, language: str, mode: str, correct: int, total: int) -> Cell:
    low, high = wilson(correct, total)
    return Cell(family=family, language=language, mode=mode, correct=correct, total=total, low=low, high=high)


def choose_samples(problems: Sequence[Problem], outputs: Sequence[str], right: Sequence[bool], mode: Mode) -> tuple[Sample, ...]:
    """The first problem of each family in a language of its own; the other mode begins with another language."""
    families = list(dict.fromkeys(problem.family for problem in problems))
    languages = list(dict.fromkeys(problem.language for problem in problems))
    offset = 0 if mode == "thinking" else (len(languages) + 1) // 2
    first: dict[tuple[str, str], int] = {}
    for index, problem in enumerate(problems):
        first.setdefault((problem.family, problem.language), index)
    samples = []
    for number, family in enumerate(families):
        cell = (family, languages[(number + offset) % len(languages)])
        if cell in first:
            index = first[cell]
            one, output = problems[index], outputs[index]
            samples.append(
                Sample(mode=mode, language=one.language, family=family, prompt=one.statement, output=output, expected=one.answer, correct=right[index])
            )
    return tuple(samples)
