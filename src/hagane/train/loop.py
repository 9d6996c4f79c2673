"""The training loop: phases in order, one optimizer step after another, and everything around a step.

A stage can be killed at any moment and started again with the same settings: it goes on from its newest whole checkpoint and ends
bit-equal to the unbroken run. What makes it so: the order of the data is a function of a counter, the schedule one of the step and of decisions
that were written down before they took effect, and a checkpoint holds everything else.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hagane.data.source import BatchSource, StepData
from hagane.errors import RunError, TrainingError
from hagane.model.count import mean_seen, num_trained_parameters, training_flops
from hagane.recipe.types import Phase
from hagane.train import checkpoint as checkpoints
from hagane.train.callbacks import Callback, StepInfo
from hagane.train.facts import TrainFacts
from hagane.train.health import RouterSums, off_budget
from hagane.train.index_health import IndexSums
from hagane.train.journal import Journal, cannot_write
from hagane.train.meter import Meter
from hagane.train.schedule import Decision, Timetable
from hagane.train.settings import TrainSettings
from hagane.train.steering import Steering
from hagane.train.stepper import Stepper, StepResult, compiles, shape_of, torch_set_up

WRITE_RATE = 200e6
"""Bytes/s that the last save is expected to write where no save was timed yet: a slow disk, so that the end is not late."""

SAVE_SHARE = 0.02
"""Share of the time that saving may take: checkpoints are taken less often where `checkpoint_seconds` would cost more."""

LAST_STRETCH = 3.0
"""Seconds before the end in which no checkpoint is begun: the last one is about to come."""


def train(settings: TrainSettings, remaining: Callable[[], float] | None = None, callbacks: Sequence[Callback] = ()) -> TrainFacts:
    """Train a stage to its end, or go on with one that was interrupted. A finished stage returns its facts again.

    `remaining` gives the active seconds until the stage must end; with it the number of steps is steered. Without it the planned
    steps are run exactly. Raises TrainingError (loss not finite, no whole checkpoint), RunError (disk full, stopped by a signal,
    settings that changed since the last attempt), DataError (shards missing or damaged).
    """
    begun = time.monotonic()
    compiled = settings.compile and compiles(settings.model, device=settings.device, dtype=settings.dtype)
    with torch_set_up(threads=settings.threads, compiled=compiled, device=settings.device), _Loop(settings, remaining, callbacks, begun) as loop:
        return loop.run()


@dataclass
class _Pending:
    """A step whose results may still be on their way from the device."""

    step: int
    data: StepData
    values: Tensor  # loss, auxiliary loss, loss of further tokens, gradient norm
    arrived: torch.cuda.Event | None


class _Loop:
    def __init__(self, settings: TrainSettings, remaining: Callable[[], float] | None, callbacks: Sequence[Callback], begun: float) -> None:
        self.settings = settings
        self.callbacks = list(callbacks)
        self.begun = self.marked = begun
        self.journal = Journal(settings.folder)
        self.remaining = remaining
        self.timetable = Timetable(settings.phases)
        self.stepper = Stepper(
            settings.model, device=settings.device, dtype=settings.dtype, compiled=settings.compile, seed=settings.seed, optimizer=settings.optimizer
        )
        self.meter = Meter(self.stepper.device, settings.matmul_flops)
        self.router, self.indexers = RouterSums(), IndexSums()
        self.writer = checkpoints.Writer(settings.folder / "checkpoints", settings.keep_checkpoints)
        self.costs = settings.step_seconds or tuple(self._step_flops(phase) for phase in settings.phases)
        self.steering = Steering(remaining, self.costs, settings.most_steps) if remaining is not None else None
        self.step = 0
        self.pending: deque[_Pending] = deque()
        self.source: BatchSource | None = None
        self.source_phase = -1
        self.last_loss: float | None = None
        self.last_line: dict[str, Any] = {}
        self.first_seconds = 0.0
        self.saved_step = -1
        self.saved_at = begun
        self.signal: int | None = None

    def __enter__(self) -> _Loop:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # what went wrong before matters more than a save that failed as well
            self.writer.wait()
        if self.source is not None:
            self.source.close()
        self.journal.close()

    # -- the whole -------------------------------------------------------------------------------------------------

    def run(self) -> TrainFacts:
        facts: TrainFacts | None = None
        try:
            with self._signals():
                self._begin()
                while self.step < self.timetable.num_steps:
                    self._one_step()
                    if self.signal is not None:
                        self._stop_on_signal()
                facts = self._finish()
        finally:
            self._tell("on_end", facts)
        return facts

    def _one_step(self) -> None:
        index, done = self.timetable.locate(self.step)
        phase = self.settings.phases[index]
        if done == 0 and len(self.settings.phases) > 1:
            course = self.timetable.courses[index]
            self._event("phase", phase=phase.name, context=phase.context, rows=phase.rows, accumulation=phase.accumulation, num_steps=course.num_steps)
        source = self._source_of(index)
        asked = time.monotonic()
        data = source.step(done * source.rows_per_step)
        waited = time.monotonic() - asked
        result = self.stepper.step(data, phase, self.timetable.learning_rate(self.step))
        self.step += 1
        self.router.add(result.stats, result.moments_6)
        self.indexers.add(result.stats)
        self._await(data, result)
        self._collect(keep=0 if self.stepper.device.type == "cpu" else 1)
        self._timed(index, phase, data, waited, result.first)
        if self.step % self.settings.log_every == 0 or self.step in (1, self.timetable.num_steps):
            self._log()
        self._steer()
        self._save_if_due()
        self._tell("on_step", self._info(phase))

    def _timed(self, index: int, phase: Phase, data: StepData, waited: float, first: bool) -> None:
        now = time.monotonic()
        seconds, self.marked = now - self.marked, now
        seen = cache(data.num_seen)  # every layer asks, most for the same window
        needed = training_flops(self.settings.model, data.num_tokens, data.num_targets, seen, phase.index)
        self.meter.timed(seconds=seconds, data_seconds=waited, tokens=phase.tokens_per_step, flops=needed, planned=self.costs[index], first=first)
        if first:
            self.first_seconds = max(self.first_seconds, seconds)
            self._event("compiled", rows=phase.rows, context=phase.context, seconds=round(seconds, 3))
        elif self.steering is not None:
            self.steering.observe(index, seconds)

    # -- beginning and end -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        saved, problems = self.writer.newest()
        decisions = self.journal.decisions()
        if saved is not None:
            decisions = _merged(saved.state["decisions"], decisions)
        elif decisions or any(self.journal.read("metrics.jsonl")):
            problems.append("this stage was started before but has no checkpoint yet: it starts again")
        self.timetable = Timetable(self.settings.phases, decisions)
        seconds_known = self.journal.cut(saved.step if saved is not None else 0)
        if saved is not None:
            self._restore(saved)
        else:
            self._load_initial()
        totals = self.meter.totals
        totals.attempts += 1
        totals.seconds_before = max(totals.seconds_before, seconds_known)
        for problem in problems:
            self._event("broken_checkpoint" if saved is not None else "no_checkpoint", message=problem)
        settings = self.settings
        self._tell("on_start", settings, self.step, self.timetable.num_steps)
        self._event(
            "start" if saved is None else "resume",
            attempt=totals.attempts,
            num_steps=self.timetable.num_steps,
            device=settings.device,
            threads=torch.get_num_threads(),
            compile=settings.compile,
            dtype=settings.dtype,
            torch=torch.__version__,
            set_up_seconds=round(time.monotonic() - self.begun, 3),
        )
        self.marked = self.saved_at = time.monotonic()

    def _restore(self, saved: checkpoints.Checkpoint) -> None:
        changed = [name for name, digest in self.settings.result_settings().items() if saved.state["settings"].get(name) != digest]
        if changed:
            raise RunError(
                f"{self.writer.folder} was made with another {' and '.join(changed)}. Use the same settings to go on, or another folder to start anew."
            )
        self.step = self.saved_step = saved.step
        self._load_weights(saved.masters, saved.moments, saved.step)
        for name, tensor in self.stepper.decoder.router_state().items():
            tensor.copy_(saved.rest[f"router.{name}"])
        self.router.tensors = {
            name.removeprefix("sums."): tensor.to(self.stepper.device) for name, tensor in saved.rest.items() if name.startswith("sums.")
        }
        self.indexers.tensors = {
            name.removeprefix("index_sums."): tensor.to(self.stepper.device) for name, tensor in saved.rest.items() if name.startswith("index_sums.")
        }
        torch.set_rng_state(saved.rest["random"])
        self.meter.restore(saved.state["meter"])

    def _load_initial(self) -> None:
        path = self.settings.initial
        if path is None:
            return
        try:
            self._load_weights(load_file(path))
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"the weights to start from, {path}, cannot be read: {error}. Run the stage before again.") from error

    def _load_weights(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor] | None = None, num_steps: int = 0) -> None:
        """Masters, and the selection biases of routers beside them; from a checkpoint, moments and the number of updates."""
        biases = self.stepper.decoder.selection_biases()
        self.stepper.optimizer.load({name: tensor for name, tensor in weights.items() if name not in biases}, moments, num_steps)
        for name, bias in biases.items():
            if name not in weights:
                raise TrainingError(f"the weights to start from have no {name}: they are of a model that balanced its experts in another way.")
            bias.copy_(weights[name])

    def _finish(self) -> TrainFacts:
        """The last checkpoint, and the weights under their own name: the same file, written once."""
        self._collect(keep=0)
        folder = self.settings.folder
        if self.saved_step != self.step:
            self._save()
        self.writer.wait()
        self._report_save()
        try:
            checkpoints.write_text(folder / "model.json.new", self.settings.model.model_dump_json(indent=1) + "\n")
            (folder / "model.json.new").replace(folder / "model.json")
            _link(self.writer.folder / checkpoints.folder_name(self.step) / "masters.safetensors", folder / "weights.safetensors")
            checkpoints.sync_folder(folder)
        except OSError as error:
            raise cannot_write(folder / "weights.safetensors", error) from error
        facts = self.meter.facts(self.settings, self._seconds())
        if (message := off_budget(self.settings.model, facts.router)) is not None:
            self._event("off_budget", message=message)
        self._event("done", seconds=round(facts.seconds, 3), steps=facts.steps, tokens=facts.tokens)
        return facts

    # -- data ------------------------------------------------------------------------------------------------------

    def _source_of(self, index: int) -> BatchSource:
        """The batch source of a phase. A phase goes on in the text where earlier phases of the same collection stopped."""
        if self.source is None or self.source_phase != index:
            if self.source is not None:
                self.source.close()
            phases, data, seed = self.settings.phases, self.settings.data, self.settings.seed
            span, read = self._span(index), dict[str, int]()
            for earlier, course in enumerate(self.timetable.courses[:index]):
                if phases[earlier].collection == phases[index].collection and self._span(earlier) == span:
                    before = BatchSource(data, phases[earlier], seed, read=read, span=span)
                    read |= before.sampler.read(course.num_steps * before.rows_per_step)
                    before.close()
            self.source = BatchSource(data, phases[index], seed, read=read, span=span, pin=self.stepper.device.type == "cuda")
            self.source_phase = index
            if self.source.collection.vocabulary_size > self.settings.model.vocabulary_size:
                raise RunError(
                    f"{self.source.collection.folder} was encoded with {self.source.collection.vocabulary_size:,} token ids, but the model has "
                    f"{self.settings.model.vocabulary_size:,}. Run the encode stage again."
                )
        return self.source

    def _span(self, index: int) -> int:
        """The longest context of the phases that read the same collection, where it is a multiple of the phase's own."""
        own = self.settings.phases[index]
        longest = max(phase.context for phase in self.settings.phases if phase.collection == own.collection)
        return own.context if longest % own.context else longest

    def _step_flops(self, phase: Phase) -> float:
        """FLOPs that the plan counts for a step, its rows whole documents."""
        seen = partial(mean_seen, phase.context)
        return training_flops(self.settings.model, 1, 1, seen, phase.index) * phase.tokens_per_step

    # -- results ---------------------------------------------------------------------------------------------------

    def _await(self, data: StepData, result: StepResult) -> None:
        """Send a step's results on their way to the host."""
        values = torch.stack([result.loss, result.auxiliary_loss, result.mtp_loss, result.gradient_norm])
        arrived = None
        if values.is_cuda:
            values = torch.empty(len(values), pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self.pending.append(_Pending(self.step, data, values, arrived))

    def _collect(self, keep: int) -> None:
        """Take in results, leaving the newest `keep` on their way: on a GPU the host stays one step ahead."""
        while len(self.pending) > keep:
            pending = self.pending.popleft()
            if pending.arrived is not None:
                pending.arrived.synchronize()
            loss, auxiliary, further, norm = values = pending.values.tolist()
            if not all(map(math.isfinite, values)):
                self._not_finite(pending, values)
            self.last_loss = loss
            self.meter.learned(loss, auxiliary, further if self.settings.model.mtp_layers else None, norm)

    def _not_finite(self, pending: _Pending, values: list[float]) -> None:
        names = ("loss", "auxiliary loss", "loss of further tokens", "gradient norm")
        what, value = next((what, value) for what, value in zip(names, values, strict=True) if not math.isfinite(value))
        rows = pending.data.describe()
        with contextlib.suppress(RunError):
            self.writer.wait()  # a save of an earlier step may be under way
        last = checkpoints.complete(self.writer.folder)
        kept = f"The last good checkpoint is {last[0].name}" if last else "There is no checkpoint before it"
        self._event("not_finite", failed_step=pending.step, what=what, value=str(value), rows=rows)
        raise TrainingError(f"the {what} of step {pending.step} is {value}. It was reading {rows}. {kept}. Look at these rows, or lower the learning rate.")

    def _log(self) -> None:
        self._collect(keep=0)
        index, progress = self.timetable.progress(self.step)
        measured = self.meter.line(self._seconds(), self.router.health(self.stepper.decoder.clamps()))
        indexer = self.indexers.health()
        self.router.clear()
        self.indexers.clear()
        rate = self.timetable.learning_rate(self.step - 1)
        line = {"step": self.step, "phase": self.settings.phases[index].name, "progress": progress, "learning_rate": rate, **measured, "indexer": indexer}
        self.journal.metrics(line)
        self.last_line = line
        self._tell("on_metrics", line)

    def _info(self, phase: Phase) -> StepInfo:
        index, progress = self.timetable.progress(self.step)
        planned = [phase.num_steps * cost for phase, cost in zip(self.settings.phases, self.costs, strict=True)]
        return StepInfo(
            step=self.step,
            num_steps=self.timetable.num_steps,
            phase=phase.name,
            progress=(sum(planned[:index]) + progress * planned[index]) / sum(planned),
            seconds_left=self._seconds_left(),
            tokens_per_second=self.last_line.get("tokens_per_second"),
            flop_utilisation=self.last_line.get("flop_utilisation"),
            loss=self.last_loss,
        )

    # -- time ------------------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        """Active seconds over all attempts, as far as they were written down."""
        return self.meter.totals.seconds_before + time.monotonic() - self.begun

    def _seconds_left(self) -> float | None:
        remaining, totals = None if self.remaining is None else self.remaining(), self.meter.totals
        if not totals.steady_planned or (remaining is not None and self.settings.most_steps is None):
            return remaining
        left = self.timetable.steps_left(self.step)
        index = len(self.settings.phases) - len(left)
        work = sum(steps * cost for steps, cost in zip(left, self.costs[index:], strict=True))
        expected = work / totals.steady_planned * totals.steady_seconds
        return expected if remaining is None else min(remaining, expected)  # the text may end before the time does

    def _steer(self) -> None:
        """Decide, write down, and only then let it take effect. Decisions of an earlier attempt come first."""
        if self.steering is None or (self.timetable.decisions and self.step < self.timetable.decisions[-1].at_step):
            return
        decision = self.steering.decide(self.timetable, self.step, self._reserve())
        if decision is not None:
            self._event("steer", **decision.model_dump(mode="json"), steps_before=self.timetable.steps_left(self.step))
            self.timetable.apply(decision)

    def _reserve(self) -> float:
        """Seconds to keep for the last save, and for the first steps of shapes still to come."""
        save = self.writer.last_seconds or 12 * num_trained_parameters(self.settings.model) / WRITE_RATE
        shapes = {shape_of(phase) for phase in self.settings.phases[self.source_phase :]}
        return save + len(shapes - self.stepper.shapes) * self.first_seconds

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        self._report_save()
        if self.writer.busy or self.step >= self.timetable.num_steps:
            return
        interval = max(self.settings.checkpoint_seconds, self.writer.last_seconds / SAVE_SHARE)
        if time.monotonic() - self.saved_at < interval:
            return
        left = self._seconds_left()
        if left is not None and left < max(2 * self.writer.last_seconds, LAST_STRETCH):
            return
        self._save()

    def _save(self) -> None:
        self._collect(keep=0)
        self.journal.sync()
        rest = {f"router.{name}": tensor for name, tensor in self.stepper.decoder.router_state().items()}
        rest |= {f"sums.{name}": tensor for name, tensor in self.router.tensors.items()}
        rest |= {f"index_sums.{name}": tensor for name, tensor in self.indexers.tensors.items()}
        rest["random"] = torch.get_rng_state()
        index, progress = self.timetable.progress(self.step)
        phase = self.settings.phases[index]
        done = self.step - sum(course.num_steps for course in self.timetable.courses[:index])
        state = {
            "phase": phase.name,
            "progress": progress,
            "sample_counter": done * phase.rows * phase.accumulation,
            "decisions": [decision.model_dump(mode="json") for decision in self.timetable.decisions],
            "meter": self.meter.state(self._seconds()),
            "settings": self.settings.result_settings(),
            "torch": torch.__version__,
        }
        optimizer = self.stepper.optimizer
        weights = {**optimizer.masters, **self.stepper.decoder.selection_biases()}
        self.writer.save(checkpoints.Checkpoint(self.step, weights, optimizer.moments, rest, state))
        self.saved_step, self.saved_at = self.step, time.monotonic()

    def _report_save(self) -> None:
        self.writer.check()
        saved = self.writer.finished()
        if saved is not None:
            self._event("checkpoint", **saved)

    # -- signals, events, callbacks --------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM: finish the step, save, stop. A second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, _: FrameType | None) -> None:
            self.signal = number
            signal.signal(number, before[number] or signal.SIG_DFL)

        try:
            for number in before:
                signal.signal(number, note)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _stop_on_signal(self) -> None:
        assert self.signal is not None
        name = signal.Signals(self.signal).name
        if self.saved_step != self.step:
            self._save()
        self.writer.wait()
        self._report_save()
        self._event("stopped", signal=name)
        raise RunError(f"stopped by {name} after step {self.step} of {self.timetable.num_steps}; a checkpoint was saved. `hagane resume` goes on from there.")

    def _event(self, event: str, **fields: Any) -> None:
        self._tell("on_event", self.journal.event(self.step, event, **fields))

    def _tell(self, method: str, *arguments: Any) -> None:
        for callback in list(self.callbacks):
            try:
                getattr(callback, method)(*arguments)
            except Exception as error:  # a tracker that fails must not cost a run
                self.callbacks.remove(callback)
                message = f"{type(callback).__name__}.{method} failed ({type(error).__name__}: {error}); it is not called again."
                self._event("callback_failed", message=message)


def _merged(saved: Sequence[dict[str, Any]], written: Sequence[Decision]) -> list[Decision]:
    """Decisions of the checkpoint and of events.jsonl, each once, in order."""
    by_number = {decision.number: decision for decision in (*(Decision.model_validate(_tuple_steps(item)) for item in saved), *written)}
    return [by_number[number] for number in sorted(by_number)]


def _tuple_steps(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "steps": tuple(item["steps"])}


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, atomically; copy it where the file system has no links."""
    temporary = target.with_name(f"{target.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
        checkpoints.sync_file(temporary)
    temporary.replace(target)
