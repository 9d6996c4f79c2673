"""What a plan says: every number it chose or predicts, each with its reason."""

from __future__ import annotations

from pydantic import Field

from hagane.model.config import ModelConfig
from hagane.recipe.types import Frozen, Machine, Phase


class StagePlan(Frozen):
    """One stage's share of the budget."""

    seconds: float
    tokens: int = 0
    steps: int = 0


class Prediction(Frozen):
    """What the run is expected to do: bits per byte with an 80 % interval, seconds, joules, peak bytes."""

    bits_per_byte: float
    low: float
    high: float
    seconds: float
    joules: float
    peak_memory_bytes: int


class PlanFacts(Frozen):
    """The plan of a run. Frozen once written: the stages after it read nothing else."""

    budget: str | None
    machine: Machine
    model: ModelConfig
    vocabulary_size: int
    num_parameters: int
    num_active_parameters: int
    context: int
    tokens_per_step: int
    tokens: int = Field(description="what the phases' steps read; a steered run that finds time left over trains on more")
    expected_tokens: int = Field(description="what they are expected to become")
    flops: float
    stages: dict[str, StagePlan]
    phases: dict[str, tuple[Phase, ...]] = Field(description="per training stage or tune step")
    mixture: dict[str, float] = Field(description="shard -> share of the rows of pretraining")
    repeats: dict[str, float] = Field(description="shard -> how often its text is read in pretraining")
    items_per_cell: int
    predicted: Prediction
    law: str
    reasons: dict[str, str]
