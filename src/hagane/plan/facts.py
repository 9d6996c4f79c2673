"""What a plan says: every number it chose or predicts, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from hagane.model.config import ModelConfig
from hagane.recipe.schema import TrainSettings
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


class LanguagePlan(Frozen):
    """One language in the plan. Bits per byte only where the law knows the language."""

    bytes: int = Field(description="different text there is to read, UTF-8")
    read_bytes: int = Field(description="read in all, repeats counted")
    repeats: float
    worth: float = Field(description="of a byte that is read, against one of new text (Muennighoff et al. 2023)")
    bits_per_byte: float | None = None
    low: float | None = None
    high: float | None = None
    more_text_gain: float | None = Field(None, description="bits per byte that ten more megabytes of it would take away")
    repeats_hurt_tokens: int | None = Field(
        None, description="training tokens from which on its repeats hurt: a byte of it is worth what four readings are; None where never, or not known"
    )


class CurvePoint(Frozen):
    """What another training time would buy: the best shape for it, and the loss it is expected to reach. No joules where no power is known."""

    seconds: float
    joules: float | None
    flops: float
    num_active_parameters: int
    bits_per_byte: float
    low: float
    high: float


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
    most_steps: int | None = Field(None, description="of all stages together, however much time is left: text is read `corpus.max_repeats` times then")
    unused_seconds: float = Field(0.0, description="of the budget, for want of text")
    flops: float
    stages: dict[str, StagePlan]
    phases: dict[str, tuple[Phase, ...]] = Field(description="per training stage or tune step")
    step_seconds: dict[int, float] = Field(default_factory=dict, description="of an optimizer step at each context, as measured")
    extended: ModelConfig | None = Field(None, description="the model from the stage extend on: its positions interpolated, its context longer")
    mixture: dict[str, float] = Field(description="shard -> share of the rows of pretraining")
    repeats: dict[str, float] = Field(description="shard -> how often its text is read in pretraining")
    items_per_cell: int
    predicted: Prediction
    law: str
    languages: dict[str, LanguagePlan] = Field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = Field((), description="expected loss of the text model over training time; text is taken to suffice")
    reasons: dict[str, str]

    def model_of(self, stage: str) -> ModelConfig:
        """The model that a training stage or tune step trains."""
        return self.extended if self.extended is not None and (stage == "extend" or stage.startswith("tune/")) else self.model

    def most_steps_of(self, stage: str) -> int | None:
        """Of all steps there may be at most, those of a training stage: as they are divided now."""
        if self.most_steps is None:
            return None
        planned = {name: sum(phase.num_steps for phase in phases) for name, phases in self.phases.items()}
        return max(planned[stage], self.most_steps * planned[stage] // sum(planned.values()))

    def step_seconds_of(self, phase: Phase) -> float | None:
        """Measured seconds of a phase's optimizer step; None in a plan of an earlier version."""
        return self.step_seconds.get(phase.context)


def schedule_facts(settings: Phase | TrainSettings, learning_rate: float, embedding_ratio: float, warmup_steps: int, decay_steps: int) -> dict[str, Any]:
    """How pretraining goes, for scripts: its peak learning rate, the steps of warm-up and of decay, and what `settings` have beside them."""
    return {
        "learning_rate": learning_rate, "warmup_steps": warmup_steps, "decay_steps": decay_steps, "optimizer": settings.optimizer,
        "muon_ratio": settings.muon_ratio, "embedding_ratio": embedding_ratio, "head_ratio": settings.head_ratio, "weight_decay": settings.weight_decay,
        "beta1": settings.beta1, "beta2": settings.beta2, "clip": settings.clip,
    }  # fmt: skip


def schedule_of(phases: Sequence[Phase]) -> dict[str, Any]:
    """The same of the phases of pretraining, whose first has the peak; nothing where there are none."""
    if not phases:
        return {}
    first = phases[0]
    return schedule_facts(first, first.learning_rate, first.embedding_ratio, first.warmup_steps, round(sum(one.num_steps * one.decay_share for one in phases)))
