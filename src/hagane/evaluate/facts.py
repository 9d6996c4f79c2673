"""What evaluation found out, as it is written to `evaluate/facts.json`. All intervals are at 95 %."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hagane.recipe.types import Frozen

Mode = Literal["thinking", "plain"]
Retrieval = Literal["passkey", "needle"]


class BitsPerByte(Frozen):
    """Bits per UTF-8 byte of held-out text of one language; the interval is a bootstrap over documents."""

    value: float
    low: float
    high: float
    bytes: int
    tokens: int
    documents: int


class Change(Frozen):
    """Bits per byte after training minus those of the weights the run started from, on the same documents: above 0 is forgotten, below 0 gained.

    The interval is a bootstrap over pairs of scores of one document.
    """

    value: float
    low: float
    high: float


class Forgetting(Frozen):
    """What going on from a checkpoint did to each language. `known` and `new` are means over languages with an equal weight each."""

    before: dict[str, BitsPerByte] = Field(description="of the checkpoint with its own tokenizer, before anything was learned, by language")
    change: dict[str, Change] = Field(description="by language")
    languages: tuple[str, ...] = Field((), description="those of them that the checkpoint is said to know")
    known: Change | None = Field(None, description="mean change of the languages that it knows: forgetting, where above 0")
    new: Change | None = Field(None, description="mean change of the others, source code left out: gain, where below 0")


class BitsPerSentence(Frozen):
    """Mean bits of a sentence that says the same in every language, so comparable across scripts; bootstrap over sentences."""

    bits_per_sentence: float
    low: float
    high: float
    sentences: int


class Cell(Frozen):
    """Right answers among `total`, with Wilson's interval of the share. `all` stands where a field was added up over."""

    family: str
    language: str
    mode: str
    correct: int
    total: int
    low: float
    high: float


class Sample(Frozen):
    """One answer as the model gave it, special tokens included."""

    mode: Mode
    language: str
    family: str
    prompt: str
    output: str
    expected: str
    correct: bool


class Unanswered(Frozen):
    """Outputs of a mode that could not count: thinking that never ended, turns that never ended."""

    mode: Mode
    thinking_open: int
    unfinished: int


class RetrievalCell(Frozen):
    """Numbers found again in texts of `length` tokens at `depth` (0 the beginning, 1 the end), with Wilson's interval of the share."""

    kind: Retrieval
    language: str
    length: int
    depth: float
    correct: int
    total: int
    low: float
    high: float


class EvaluateFacts(Frozen):
    """The whole evaluation. `accuracy` and `baseline` hold one cell per family, language and mode, the totals their sums."""

    bits_per_byte: dict[str, BitsPerByte] = Field(default_factory=dict, description="by language")
    start: Forgetting | None = Field(None, description="against the checkpoint that the run started from; None where it started from initial weights")
    parallel: dict[str, BitsPerSentence] = Field(default_factory=dict, description="by language")
    accuracy: tuple[Cell, ...] = ()
    accuracy_totals: tuple[Cell, ...] = ()
    baseline: tuple[Cell, ...] = ()
    baseline_totals: tuple[Cell, ...] = ()
    unanswered: tuple[Unanswered, ...] = ()
    samples: tuple[Sample, ...] = ()
    by_shard: dict[str, BitsPerByte] = Field(default_factory=dict, description="bits per byte by shard (`source.language`)")
    retrieval: tuple[RetrievalCell, ...] = Field((), description="passkeys and needles, where the recipe asks for them")
    generated_tokens: int = 0
    dtype: str = "bfloat16"
    seconds: float = 0.0
