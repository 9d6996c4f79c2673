"""Whether a checkpoint knows the languages it is said to know, or any at all, before weeks are spent on it.

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
    """Raise RunError where the checkpoint expects text in a language of `start.languages` worse than chance does.

    Where none is named any may be new to it, but not all that a corpus of several has: that is refused, and a single one is said.
    """
    named = run.recipe.start.languages
    held_out = [part for part in read_held_out(run.path("corpus"), CHECKED_BYTES, run.seed) if not named or part.language in named]
    if not held_out:
        return
    decoder, tokenizer = load_starting(start, run.machine.device)
    chance = math.log2(decoder.config.vocabulary_size)
    scores = by_language(score_shards(decoder, tokenizer, held_out, run.recipe.train.context), held_out)
    bits = {language: float(one.bits_D.sum() / max(1, one.tokens_D.sum())) for language, one in scores.items()}
    strange = {language: value for language, value in bits.items() if not value <= chance + ALLOWED_BITS}
    if len(strange) == len(bits) > 1 and not named:
        raise RunError(
            f"{start} needs {min(strange.values()):.1f} bits or more for a token of text in each of the {len(bits)} languages of the corpus, and chance needs "
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
