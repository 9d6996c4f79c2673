"""Conversations made from generated problems: the statement asks, the answer comes with or without a worked thinking part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from hagane.corpus.embedded import FAMILIES, LANGUAGES, PRACTICE, problems
from hagane.errors import RecipeError
from hagane.recipe.schema import TuneSettings
from hagane.tokenizer.chat import Conversation


def problem_conversations(settings: TuneSettings, seed: str, thinking: bool, source: str, learn_prompt: bool = False) -> Iterator[Conversation]:
    """Unlimited; only problems of the training split. Raises RecipeError for a language or family the generator does not know."""
    languages, families = known_problems(settings)
    number = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=6).digest(), "big")
    # harder families come more often (PRACTICE); every family that is wanted comes
    for problem in problems(number, "train", tuple(family for family in PRACTICE if family in families), languages):
        answer = {"role": "assistant", "content": problem.answer}
        if thinking:
            answer["reasoning_content"] = problem.thinking
        yield Conversation([{"role": "user", "content": problem.statement}, answer], thinking, problem.language, source, learn_prompt)


def known_problems(settings: TuneSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Languages and families that tuning and evaluation use."""
    for wanted, known, name in ((settings.languages, LANGUAGES, "languages"), (settings.families, FAMILIES, "families")):
        unknown = [value for value in wanted if value not in known]
        if unknown:
            raise RecipeError(f"tune.{name} names {unknown[0]!r}; problems are made for: {', '.join(known)}.")
    return settings.languages or tuple(LANGUAGES), settings.families or tuple(FAMILIES)
