"""What a training stage reports when it is done. No torch here."""

from __future__ import annotations

from pydantic import Field

from hagane.recipe.types import Frozen


class RouterHealth(Frozen):
    """How evenly experts are used, over the steps of one log line. Nats for entropies."""

    max_violation: float = Field(description="load of the fullest expert over the mean load, minus 1; worst layer")
    dead_share: float = Field(description="share of experts that received no token; mean over layers")
    effective_experts: float = Field(description="exp of the entropy of the load; mean over layers")
    conditional_entropy: float = Field(description="mean entropy of a token's routing distribution; mean over layers")
    marginal_entropy: float = Field(description="entropy of the mean routing distribution; mean over layers")
    mean_experts: float | None = Field(None, description="experts used per token that are not null; mean over layers. None without null experts")
    experts_used: tuple[float, ...] | None = Field(None, description="share of tokens that used 0, 1, … top_k of them; mean over layers")
    loss_correlation: float | None = Field(None, description="of a token's loss with the experts that it used; None where either did not vary")
    clamped_share: float | None = Field(None, description="bounds of entropy clamping that are outside their band and pull; None without clamping")
    multiplier_marginal_low: float | None = Field(None, description="of the least marginal entropy; largest over layers")
    multiplier_conditional_low: float | None = Field(None, description="of the least conditional entropy; likewise")
    multiplier_conditional_high: float | None = Field(None, description="of the most conditional entropy; likewise")


class TrainFacts(Frozen):
    """Outcome of a training stage. Seconds are active seconds over all attempts."""

    steps: int
    tokens: int
    planned_tokens: int
    seconds: float
    final_loss: float | None = Field(description="mean loss per target over the last log line, nats")
    mtp_loss: float | None = Field(default=None, description="the same of further tokens, for a model with modules for multi-token prediction")
    mean_utilisation: float | None = Field(description="FLOPs of the model over FLOPs the machine could do, first steps (compilation) left out")
    tokens_per_second: float | None = Field(description="likewise without first steps")
    compile_seconds: float = Field(description="first step of each shape, of all attempts: compilation and warming up")
    peak_memory_bytes: int
    joules: float = Field(description="counted where the machine has a counter (`counted`), else modelled")
    modelled_joules: float | None = Field(None, description="seconds times the power of the machine's profile")
    counted: bool = Field(False, description="whether `joules` are what a counter of the machine counted")
    router: RouterHealth | None
    attempts: int

    @classmethod
    def none(cls) -> TrainFacts:
        """A stage with no steps to do."""
        return cls(
            steps=0, tokens=0, planned_tokens=0, seconds=0.0, final_loss=None, mean_utilisation=None, tokens_per_second=None, compile_seconds=0.0,
            peak_memory_bytes=0, joules=0.0, router=None, attempts=0,
        )  # fmt: skip
