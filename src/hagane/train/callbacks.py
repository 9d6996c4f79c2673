"""Who is told what happens while training: the progress display, TensorBoard, and whatever a caller adds.

Callbacks are told; they decide nothing. One that raises is dropped with an event, and training goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from hagane.recipe.types import duration
from hagane.train.facts import TrainFacts
from hagane.train.settings import TrainSettings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class StepInfo:
    """Told after each step. Rates are of the steps since the last metrics line; None before the first."""

    step: int
    num_steps: int  # of the stage as steered so far
    phase: str
    progress: float  # of the stage, 0 to 1
    seconds_left: float | None
    tokens_per_second: float | None
    flop_utilisation: float | None
    loss: float | None  # of the latest step whose result has arrived


class Callback:
    """Base of all callbacks: does nothing."""

    def on_start(self, settings: TrainSettings, step: int, num_steps: int) -> None:
        """Training begins, or goes on, after `step` steps."""

    def on_step(self, info: StepInfo) -> None:
        """After each step. Must be quick."""

    def on_metrics(self, line: Mapping[str, Any]) -> None:
        """A line was written to metrics.jsonl."""

    def on_event(self, line: Mapping[str, Any]) -> None:
        """A line was written to events.jsonl."""

    def on_end(self, facts: TrainFacts | None) -> None:
        """Training ended; without facts, by an error or a signal."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("rate", "")), style="cyan")


class ProgressDisplay(Callback):
    """A progress bar with ETA, tokens/s, FLOP utilisation and loss on a terminal; elsewhere a plain line every ten seconds."""

    def __init__(self, name: str, stream: TextIO | None = None, *, every: float | None = None) -> None:
        self._name = name
        self._stream = stream if stream is not None else sys.stderr
        self._console = Console(file=self._stream)
        self._every = every if every is not None else (0.5 if self._console.is_terminal else 10.0)
        self._next = 0.0
        self._bar: Progress | None = None

    def on_start(self, settings: TrainSettings, step: int, num_steps: int) -> None:
        self._next = time.monotonic() + (0.0 if self._console.is_terminal else self._every)
        if self._console.is_terminal:
            columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.percentage:>5.1f} %"), _Rate())
            # refreshed from on_step: a thread of its own would take time from the two cores that train
            self._bar = Progress(*columns, console=self._console, auto_refresh=False, transient=True)
            self._bar.start()
            self._bar.add_task(self._name, total=1.0, rate="first step: compiling" if settings.compile else "")
            self._bar.refresh()

    def on_step(self, info: StepInfo) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        text = describe(info)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=info.progress, rate=text)
            self._bar.refresh()
        else:
            print(f"{self._name:<10} {info.progress:6.1%}  {text}", file=self._stream, flush=True)

    def on_event(self, line: Mapping[str, Any]) -> None:
        if line["event"] in ("broken_checkpoint", "no_checkpoint", "resume", "callback_failed", "off_budget", "stopped"):
            self._say(f"{self._name:<10} {line['event'].replace('_', ' ')}: {line.get('message') or 'after step ' + format(line['step'], ',')}")

    def on_end(self, facts: TrainFacts | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        if facts is not None:
            loss = f", loss {facts.final_loss:.3f}" if facts.final_loss is not None else ""
            rate = f", {facts.tokens_per_second:,.0f} tokens/s" if facts.tokens_per_second else ""
            share = f", {facts.mean_utilisation:.0%} of the matrix rate" if facts.mean_utilisation else ""
            self._say(f"{self._name:<10} {facts.steps:,} steps, {facts.tokens / 1e6:,.2f}M tokens in {duration(facts.seconds)}{loss}{rate}{share}")

    def _say(self, text: str) -> None:
        if self._bar is not None and self._bar.live.is_started:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=self._stream, flush=True)


def describe(info: StepInfo) -> str:
    """`step 120/800  12,345 tok/s  FLOP 41 %  loss 3.210  ETA 1min 20s`."""
    parts = [f"step {info.step:,}/{info.num_steps:,}"]
    if info.tokens_per_second:
        parts.append(f"{info.tokens_per_second:,.0f} tok/s")
    if info.flop_utilisation:
        parts.append(f"FLOP {info.flop_utilisation:.0%}")
    if info.loss is not None:
        parts.append(f"loss {info.loss:.3f}")
    if info.seconds_left is not None:
        parts.append(f"ETA {duration(max(info.seconds_left, 0.0))}")
    return "  ".join(parts)


class TensorBoard(Callback):
    """Writes every number of the metrics line as a scalar under `folder`, events as text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def on_start(self, settings: TrainSettings, step: int, num_steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a fifth of a second that `import hagane.train` need not take

        self._writer = SummaryWriter(self._folder, purge_step=step + 1, flush_secs=30)

    def on_metrics(self, line: Mapping[str, Any]) -> None:
        assert self._writer is not None
        nested = line.get("router") or {}
        numbers = {**line, **{f"router/{name}": value for name, value in nested.items()}}
        for name, value in numbers.items():
            if isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(name if "/" in name else f"train/{name}", value, line["step"])

    def on_event(self, line: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.add_text(f"event/{line['event']}", str(dict(line)), line["step"])

    def on_end(self, facts: TrainFacts | None) -> None:
        if self._writer is not None:
            self._writer.close()


def standard(settings: TrainSettings, name: str, *, tensorboard: bool = True, stream: TextIO | None = None) -> list[Callback]:
    """What a run shows and writes by default."""
    return [ProgressDisplay(name, stream), *([TensorBoard(settings.folder / "tensorboard")] if tensorboard else [])]
