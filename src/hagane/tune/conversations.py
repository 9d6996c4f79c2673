"""Conversations made from generated problems: the statement asks, the answer comes with or without a worked thinking part."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tokenizers import Tokenizer

from hagane.corpus.embedded import FAMILIES, LANGUAGES, PRACTICE, problem
from hagane.corpus.pool import Progress, count, run_in_order, silent
from hagane.errors import RecipeError
from hagane.recipe.schema import TuneSettings
from hagane.tokenizer.chat import ChatEncoder, Conversation, EncodedBatch

BATCH = 2000  # conversations that a process makes at a time
PROBLEM_BYTES = 150  # of one, about: progress is shown in bytes


def problem_conversations(settings: TuneSettings, seed: str, thinking: bool, source: str, learn_prompt: bool = False, first: int = 0) -> Iterator[Conversation]:
    """Unlimited, from number `first` on; only problems of the training split. Raises RecipeError for a language or family the generator does not know."""
    languages, families = known_problems(settings)
    number = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=6).digest(), "big")
    # harder families come more often (PRACTICE); every family that is wanted comes
    practised = tuple(family for family in PRACTICE if family in families)
    for index in itertools.count(first):
        made = problem(number, index, "train", practised, languages)
        answer = {"role": "assistant", "content": made.answer}
        if thinking:
            answer["reasoning_content"] = made.thinking
        yield Conversation([{"role": "user", "content": made.statement}, answer], thinking, made.language, source, learn_prompt)


class Wanted(NamedTuple):
    """Generated conversations of one shard: which, and how they are learned."""

    seed: str
    shard: str
    thinking: bool
    learn_prompt: bool
    first: int
    num: int


def encoded_problems(
    wanted: Iterable[Wanted], settings: TuneSettings, tokenizer: Tokenizer, workers: int, progress: Progress = silent
) -> Iterator[EncodedBatch]:
    """The conversations as ids, in order: every process makes and encodes some of them, the same ones for any number of `workers`."""
    known_problems(settings)
    tasks = [one._replace(first=one.first + start, num=min(BATCH, one.num - start)) for one in wanted for start in range(0, one.num, BATCH)]
    arguments = (settings, tokenizer.to_str(), workers > 1)
    total = sum(task.num for task in tasks) * PROBLEM_BYTES
    yield from run_in_order(_encode, tasks, workers, what="problems", total=total, progress=progress, initialise=_prepare, arguments=arguments)


_prepared: tuple[TuneSettings, ChatEncoder] | None = None  # of this process


def _prepare(settings: TuneSettings, tokenizer: str, beside: bool) -> None:
    global _prepared
    if beside:  # the other processes have the other cores
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _prepared = settings, ChatEncoder(Tokenizer.from_str(tokenizer))


def _encode(wanted: Wanted) -> EncodedBatch:
    assert _prepared is not None
    settings, encoder = _prepared
    made = problem_conversations(settings, wanted.seed, wanted.thinking, wanted.shard, wanted.learn_prompt, wanted.first)
    (batch,) = encoder.batches(list(itertools.islice(made, wanted.num)), lambda conversation: conversation.source)
    count(wanted.num * PROBLEM_BYTES)
    return batch


def known_problems(settings: TuneSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Languages and families that tuning and evaluation use."""
    for wanted, known, name in ((settings.languages, LANGUAGES, "languages"), (settings.families, FAMILIES, "families")):
        unknown = [value for value in wanted if value not in known]
        if unknown:
            raise RecipeError(f"tune.{name} names {unknown[0]!r}; problems are made for: {', '.join(known)}.")
    return settings.languages or tuple(LANGUAGES), settings.families or tuple(FAMILIES)
