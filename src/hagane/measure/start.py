"""Whether a checkpoint knows the languages it is said to know, or any at all, before weeks are spent on it.

Ids and shapes of a tokenizer may all fit the weights beside it although it was made for other ones; what the weights expect of text tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from hagane.corpus.embedded.python_stdlib import python_documents
from hagane.engine.load import load_starting
from hagane.errors import RunError
from hagane.evaluate.bits_per_byte import HeldOut, by_language, cut, read_held_out, score_shards
from hagane.folder import Run

CHECKED_BYTES = 4_000  # of each shard: bits per token to within a few tenths
ALLOWED_BITS = 1.0  # over chance: initial weights are a little worse than it


def refuse_strangers(run: Run, start: Path) -> None:
    """Raise RunError where the checkpoint expects text in a language of `start.languages` worse than chance does.

    Where none is named any may be new to it, but not all that a corpus of several has: that is refused. A single one is said, and refused where English and
    code, of which every Python has some, are as strange to it.
    """
    named = run.recipe.start.languages
    held_out = [part for part in read_held_out(run.path("corpus"), CHECKED_BYTES, run.seed) if not named or part.language in named]
    if not held_out:
        return
    decoder, tokenizer = load_starting(start, run.machine.device)
    chance = math.log2(decoder.config.vocabulary_size)

    def bits_of(parts: Sequence[HeldOut]) -> tuple[dict[str, float], dict[str, float]]:
        """Bits per token by language, and those beyond chance."""
        scores = by_language(score_shards(decoder, tokenizer, parts, run.recipe.train.context), parts)
        bits = {language: float(one.bits_D.sum() / max(1, one.tokens_D.sum())) for language, one in scores.items()}
        return bits, {language: value for language, value in bits.items() if not value <= chance + ALLOWED_BITS}

    bits, strange = bits_of(held_out)
    if strange and len(bits) == 1 and not named:
        others, strange_too = bits_of(_usual_text())
        if len(strange_too) == len(others):
            bits, strange = bits | others, strange | strange_too
    if len(strange) == len(bits) > 1 and not named:
        raise RunError(
            f"{start} needs {min(strange.values()):.1f} bits or more for a token of text in each of {', '.join(bits)}, and chance needs "
            f"{chance:.1f}: tokenizer.json and weights do not belong together, or nothing was learned. Fetch both again, from one place."
        )
    for language, value in strange.items():
        found = f"{start} needs {value:.1f} bits for a token of text in {language}, and chance needs {chance:.1f}"
        if named:
            raise RunError(
                f"{found}: tokenizer.json is that of another model, or it does not know the language. Fetch it again, "
                f"or take {language} out of start.languages."
            )
        run.say(f"plan       {found}: the language is new to it, or tokenizer.json is that of another model")


def _usual_text() -> list[HeldOut]:
    """Text that hardly any model was never shown: English and code of the running Python."""
    found: dict[str, list[str]] = {}
    for record in islice(python_documents(), 200):
        found.setdefault(record["lang"], []).append(record["text"])
    return [HeldOut(language, language, tuple(cut(texts, CHECKED_BYTES))) for language, texts in found.items()]
