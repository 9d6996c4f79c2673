"""What the loop needs to know. Plain values: nothing here reads a recipe or a run folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hagane.errors import TrainingError
from hagane.model.config import ModelConfig
from hagane.recipe.types import OptimizerKind, Phase


@dataclass(frozen=True)
class TrainSettings:
    """One training stage. `folder` exists and receives checkpoints, metrics, events and the final weights."""

    folder: Path
    model: ModelConfig
    phases: tuple[Phase, ...]
    data: tuple[Path, ...]  # folders of collections of shards: those of `encode`, and of `converse` where conversations are learned
    seed: int
    most_steps: int | None = None  # that steering may make of them
    step_seconds: tuple[float, ...] | None = None  # of a step of each phase, as measured; without them steering goes by FLOPs
    initial: Path | None = None  # a weights.safetensors to start from; else drawn from the seed
    device: str = "cpu"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of the working copy; masters are float32
    threads: int = 0  # 0 leaves torch's own number
    compile: bool = True
    checkpoint_seconds: float = 60.0
    keep_checkpoints: int = 2
    log_every: int = 10  # steps: lines then do not depend on the clock
    matmul_flops: float = 0.0  # measured bf16 rate of the machine, FLOP/s; 0 is unknown
    power_watts: float = 0.0

    @property
    def optimizer(self) -> OptimizerKind:
        """The one optimizer of all phases: its state goes on from one to the next. Raises TrainingError where they differ."""
        kinds = {phase.optimizer for phase in self.phases}
        if len(kinds) != 1:
            raise TrainingError(f"the phases of a stage must share one optimizer, not {' and '.join(sorted(kinds))}.")
        return kinds.pop()

    @property
    def planned_tokens(self) -> int:
        return sum(phase.num_steps * phase.tokens_per_step for phase in self.phases)

    def result_settings(self) -> dict[str, str]:
        """Digest of each setting that decides what is trained: a checkpoint is used only where they agree."""
        values = {
            "model": self.model.model_dump(mode="json"),
            "phases": [phase.model_dump(mode="json") for phase in self.phases],
            "seed": self.seed,
            "dtype": self.dtype,
            "log_every": self.log_every,
        }
        return {name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16] for name, value in values.items()}
