"""How fast a run trains: the batch and the measured step at each of its contexts, and what a step takes on average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hagane.model.config import ModelConfig
from hagane.plan.contexts import Stretch, batch_at, contexts, stretches
from hagane.recipe.schema import Recipe
from hagane.recipe.types import StepRate


@dataclass(frozen=True)
class Pace:
    """`promised` is the share of the timed speed that the plan counts on. Everything by context is of whole optimizer steps."""

    batches: dict[int, tuple[int, int]]  # rows of a micro-step, micro-steps
    rates: dict[int, StepRate]  # of a micro-step
    promised: float
    stretches: tuple[Stretch, ...]
    mean_seconds: float  # of a step, over all stretches, at the promised speed

    @classmethod
    def of(cls, recipe: Recipe, config: ModelConfig, batch: tuple[int, int], promised: float, time_step: Callable[[ModelConfig, int, int], StepRate]) -> Pace:
        """`batch` is that at train.context; `time_step(config, rows, context)` measures a micro-step."""
        batches = {context: batch_at(context, recipe.train.context, *batch) for context in contexts(recipe, config.context)}
        rates = {context: time_step(config, rows, context) for context, (rows, _) in batches.items()}
        parts, mean = stretches(recipe, lambda context: rates[context].step_seconds * batches[context][1] / promised, config.context)
        return cls(batches, rates, promised, tuple(parts), mean)

    @property
    def compile_seconds(self) -> float:
        return sum(rate.compile_seconds for rate in self.rates.values())

    @property
    def measured(self) -> dict[int, float]:
        """Seconds of a step at each context."""
        return {context: rate.step_seconds * self.batches[context][1] for context, rate in self.rates.items()}

    def seconds(self, context: int) -> float:
        """Seconds of a step at the promised speed."""
        return self.measured[context] / self.promised

    def tokens(self, context: int) -> int:
        """Tokens of a step."""
        rows, accumulation = self.batches[context]
        return rows * accumulation * context

    def share(self, stage: str) -> float:
        """Of all steps, those of a stage."""
        return sum(part.share for part in self.stretches if part.stage == stage)
