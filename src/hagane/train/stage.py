"""The training stages of a run: the plan's phases, the run's clock, the loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from hagane.folder import Run, read_json, write_atomic
from hagane.hosts.checkpoint import read_published
from hagane.hosts.vocabulary import grown
from hagane.measure.machine import add_step, cores, profile, step_key
from hagane.measure.stage import expected_of
from hagane.plan.facts import PlanFacts
from hagane.plan.start import starting_folder
from hagane.recipe.types import StepRate
from hagane.tokenizer.save import load_pieces
from hagane.train import callbacks
from hagane.train.facts import TrainFacts
from hagane.train.loop import train
from hagane.train.settings import TrainSettings

START = "start.safetensors"  # the checkpoint's weights under our names, while training needs them
STEPS_TO_REMEMBER = 50  # of fewer the speed is a chance one


def run_pretrain(run: Run, folder: Path) -> TrainFacts:
    """Train on the text of the corpus, from initial weights or from a checkpoint's. What a step took is kept: the next plan of this shape counts on it."""
    start = starting_folder(run.recipe)
    initial = None if start is None else folder / START
    if start is not None and initial is not None and not initial.exists():
        plan = PlanFacts.model_validate(run.facts("plan"))
        weights = grown(read_published(start), plan.vocabulary_size, load_pieces(run.path("encode")))
        save_file(weights.state, folder / f".{START}")
        (folder / f".{START}").replace(initial)
    facts = train_phases(run, folder, "pretrain", initial)
    if initial is not None:
        initial.unlink(missing_ok=True)  # as large as the result, and the checkpoint is still where it was
    if facts.tokens_per_second is not None and facts.steps >= STEPS_TO_REMEMBER:
        plan, execution = PlanFacts.model_validate(run.facts("plan")), run.recipe.execution
        phase, *others = plan.phases["pretrain"]
        if others:  # a mean over contexts says nothing of a step
            return facts
        rate = StepRate(
            tokens_per_second=facts.tokens_per_second,
            step_seconds=phase.rows * phase.context / facts.tokens_per_second,
            compile_seconds=facts.compile_seconds,
            peak_memory_bytes=facts.peak_memory_bytes,
            expected=expected_of(run.recipe, run.machine, plan.model, phase.rows, phase.context),
        )
        kept = profile(execution.device, execution.threads)
        add_step(kept, step_key(run.recipe, plan.model, phase.rows, phase.context), rate, execution.threads)
    return facts


def run_midtrain(run: Run, folder: Path) -> TrainFacts:
    """Train on with the second mixture; no steps where the recipe has none."""
    return train_phases(run, folder, "midtrain", run.path("pretrain") / "weights.safetensors")


def run_extend(run: Run, folder: Path) -> TrainFacts:
    """Train on with interpolated positions and longer rows; no steps where the recipe has none."""
    return train_phases(run, folder, "extend", weights_before(run, "extend") / "weights.safetensors")


def weights_before(run: Run, name: str) -> Path:
    """The folder of the newest weights that stand before `extend` or `tune`: stages without steps leave none."""
    before = ("extend", "midtrain") if name == "tune" else ("midtrain",)
    return run.path(next((stage for stage in before if (run.path(stage) / "weights.safetensors").exists()), "pretrain"))


def train_phases(run: Run, folder: Path, name: str, initial: Path | None) -> TrainFacts:
    """The planned phases of one stage or tune step, steered where the budget is one of time."""
    plan = PlanFacts.model_validate(run.facts("plan"))
    phases = plan.phases.get(name)
    if not phases:
        return TrainFacts.none()
    execution = run.recipe.execution
    known = [seconds for phase in phases if (seconds := plan.step_seconds_of(phase)) is not None]
    settings = TrainSettings(
        folder=folder, model=plan.model_of(name), phases=phases, most_steps=plan.most_steps_of(name),
        step_seconds=tuple(known) if len(known) == len(phases) else None,
        data=(run.path("encode"), run.path("converse")), initial=initial, seed=run.seed, device=run.machine.device,
        threads=execution.threads or cores(), compile=execution.compile, dtype=run.recipe.train.dtype, checkpoint_seconds=execution.checkpoint_seconds,
        matmul_flops=run.machine.matmul_flops, power_watts=run.machine.power_watts, log_every=execution.log_every, keep_checkpoints=execution.keep_checkpoints,
    )  # fmt: skip
    begun = _joules_before(run, folder)
    facts = train(settings, remaining=deadline(run, folder, plan, name), callbacks=callbacks.standard(settings, name, tensorboard=execution.tensorboard))
    ended = run.clock.joules()
    return facts if begun is None or ended is None else facts.model_copy(update={"joules": ended - begun, "counted": True})


def _joules_before(run: Run, folder: Path) -> float | None:
    """What the run had counted when this stage first started, written down then; None where nothing counts."""
    path = folder / "energy.json"
    if not path.exists():
        write_atomic(path, json.dumps({"begun": run.clock.joules()}))
    begun: float | None = read_json(path)["begun"]
    return begun


def deadline(run: Run, folder: Path, plan: PlanFacts, name: str) -> Callable[[], float] | None:
    """Seconds left for a training stage, or None where nothing is steered.

    When the stage first starts, what the budget leaves is shared between it and the training after it as the plan did; the
    moment it must end is written down, so that a resumed stage keeps it.
    """
    if not run.recipe.execution.steer or run.remaining() is None:
        return None
    path = folder / "deadline.json"
    if not path.exists():
        order = list(plan.phases)
        here = plan.stages[name].seconds
        later = sum(plan.stages[other].seconds for other in order[order.index(name) + 1 :])
        left = run.remaining(sum(plan.stages[other].seconds for other in _others_after(plan, name)))
        assert left is not None
        write_atomic(path, json.dumps({"ends_at": run.clock.spent() + left * here / (here + later)}))
    ends_at = float(read_json(path)["ends_at"])
    return lambda: ends_at - run.clock.spent()


def _others_after(plan: PlanFacts, name: str) -> list[str]:
    """Stages after `name` that do not train and take a part of the budget."""
    made = "converse" in plan.stages and not name.startswith("tune/")
    return [*(["converse"] if made else []), "evaluate", "release"]
