"""The tune stage: a graph of named steps, each its own folder, checkpoints and facts. Every step is the one training loop."""

from __future__ import annotations

import json
from pathlib import Path

from hagane.folder import Run, read_json, write_atomic
from hagane.recipe.types import Frozen
from hagane.train.facts import TrainFacts
from hagane.train.stage import train_phases, weights_before


class TuneFacts(Frozen):
    """Facts of every step, in order; `result` is the folder of the last one, or of the stage before where nothing is tuned."""

    steps: dict[str, TrainFacts]
    result: str


def run_stage(run: Run, folder: Path) -> TuneFacts:
    """Do the steps in order; a finished one is skipped when the stage is resumed."""
    steps: dict[str, TrainFacts] = {}
    result = weights_before(run, "tune").name
    if run.recipe.tune.share <= 0:
        return TuneFacts(steps={}, result=result)
    for step in run.recipe.tune.steps:
        own, done = folder / step.name, folder / step.name / "step.json"
        own.mkdir(exist_ok=True)
        if done.exists():
            steps[step.name] = TrainFacts.model_validate(read_json(done))
        else:
            parent = step.from_[0]
            start = weights_before(run, "tune") if parent == "midtrain" else run.folder / f"tune/{parent}"
            steps[step.name] = train_phases(run, own, f"tune/{step.name}", start / "weights.safetensors")
            write_atomic(done, json.dumps(steps[step.name].model_dump(mode="json")))
        result = f"tune/{step.name}"
    return TuneFacts(steps=steps, result=result)


def trained_folder(run: Run) -> Path:
    """The folder with the run's final weights: the last tune step, or the last stage of pretraining."""
    return run.folder / str(run.facts("tune")["result"])
