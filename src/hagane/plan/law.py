"""The loss law: what a model of N parameters trained on D tokens is expected to reach, in bits per byte, with its interval.

Without a law fitted on the user's own corpus the published constants are used and the interval is wide.
"""

from __future__ import annotations

import math

from hagane.recipe.types import Frozen


class Law(Frozen):
    """L(N, D) = E + A / N^alpha + B / D^beta in nats per token (Hoffmann et al. 2022, approach 3), N without embeddings."""

    irreducible: float = 1.69
    a: float = 406.4
    alpha: float = 0.34
    b: float = 410.7
    beta: float = 0.28
    relative_error: float = 0.25
    source: str = "published constants (Hoffmann et al. 2022), fitted on English web text at 1e18 FLOPs and more; not on this corpus"

    def nats_per_token(self, parameters: float, tokens: float) -> float:
        return self.irreducible + self.a / float(parameters**self.alpha) + self.b / float(tokens**self.beta)

    def bits_per_byte(self, parameters: float, tokens: float, bytes_per_token: float) -> float:
        """Loss per UTF-8 byte of text. `bytes_per_token` is the tokenizer's measured mean over the training mixture."""
        return self.nats_per_token(parameters, tokens) / math.log(2) / bytes_per_token


# Constants of the law are for a tokenizer of about 4.5 bytes per English token; text that is cut finer has easier tokens.
REFERENCE_BYTES_PER_TOKEN = 4.5


def expected_bits_per_byte(law: Law, parameters: float, tokens: float, bytes_per_token: float) -> tuple[float, float, float]:
    """Prediction, low and high. Tokens are converted to ones of the law's own tokenizer, so that bytes are what counts."""
    converted = tokens * bytes_per_token / REFERENCE_BYTES_PER_TOKEN
    value = law.bits_per_byte(parameters, converted, REFERENCE_BYTES_PER_TOKEN)
    return value, value * (1 - law.relative_error), value * (1 + law.relative_error)
