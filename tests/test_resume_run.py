"""Kill a whole run anywhere, go on, and end with the same bytes as the run that was never killed."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from toy import SETTINGS, command, environment, hagane, write_recipe

pytestmark = pytest.mark.slow
KILLS = 30


def run_until_killed(folder: Path, recipe: Path, seconds: float) -> bool:
    """Start or go on with the run and kill it after `seconds`; True where it ended by itself before that."""
    arguments = ("resume", folder) if (folder / "environment.json").exists() else ("run", recipe, "--out", folder, *SETTINGS)
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return False
    assert process.returncode == 0, output
    return True


def results(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on when a run was killed."""
    weights = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("weights.safetensors")) if "checkpoints" not in path.parts}
    shards = {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "encode").rglob("*.bin"))}
    return {**weights, **shards, "released": (folder / "release" / "huggingface" / "model.safetensors").read_bytes()}


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for name in ("pretrain", "tune/supervised") for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


@pytest.mark.parametrize("ffn", ["experts"])
def test_thirty_kills_change_nothing(tmp_path, ffn):
    recipe = write_recipe(tmp_path, ffn)
    start = time.monotonic()
    hagane("run", recipe, "--out", tmp_path / "unbroken", *SETTINGS)
    whole = time.monotonic() - start
    moments, kills = random.Random(0), 0
    # Half of the kills fall anywhere in the life of a process, half shortly after training resumes: in a step or in a save.
    while kills < KILLS:
        seconds = moments.uniform(0.5, whole) if kills % 2 else moments.uniform(2.5, 6.0)
        if run_until_killed(tmp_path / "killed", recipe, seconds):
            break
        kills += 1
    if not (tmp_path / "killed" / "release" / "facts.json").exists():
        assert run_until_killed(tmp_path / "killed", recipe, 600)
    assert results(tmp_path / "killed") == results(tmp_path / "unbroken")
    assert losses(tmp_path / "killed") == losses(tmp_path / "unbroken")
    assert kills >= 3
