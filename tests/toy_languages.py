"""Languages that nobody speaks, for tests that tell languages apart: words by a random bigram model over letters."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

LETTERS = "abdefgiklmnoprstuvåäö"


@dataclass(frozen=True)
class Invented:
    """A language: its words, and documents of them by number."""

    seed: int
    words: tuple[str, ...]

    def document(self, number: int, num_words: int = 120) -> str:
        draw = random.Random(f"{self.seed}/{number}")
        return " ".join(draw.choice(self.words) + (".\n" if draw.random() < 0.1 else "") for _ in range(num_words))


@cache
def invented(seed: int, close_to: int | None = None) -> Invented:
    """The language of a seed; four of five words are those of `close_to`, where that is given."""
    draw = random.Random(seed)
    follows = {letter: draw.sample(LETTERS, 4) for letter in LETTERS}
    words = []
    for _ in range(400):
        word = draw.choice(LETTERS)
        for _ in range(draw.randrange(1, 8)):
            word += draw.choice(follows[word[-1]])
        words.append(word)
    if close_to is not None:
        words[:320] = invented(close_to).words[:320]
    return Invented(seed, tuple(words))
