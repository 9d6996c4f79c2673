"""The plan stage of a run: `plan` chooses, and the step of the shape it chose is timed here before the plan is frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hagane.folder import Run
from hagane.measure.machine import add_step, cores, profile, step_key
from hagane.measure.start import refuse_strangers
from hagane.model.config import ModelConfig
from hagane.model.count import num_trained_parameters
from hagane.plan.contexts import contexts
from hagane.plan.cost import COPY_BYTES, expected_step, step_work
from hagane.plan.facts import PlanFacts
from hagane.plan.shapes import shape
from hagane.plan.sketch import MINIMUM_STEPS
from hagane.plan.stage import known_from, make_plan
from hagane.plan.start import starting_folder
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import Machine, StepRate

TIMED_SHARE, TIMED_SECONDS = 0.015, (4.0, 30.0)  # of what is left of the budget, and at least and at most: speed varies from second to second
# Without steering nothing corrects a step that was timed in a bad minute: one of 9 s was 15 % too slow (docs/notebook.md, "Promised and kept").
FROZEN_TIMED_SHARE, FROZEN_TIMED_SECONDS = 0.05, (9.0, 60.0)
QUICK_SECONDS = 1.0  # of steps that only tell batches apart
COMPILED_QUICKLY = 3600.0  # seconds left from which on it pays to compile such steps
ANOTHER_MACHINE = 1.3  # a step timed today that differs from the kept one by more than this factor says that the machine has changed
FEW_STEPS = 6 * MINIMUM_STEPS  # of a budget of 100 s, half is training, of which half is promised
USUAL_STEP = {"cpu": ((256, 5), 16, 256), "cuda": ((1024, 16), 64, 1024)}  # width and layers, rows, context
USUAL_SECONDS = 5.0

READING_BYTES = 64 << 20  # shards, packed rows, journal, TensorBoard: by how much training outgrew the timed steps


def run_stage(run: Run, folder: Path) -> PlanFacts:
    """Choose under the budget and write the plan. A step of the chosen shape is timed at every context unless the kept profile has it and the run may steer.

    A run that may not steer times one in any case, for longer, and counts on the middle of that and of what whole runs took before.
    """
    start = starting_folder(run.recipe)
    if start is not None:
        refuse_strangers(run, start)
    spent = {stage: run.record(stage)["seconds"] for stage in ("corpus", "tokenizer") if run.record(stage)}  # type: ignore[index]
    known = known_from(run.facts("corpus"), run.facts("tokenizer"), run.sketch.sample_bytes)
    timer = _Timer(run)
    return make_plan(run.recipe, run.pinned_size, run.machine, known, run.sketch, run.remaining, timer.step, spent, run.law, timer.quickly)


@dataclass(frozen=True)
class _Timer:
    """Times micro-steps of shapes that the plan asks about; what was timed is kept in the machine's profile."""

    run: Run

    def step(self, config: ModelConfig, rows: int, context: int) -> StepRate:
        """A micro-step as training will take it."""
        run, execution = self.run, self.run.recipe.execution
        num_contexts, compiled = len(contexts(run.recipe)), self._compiled(config)
        key = step_key(run.recipe, config, rows, context)
        kept = profile(execution.device, execution.threads)
        before = kept.steps.get(key)
        told = f"a step of width {config.width}, {config.num_layers} layers{f', context {context:,}' if num_contexts > 1 else ''}"
        if before is not None and before.expected is None and (expected := expected_of(run.recipe, run.machine, config, rows, context)) is not None:
            before = before.model_copy(update={"expected": expected})  # kept before overheads were
            add_step(kept, key, before, execution.threads)
        if before is not None and execution.steer and not self._leaves_few(before):
            run.say(f"plan       {told} took {before.step_seconds * 1e3:.0f} ms before{'; compiling it' if compiled else ''}")
            if not compiled:
                return before.model_copy(update={"compile_seconds": 0.0})
            seconds = 0.0
        else:
            run.say(f"plan       timing {told}{' (compiling it the first time)' if compiled else ''}")
            share, (least, most) = (TIMED_SHARE, TIMED_SECONDS) if execution.steer else (FROZEN_TIMED_SHARE, FROZEN_TIMED_SECONDS)
            seconds = min(max(share * (run.remaining() or 0.0), least), most) / num_contexts
        # one that is known too: what training compiles is then compiled, and its seconds, few or many, are behind us
        rate = self._timed(config, rows, context, seconds)
        if before is not None and not seconds:
            return before.model_copy(update={"compile_seconds": 0.0})
        run.say(f"plan       {rate.step_seconds * 1e3:.0f} ms a step, {rate.tokens_per_second:,.0f} tokens/s")
        if before is not None:
            rate = between(rate, before)
        if run.machine.device == "cpu":
            rate = rate.model_copy(update={"peak_memory_bytes": rate.peak_memory_bytes + READING_BYTES + COPY_BYTES * num_trained_parameters(config)})
        add_step(kept, key, rate, execution.threads)
        return rate

    def _leaves_few(self, before: StepRate) -> bool:
        """Whether so few steps are left at the kept speed that a plan may refuse for it: timed in a bad minute, it must not decide that."""
        left = self.run.remaining()
        return left is not None and left < FEW_STEPS * before.step_seconds

    def quickly(self, config: ModelConfig, rows: int, context: int) -> StepRate | None:
        """A micro-step that only tells batches apart; None where compiling it would cost more than a better batch brings."""
        run, execution, left = self.run, self.run.recipe.execution, self.run.remaining()
        if self._compiled(config) and left is not None and left < COMPILED_QUICKLY:
            return None
        key = f"{step_key(run.recipe, config, rows, context)}-quick"
        kept = profile(execution.device, execution.threads)
        if key in kept.steps:
            return kept.steps[key]
        rate = self._timed(config, rows, context, QUICK_SECONDS)
        run.say(f"plan       {rate.step_seconds * 1e3:.0f} ms for {rows} rows of {context} tokens")
        add_step(kept, key, rate, execution.threads)
        return rate

    def _compiled(self, config: ModelConfig) -> bool:
        from hagane.train.stepper import compiles

        return self.run.recipe.execution.compile and compiles(config, device=self.run.machine.device, dtype=self.run.recipe.train.dtype)

    def _timed(self, config: ModelConfig, rows: int, context: int, seconds: float) -> StepRate:
        return timed_step(self.run.recipe, self.run.machine, config, rows, context, seconds)


