"""Types that the plan and the training loop share. No torch here: `hagane plan` must answer in a second."""

from __future__ import annotations

import math
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hagane.errors import RecipeError


class Frozen(BaseModel):
    """A value: immutable, refuses unknown fields, serialises to JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_reason(error: ValidationError) -> str:
    """What is wrong with values that cannot be together, or with the one that is named."""
    item = error.errors()[0]
    return "".join(f"{field}: " for field in item["loc"][-1:]) + item["msg"].removeprefix("Value error, ")


BudgetKind = Literal["time", "energy", "flops", "tokens", "money"]
OptimizerKind = Literal["adamw", "muon"]
IndexMode = Literal["sparse", "dense", "warmup", "together"]

_UNITS: dict[str, tuple[BudgetKind, float]] = {
    "s": ("time", 1), "sec": ("time", 1), "min": ("time", 60), "m": ("time", 60), "h": ("time", 3600), "d": ("time", 86400),
    "wh": ("energy", 3600), "kwh": ("energy", 3.6e6), "mwh": ("energy", 3.6e9), "j": ("energy", 1),
    "flop": ("flops", 1), "flops": ("flops", 1),
    "tok": ("tokens", 1), "token": ("tokens", 1), "tokens": ("tokens", 1),
    "usd": ("money", 1),
}  # fmt: skip
_PREFIXES = {"k": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]+)")


class Budget(Frozen):
    """The one dial: what may be spent. Amounts are seconds, joules, FLOPs, tokens or US dollars."""

    kind: BudgetKind
    amount: float = Field(gt=0)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `10min`, `1h30min`, `2kWh`, `1e20FLOP`, `5Mtokens` or `40USD`. Raises RecipeError."""
        total, kind, end = 0.0, None, 0
        while end < len(text.rstrip()):
            match = _PART.match(text, end)
            if match is None:
                raise RecipeError(f"budget {text!r} is not understood. Write for example 10min, 8h, 2kWh, 1e20FLOP, 5Mtokens or 40USD.")
            part_kind, factor = _unit(match[2], text)
            if kind not in (None, part_kind):
                raise RecipeError(f"budget {text!r} mixes {kind} and {part_kind}. Give one of them.")
            kind, end, total = part_kind, match.end(), total + float(match[1]) * factor
        if kind is None or total <= 0:
            raise RecipeError(f"budget {text!r} must be a positive amount with a unit, for example 10min.")
        if not math.isfinite(total):
            raise RecipeError(f"budget {text!r} is more than a number can hold. Give a smaller one.")
        return cls(kind=kind, amount=total)

    def __str__(self) -> str:
        if self.kind == "time":
            return duration(self.amount)
        unit = {"energy": "J", "flops": "FLOP", "tokens": "tokens", "money": "USD"}[self.kind]
        if self.kind == "energy" and self.amount >= 3600:
            return f"{self.amount / 3.6e6:g}kWh"
        return f"{self.amount:g}{unit}"

    @property
    def exact(self) -> str:
        """To six digits, as one word that `parse` reads: for a command that asks for it again."""
        unit = {"time": "s", "energy": "J", "flops": "FLOP", "tokens": "tokens", "money": "USD"}[self.kind]
        return f"{self.amount:.6g}{unit}"


def _unit(unit: str, text: str) -> tuple[BudgetKind, float]:
    if unit.lower() in _UNITS:
        return _UNITS[unit.lower()]
    if unit[0] in _PREFIXES and unit[1:].lower() in _UNITS and _UNITS[unit[1:].lower()][0] in ("tokens", "flops"):
        kind, factor = _UNITS[unit[1:].lower()]
        return kind, factor * _PREFIXES[unit[0]]
    raise RecipeError(f"budget {text!r}: {unit} is not a unit of time, energy, FLOPs, tokens or money. Write for example 10min, 2kWh, 1e20FLOP or 40USD.")


def duration(seconds: float) -> str:
    """Seconds as people write them: `45s`, `1min 40s`, `2h 5min`, `3d 4h`."""
    seconds = round(seconds)
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    parts = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2]) or "0s"


class StepRate(Frozen):
    """What a real training step of one shape was measured to do on a machine."""

    tokens_per_second: float
    step_seconds: float
    compile_seconds: float
    peak_memory_bytes: int = 0
    expected: tuple[float, float] | None = Field(
        default=None, description="seconds expected of it: of matrix products at the measured rate, and of all else on the machine of plan/cost.py"
    )

    @property
    def overhead(self) -> float | None:
        """Seconds of what is not a matrix product, over those expected; None where nothing was."""
        return None if self.expected is None else (self.step_seconds - self.expected[0]) / self.expected[1]


