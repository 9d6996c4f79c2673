"""What is measured while training: loss, tokens/s, FLOP utilisation, waiting for data, memory. Feeds the metrics line and the facts."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from hagane.train.facts import RouterHealth, TrainFacts
from hagane.train.settings import TrainSettings


@dataclass
class Totals:
    """Over the whole stage and all attempts. `steady_*` leave out first steps, which compile."""

    steps: int = 0
    tokens: int = 0
    seconds_before: float = 0.0  # active seconds of earlier attempts, as far as they were written down
    attempts: int = 0
    compile_seconds: float = 0.0
    steady_seconds: float = 0.0
    steady_tokens: int = 0
    steady_flops: float = 0.0  # that the model needed: no padding, no pairs of different documents
    steady_planned: float = 0.0  # what the plan counts for them, in its unit of work, for the time left
    final_loss: float | None = None
    mtp_loss: float | None = None
    router: dict[str, Any] | None = None
    peak_memory_bytes: int = 0


@dataclass
class Window:
    """Since the last metrics line. The sums that do not depend on the clock are part of a checkpoint."""

    steps: int = 0
    loss: float = 0.0
    auxiliary_loss: float = 0.0
    mtp_loss: float | None = None  # None for a model without modules for multi-token prediction
    gradient_norm: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    data_seconds: float = 0.0


@dataclass
class Meter:
    """Adds up steps. `device` says where memory is counted."""

    device: torch.device
    matmul_flops: float
    totals: Totals = field(default_factory=Totals)
    window: Window = field(default_factory=Window)

    def timed(self, *, seconds: float, data_seconds: float, tokens: int, flops: float, planned: float, first: bool) -> None:
        """One step's time, all that happened since the step before included. `first`: of its shape in this attempt.

        `flops` are those its batch needed, `planned` what a step of its phase costs in the plan.
        """
        window, totals = self.window, self.totals
        window.seconds, window.data_seconds = window.seconds + seconds, window.data_seconds + data_seconds
        window.tokens, window.flops = window.tokens + tokens, window.flops + flops
        totals.steps, totals.tokens = totals.steps + 1, totals.tokens + tokens
        if first:
            totals.compile_seconds += seconds
        else:
            totals.steady_seconds += seconds
            totals.steady_tokens += tokens
            totals.steady_flops += flops
            totals.steady_planned += planned

    def learned(self, loss: float, auxiliary_loss: float, mtp_loss: float | None, gradient_norm: float) -> None:
        """One step's results."""
        self.window.steps += 1
        self.window.loss += loss
        self.window.auxiliary_loss += auxiliary_loss
        if mtp_loss is not None:
            self.window.mtp_loss = (self.window.mtp_loss or 0.0) + mtp_loss
        self.window.gradient_norm += gradient_norm

    def line(self, seconds: float, router: RouterHealth | None) -> dict[str, Any]:
        """The measured fields of a metrics line; begins a new window. `seconds`: active, over all attempts."""
        window, totals = self.window, self.totals
        self.window = Window()
        memory = memory_bytes(self.device)
        totals.peak_memory_bytes = max(totals.peak_memory_bytes, peak_memory_bytes(self.device))
        totals.final_loss = window.loss / window.steps
        totals.mtp_loss = window.mtp_loss / window.steps if window.mtp_loss is not None else None
        totals.router = router.model_dump(mode="json", exclude_none=True) if router is not None else None
        rate = window.flops / window.seconds if window.seconds else 0.0
        return {
            "tokens": totals.tokens,
            "seconds": round(seconds, 3),
            "loss": totals.final_loss,
            "auxiliary_loss": window.auxiliary_loss / window.steps,
            "mtp_loss": totals.mtp_loss,
            "gradient_norm": window.gradient_norm / window.steps,
            "tokens_per_second": round(window.tokens / window.seconds, 1) if window.seconds else 0.0,
            "flop_utilisation": round(rate / self.matmul_flops, 5) if self.matmul_flops else None,
            "data_seconds": round(window.data_seconds, 5),
            "memory_bytes": memory,
            "router": totals.router,
        }

    def state(self, seconds: float) -> dict[str, Any]:
        """For a checkpoint."""
        return {"totals": {**asdict(self.totals), "seconds_before": seconds}, "window": asdict(self.window)}

    def restore(self, state: dict[str, Any]) -> None:
        """As it was, but for the clock of the open window: its time is gone."""
        self.totals, self.window = Totals(**state["totals"]), Window(**state["window"])

    def facts(self, settings: TrainSettings, seconds: float) -> TrainFacts:
        totals = self.totals
        rate = totals.steady_flops / totals.steady_seconds if totals.steady_seconds else None
        return TrainFacts(
            steps=totals.steps,
            tokens=totals.tokens,
            planned_tokens=settings.planned_tokens,
            seconds=seconds,
            final_loss=totals.final_loss,
            mtp_loss=totals.mtp_loss,
            mean_utilisation=rate / self.matmul_flops if rate is not None and self.matmul_flops else None,
            tokens_per_second=totals.steady_tokens / totals.steady_seconds if totals.steady_seconds else None,
            compile_seconds=totals.compile_seconds,
            peak_memory_bytes=totals.peak_memory_bytes,
            joules=seconds * settings.power_watts,
            modelled_joules=seconds * settings.power_watts,
            router=RouterHealth(**totals.router) if totals.router is not None else None,
            attempts=totals.attempts,
        )


def memory_bytes(device: torch.device) -> int:
    """In use now: of the process, or of the tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else peak_memory_bytes(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The most there has been: of the process, or of the tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
