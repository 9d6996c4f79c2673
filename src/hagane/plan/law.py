"""The loss law: bits per byte that a model of N parameters and vocabulary V is expected to reach after D bytes of text, with its interval.

    L = E + A (n_active^(1-g) n_total^g)^-alpha + B v^kappa d^-beta

n are parameters without embedding and head in millions, d bytes of text in tens of millions (repeats count as `effective_bytes` says), v the
vocabulary over 2,048. The sum of the two powers is Hoffmann et al. 2022 (approach 3). Experts count by a geometric mean of active and total
parameters, the joint law of Ludziejewski et al. 2025 (arXiv 2502.05172) with its logarithmic interactions left out: a few small runs cannot tell them.
Loss per byte and text in bytes make vocabularies comparable (Tao et al. 2024, arXiv 2407.13623, normalise for the same purpose); what is left of the
vocabulary is that more rows are to be learned from the same text, kappa. No parameter of a law can make more parameters or more text predict a higher loss.

Without a law fitted on the user's own corpus the general law is used: one form through the small runs of a ladder over 26 languages and, at a scale that
no ladder reaches, through the law of Hoffmann et al. (benchmarks/general_law.py). A language that takes more tokens a byte than the others of a text has
more to be learned: its loss is that much higher. The interval is wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import Field, model_validator

from hagane.recipe.types import Frozen

PARAMETERS_UNIT, BYTES_UNIT, VOCABULARY_UNIT = 1e6, 1e7, 2048.0
EIGHTY = 1.2816  # standard deviations to either side that hold 80 % of a normal distribution
# How far a law of the right constants is from the truth for not being of the right form: this much of the loss for every factor e of compute beyond
# the largest run it was fitted on (benchmarks/plan_law.py measures it).
FORM_ERROR = 0.004
NOTHING_KNOWN = 8.0  # bits per byte of a model to which all bytes are alike: a law of a few thousand bytes of text would say more
# Krajewski et al. 2024 (arXiv 2402.07871): c + (g G^-gamma + a) N^-alpha + b D^-beta with g = 2.1, a = 18.1; G is `shapes.granularity_of`. Counted from their
# smallest model up: with a million active parameters finer experts bring nothing (docs/notebook.md, "Finer experts").
FINER, FINER_POWER, FINER_USUAL, FINER_FROM = 2.1 / 18.1, 0.58, 2.0, 25e6
REPEATS_HALF = 15.4  # R* of Muennighoff et al. 2023, "Scaling data-constrained language models": what repeats are worth decays with it


class Point(NamedTuple):
    """A model and its training: parameters without embedding and head, effective bytes of text, vocabulary; how fine its experts are (0 where it has none)."""

    active: float
    total: float
    bytes: float
    vocabulary: float
    granularity: float = 0.0

    @property
    def flops(self) -> float:
        """Training FLOPs of the body at 4 bytes a token: only for how far apart two points are."""
        return 6 * self.active * self.bytes / 4


class Constants(Frozen):
    """One set of constants. `share` is the weight g of total parameters."""

    irreducible: float = Field(gt=0)
    a: float = Field(ge=0)
    alpha: float = Field(gt=0)
    b: float = Field(ge=0)
    beta: float = Field(gt=0)
    share: float = Field(0.5, ge=0, le=1)
    kappa: float = 0.0

    def terms(self, point: Point, bytes_factor: float = 1.0) -> tuple[float, float, float]:
        """What remains, what more parameters would take away, what more text would: bits per byte."""
        log_n = (1 - self.share) * math.log(point.active / PARAMETERS_UNIT) + self.share * math.log(point.total / PARAMETERS_UNIT)
        log_d = math.log(max(1.0, point.bytes * bytes_factor) / BYTES_UNIT)
        log_v = math.log(point.vocabulary / VOCABULARY_UNIT)
        parameters = self.a * math.exp(-self.alpha * log_n) * _finer(point)
        return self.irreducible, parameters, self.b * math.exp(self.kappa * log_v - self.beta * log_d)

    def loss(self, point: Point) -> float:
        return sum(self.terms(point))


def _finer(point: Point) -> float:
    """What finer experts leave of the loss that more parameters would take away, over those of the runs that laws are fitted on."""
    if point.granularity <= FINER_USUAL or point.active < FINER_FROM:
        return 1.0
    power: float = point.granularity**-FINER_POWER
    usual: float = FINER_USUAL**-FINER_POWER
    return (1 + FINER * power) / (1 + FINER * usual)


class LanguageLaw(Frozen):
    """One language: its own weights of the three terms, for the fit and for every draw, and how uncertain its held-out text makes a measurement."""

    weights: tuple[float, float, float]
    draws: tuple[tuple[float, float, float], ...]
    noise: float = Field(ge=0, description="relative, one run")
    text_error: float = Field(ge=0, description="relative standard error of the held-out text that was scored")
    share: float = Field(gt=0, le=1, description="of the text read in the ladder")


class TextSize(Frozen):
    """A shard of the corpus as it was when the law was fitted, whole: what a plan made before reading can say of languages."""

    source: str
    language: str
    bytes: float = Field(ge=0)


class Range(Frozen):
    """What the law was fitted on: outside it extrapolates."""

    runs: int
    flops: float = Field(description="largest run, by `Point.flops`")
    bytes: tuple[float, float]
    parameters: tuple[float, float]
    vocabularies: tuple[int, ...]


class Law(Frozen):
    """Constants with draws of them that stand for their uncertainty, and where they come from."""

    format: int = 1
    corpus: str | None = Field(None, description="fingerprint of the text it was fitted on; None for the general law")
    paths: tuple[str, ...] = Field((), description="where that text was")
    fitted: str = Field("", description="date")
    constants: Constants
    draws: tuple[Constants, ...] = ()
    noise: float = Field(ge=0, description="relative standard deviation of one run about the law")
    own: float = Field(0.5, ge=0, le=1, description="weight of a language's own text against all text, in its data term")
    languages: dict[str, LanguageLaw] = Field(default_factory=dict)
    text: tuple[TextSize, ...] = ()
    fit: Range | None = None
    context: int | None = None
    optimizer: str | None = None
    pattern: str | None = Field(None, description="the kinds of layers of its models, by `kept.pattern_name`; None for the general law")
    source: str

    @model_validator(mode="after")
    def _check(self) -> Law:
        if self.corpus is not None and (len(self.draws) < 10 or self.fit is None):
            raise ValueError("a fitted law needs its draws and what it was fitted on")
        if any(len(language.draws) != len(self.draws) for language in self.languages.values()):
            raise ValueError("every language needs as many draws as the law")
        return self

    def predict(self, point: Point, *, same_text: bool = False) -> tuple[float, float, float]:
        """Bits per byte, mean over languages: value and 80 % interval. `same_text`: measured on the text that the ladder's runs were measured on."""
        text = 0.0 if same_text or not self.languages else math.sqrt(sum(law.text_error**2 for law in self.languages.values())) / len(self.languages)
        logs = [math.log(draw.loss(point)) for draw in self.draws]
        return self._interval(min(NOTHING_KNOWN, self.constants.loss(point)), logs, point, self.noise, text)

    def predict_language(self, language: str, point: Point, own_bytes: float, *, same_text: bool = False) -> tuple[float, float, float]:
        """Bits per byte of one language of the ladder, of which `own_bytes` (effective) of `point.bytes` are read."""
        law = self.languages[language]
        factor = self.own_factor(language, point, own_bytes)

        def loss(constants: Constants, weights: tuple[float, float, float]) -> float:
            return sum(weight * term for weight, term in zip(weights, constants.terms(point, factor), strict=True))

        logs = [math.log(loss(draw, weights)) for draw, weights in zip(self.draws, law.draws, strict=True)]
        return self._interval(loss(self.constants, law.weights), logs, point, law.noise, 0.0 if same_text else law.text_error)

    def own_factor(self, language: str, point: Point, own_bytes: float) -> float:
        """How the data term sees a language that is read more or less often than in the ladder."""
        return float((max(1.0, own_bytes) / (self.languages[language].share * max(1.0, point.bytes))) ** self.own)

    def _interval(self, value: float, logs: Sequence[float], point: Point, noise: float, text: float) -> tuple[float, float, float]:
        if not logs or self.fit is None:
            return value, value * math.exp(-EIGHTY * noise), value * math.exp(EIGHTY * noise)
        mean = sum(logs) / len(logs)
        spread = sum((log - mean) ** 2 for log in logs) / len(logs)
        beyond = FORM_ERROR * max(0.0, math.log(point.flops / self.fit.flops))
        width = EIGHTY * math.sqrt(spread + noise**2 + text**2 + beyond**2)
        return value, value * math.exp(-width), value * math.exp(width)

    def for_text(self, difficulty: Mapping[str, float]) -> Law:
        """The general law for languages of which a byte has so much more to be learned than usual, read in equal parts; a fitted law as it is."""
        if self.corpus is not None or not difficulty:
            return self
        mean, known = sum(difficulty.values()) / len(difficulty), self.constants
        constants = known.model_copy(update={"irreducible": known.irreducible * mean, "a": known.a * mean, "b": known.b * mean})
        noise = math.hypot(GENERAL_ERROR, LANGUAGE_ERROR)
        languages = {
            language: LanguageLaw(weights=(value / mean,) * 3, draws=(), noise=noise, text_error=0.0, share=1 / len(difficulty))
            for language, value in difficulty.items()
        }
        return self.model_copy(update={"constants": constants, "languages": languages})