class Machine(Frozen):
    """The profile of a machine: measured, or read from the table. Rates are FLOP/s, bytes/s, watts."""

    name: str
    device: Literal["cpu", "cuda"]
    num_cores: int
    memory_bytes: int
    matmul_flops: float = Field(description="best measured bf16 matrix-multiply rate, FLOP/s")
    bandwidth: float = Field(description="measured copy bandwidth, bytes read + written per second")
    power_watts: float = Field(description="what the machine draws under load")
    power_source: str = Field(description="where power_watts comes from: a counter, or a stated model")
    steps: dict[str, StepRate] = Field(default_factory=dict, description="measured training steps by shape key")
    overhead: float = Field(default=1.0, gt=0, description="what is not matrix products in a step, over what it took on the machine of plan/cost.py")

    @property
    def energy_source(self) -> str:
        """What may be said of joules that are expected of it: seconds times its power, which a counter told or a model."""
        return "at the power that its counter told" if self.power_source.startswith("counter") else "modelled"

    @property
    def hardware(self) -> str:
        """What a card calls this machine."""
        return f"{self.name}, {self.num_cores} cores" if self.device == "cpu" else self.name


class Layout(Frozen):
    """How the work of training is divided over devices; shared by the plan, which chooses it, and the training loop, which obeys it.

    `data x context x tensor x pipeline` devices. Experts are spread over `expert` of the devices of a pipeline stage and are not cut
    by `tensor`. ZeRO stage `zero` (Rajbhandari et al. 2020) shards over data x context: 1 the optimizer states, 2 gradients too,
    3 weights too (fully sharded data parallelism).
    """

    data: int = Field(default=1, gt=0)
    zero: Literal[0, 1, 2, 3] = 1
    tensor: int = Field(default=1, gt=0)
    pipeline: int = Field(default=1, gt=0)
    interleave: int = Field(default=1, gt=0, description="stages of the pipeline that one device holds (virtual stages)")
    context: int = Field(default=1, gt=0, description="devices that share a row")
    expert: int = Field(default=1, gt=0, description="devices that share one copy of the experts")
    micro_batch: int = Field(default=1, gt=0, description="rows of one micro-step")
    checkpointing: Literal["none", "selective", "full"] = "none"
    precision: Literal["float32", "tf32", "bf16", "fp8", "fp4"] = "bf16"

    @property
    def devices(self) -> int:
        return self.data * self.context * self.tensor * self.pipeline

    def __str__(self) -> str:
        """`data 8, fully sharded (ZeRO-3), tensor 4, micro-batch 2, selective checkpointing, bf16`: what is 1 or none is left out."""
        sharded = ("", "optimizer sharded (ZeRO-1)", "optimizer and gradients sharded (ZeRO-2)", "fully sharded (ZeRO-3)")[self.zero]
        text = [f"data {self.data}", *([sharded] if self.zero == 3 or (sharded and self.data * self.context > 1) else [])]
        text += [f"{name} {value}" for name in ("tensor", "context", "expert") if (value := getattr(self, name)) > 1]
        if self.pipeline > 1:
            text.append(f"pipeline {self.pipeline}" + (f" with {self.interleave} interleaved stages each" if self.interleave > 1 else ""))
        text.append(f"micro-batch {self.micro_batch}")
        if self.checkpointing != "none":
            text.append(f"{self.checkpointing} checkpointing")
        return ", ".join([*text, self.precision])


class Phase(Frozen):
    """A stretch of a training stage with its own objective, context, mixture, schedule and set of trained weights.

    One optimizer step reads `accumulation` micro-steps of `rows` rows of `context` tokens. The learning rate follows
    warm-up–stable–decay: linear warm-up over `warmup_steps`, constant, then linear decay over the last `decay_share`
    of the phase's *progress* down to `final_share` of the peak. Steering may change how many steps the progress takes.
    """

    name: str
    collection: str = Field(description="folder under encode/: `text` (packed stream) or `tune` (whole conversations)")
    objective: Literal["next_token"] = "next_token"
    context: int
    rows: int
    accumulation: int = 1
    num_steps: int
    mixture: dict[str, float] = Field(description="shard (or COLLECTION/SHARD of another collection) -> share of the rows read; sums to 1")
    optimizer: OptimizerKind = Field("adamw", description="one for all phases of a stage")
    muon_ratio: float = Field(1.0, description="Muon's learning rate over AdamW's")
    embedding_ratio: float = Field(1.0, description="the embedding table's learning rate over that of the rest of AdamW's; a tied head shares the table")
    head_ratio: float = Field(1.0, description="the head's, likewise")
    learning_rate: float
    warmup_steps: int = 0
    decay_share: float = 0.2
    final_share: float = 0.0
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip: float = 1.0
    mtp_coefficient: float = Field(0.3, description="weight of the mean loss of the modules for multi-token prediction, where the model has any")
    index: IndexMode = Field(
        "sparse",
        description="of a model with indexers: sparse, they choose and all weights learn; dense, they are left out; warmup, they alone learn, on all keys; "
        "together, they learn on all keys beside the rest",
    )
    index_ratio: float = Field(1.0, gt=0, description="learning rate of the indexers over that of the rest")

    @property
    def tokens_per_step(self) -> int:
        return self.rows * self.context * self.accumulation
