"""Whether a checkpoint knows the languages it is said to know, before weeks are spent on it.

Ids and shapes of a tokenizer may all fit the weights beside it although it was made for other ones; what the weights expect of text tells.
"""

from __future__ import annotations

import math
from pathlib import Path

from hagane.engine.load import load_starting
from hagane.errors import RunError
from hagane.evaluate.bits_per_byte import by_language, read_held_out, score_shards
from hagane.folder import Run

CHECKED_BYTES = 4_000  # of each shard: bits per token to within a few tenths
ALLOWED_BITS = 1.0  # over chance: initial weights are a little worse than it


def refuse_strangers(run: Run, start: Path) -> None:
    """Raise RunError where the checkpoint expects text in a language of `start.languages` worse than chance does."""
    languages = run.recipe.start.languages
    held_out = [part for part in read_held_out(run.path("corpus"), CHECKED_BYTES, run.seed) if part.language in languages]
    if not held_out:
        return
    decoder, tokenizer = load_starting(start, run.machine.device)
    chance = math.log2(decoder.config.vocabulary_size)
    for language, scores in by_language(score_shards(decoder, tokenizer, held_out, run.recipe.train.context), held_out).items():
        bits = float(scores.bits_D.sum() / max(1, scores.tokens_D.sum()))
        if not bits <= chance + ALLOWED_BITS:
            raise RunError(
                f"{start} needs {bits:.1f} bits for a token of text in {language}, and chance needs {chance:.1f}: tokenizer.json is that of another model, "
                f"or it does not know the language. Fetch it again, or take {language} out of start.languages."
            )