def usual_bytes_per_token(vocabulary: int) -> float:
    """Bytes that a token stands for, mean over the 27 languages of the general law (benchmarks/general_law.py): 1.84 at 1,024, 3.02 at 16,384, at most 4.5."""
    return max(1.0, min(4.5, GENERAL_BYTES_PER_TOKEN + GENERAL_BYTES_PER_DOUBLING * math.log2(vocabulary / 4096)))


# Fitted by benchmarks/general_law.py on 43 runs (20 of a ladder over 26 languages, 23 shapes at equal time over ten of them; 0.1 to 18 million parameters,
# 0.7 to 35 MB) and on the loss of Hoffmann et al. 2022 from 1e19 to 1e23 FLOPs: one run is 4.7 % from it, the others and those 3.6 % at most (docs/notebook.md,
# "The law again"). The errors are one standard deviation: of a text, and of a language against the others of a text.
GENERAL_ERROR, LANGUAGE_ERROR = 0.10, 0.13
GENERAL_BYTES_PER_TOKEN, GENERAL_BYTES_PER_DOUBLING = 2.40, 0.295

GENERAL = Law(
    constants=Constants(irreducible=0.3798, a=0.6609, alpha=0.1313, b=1.1853, beta=0.2067, share=0.3919),
    noise=GENERAL_ERROR,
    source="the general law, fitted on small runs in 26 languages and on the published law of large ones (Hoffmann et al. 2022), not on this corpus; "
    "`hagane ladder` fits it on your own text",
)


def effective_bytes(unique: float, read: float) -> float:
    """Bytes of new text that `read` bytes are worth where only `unique` are different (Muennighoff et al. 2023): never more than 16.4 times `unique`."""
    if read <= unique or unique <= 0:
        return read if unique > 0 else 0.0
    return unique * (1 + REPEATS_HALF * (1 - math.exp(-(read / unique - 1) / REPEATS_HALF)))
