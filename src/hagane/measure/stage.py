"""The plan stage of a run: `plan` chooses, and the step of the shape it chose is timed here before the plan is frozen."""

from __future__ import annotations

from pathlib import Path

from hagane.folder import Run
from hagane.measure.machine import add_step, cores, profile, step_key
from hagane.model.config import ModelConfig
from hagane.model.count import num_trained_parameters
from hagane.plan.facts import PlanFacts
from hagane.plan.stage import known_from, make_plan
from hagane.recipe.types import StepRate

TIMED_SHARE, TIMED_SECONDS = 0.015, (6.0, 30.0)  # of what is left of the budget, and at least and at most: speed varies from second to second

COPY_BYTES = 12  # per parameter: masters and moments, copied while a checkpoint is written
READING_BYTES = 64 << 20  # shards, packed rows, journal, TensorBoard: by how much training outgrew the timed steps


def run_stage(run: Run, folder: Path) -> PlanFacts:
    """Choose under the budget and write the plan. A step of the chosen shape is timed unless the kept profile has it and the run may steer."""
    execution, train = run.recipe.execution, run.recipe.train

    def time_step(config: ModelConfig, rows: int) -> StepRate:
        key = step_key(run.recipe, config, rows)
        kept = profile(execution.device, execution.threads)
        # without steering nothing corrects a machine that is slower or faster today: look again
        before = kept.steps.get(key) if execution.steer else None
        shape = f"a step of width {config.width}, {config.num_layers} layers"
        if before is not None:
            run.say(f"plan       {shape} took {before.step_seconds * 1e3:.0f} ms before; compiling it")
            seconds = 0.0
        else:
            run.say(f"plan       timing {shape} (compiling it the first time)")
            seconds = min(max(TIMED_SHARE * (run.remaining() or 0.0), TIMED_SECONDS[0]), TIMED_SECONDS[1])
        from hagane.train.probe import time_steps

        # one that is known too: what training compiles is then compiled, and its seconds, few or many, are behind us
        rate = time_steps(
            config,
            rows,
            train.context,
            device=run.machine.device,
            threads=execution.threads or cores(),
            compile=execution.compile,
            dtype=train.dtype,
            optimizer=train.optimizer,
            steps=200,
            seconds=seconds,
        ).model_copy(update={"compile_seconds": 0.0})
        if before is not None:
            return before.model_copy(update={"compile_seconds": 0.0})
        run.say(f"plan       {rate.step_seconds * 1e3:.0f} ms a step, {rate.tokens_per_second:,.0f} tokens/s")
        if run.machine.device == "cpu":
            rate = rate.model_copy(update={"peak_memory_bytes": rate.peak_memory_bytes + READING_BYTES + COPY_BYTES * num_trained_parameters(config)})
        add_step(kept, key, rate, execution.threads)
        return rate

    spent = {stage: run.record(stage)["seconds"] for stage in ("corpus", "tokenizer") if run.record(stage)}  # type: ignore[index]
    known = known_from(run.facts("corpus"), run.facts("tokenizer"))
    return make_plan(run.recipe, run.pinned_size, run.machine, known, run.sketch, run.remaining, time_step, spent, run.law)