def timed_step(recipe: Recipe, machine: Machine, config: ModelConfig, rows: int, context: int, seconds: float) -> StepRate:
    """A micro-step timed for so many seconds after it was compiled, with what was expected of it."""
    from hagane.train.probe import time_steps

    execution, train = recipe.execution, recipe.train
    rate = time_steps(
        config, rows, context, device=machine.device, threads=execution.threads or cores(), compile=execution.compile, dtype=train.dtype,
        optimizer=train.optimizer, steps=500, seconds=seconds,
    )  # fmt: skip
    return rate.model_copy(update={"compile_seconds": 0.0, "expected": expected_of(recipe, machine, config, rows, context)})


def expected_of(recipe: Recipe, machine: Machine, config: ModelConfig, rows: int, context: int) -> tuple[float, float] | None:
    """What was expected of a micro-step; None where the constants of a machine's overhead are not of such steps: eager ones, or in float32."""
    if not recipe.execution.compile or recipe.train.dtype != "bfloat16":
        return None
    return expected_step(step_work(config, context), rows * context, machine)


def time_usual(recipe: Recipe, say: Callable[[str], None]) -> Machine:
    """The machine measured anew, and on it the step of a usual shape of the recipe, from which the overhead of others follows before any was trained."""
    execution = recipe.execution
    machine = profile(execution.device, execution.threads, renew=True, say=say)
    (width, num_layers), rows, context = USUAL_STEP[machine.device]
    vocabulary = min(recipe.tokenizer.candidates)
    config = shape(recipe.model.pattern, SizeSettings(), width=width, num_layers=num_layers, vocabulary_size=vocabulary, context=context)
    say(f"timing a step of width {width}, {num_layers} layers (compiling it may take half a minute)")
    rate = timed_step(recipe, machine, config, rows, context, USUAL_SECONDS)
    return add_step(machine, step_key(recipe, config, rows, context), rate, execution.threads)


def between(now: StepRate, before: StepRate) -> StepRate:
    """What to count on where a step was timed today and before: the geometric mean of both, or today's alone where the machine has changed."""
    ratio = before.step_seconds / now.step_seconds
    if not 1 / ANOTHER_MACHINE <= ratio <= ANOTHER_MACHINE:
        return now
    return now.model_copy(update={"step_seconds": now.step_seconds * ratio**0.5, "tokens_per_second": now.tokens_per_second / ratio**0.5})
