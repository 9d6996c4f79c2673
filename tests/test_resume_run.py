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
    """Start or go on with the run and kill it `seconds` after it began to write; True where it ended by itself before that."""
    arguments = ("resume", folder) if (folder / "environment.json").exists() else ("run", recipe, "--out", folder, *SETTINGS)
    begun = time.time()
    with (folder.parent / "log").open("w") as log:
        process = subprocess.Popen(command(*arguments), stdout=log, stderr=log, env=environment())
        while process.poll() is None and not wrote_since(folder, begun):
            time.sleep(0.05)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
    assert process.returncode == 0, (folder.parent / "log").read_text()
    return True


def wrote_since(folder: Path, moment: float) -> bool:
    """Whether a stage has written anything; the lock and the clock are written at the start."""
    try:
        return any(
            path.stat().st_mtime > moment
            for path in folder.rglob("*")
            if path.is_file() and path.name not in ("lock", "clock.json", "environment.json", "recipe.toml")
        )
    except FileNotFoundError:  # replaced while we looked
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
    hagane("run", recipe, "--out", tmp_path / "unbroken", *SETTINGS)
    moments, kills, ended = random.Random(0), 0, False
    # Mostly soon after work begins, so that many fit in: in a step, in a save, in encode, in tune. Every fifth may come late.
    while kills < KILLS and not ended:
        ended = run_until_killed(tmp_path / "killed", recipe, moments.uniform(0, 9.0 if kills % 5 == 4 else 0.6))
        kills += not ended
    if not ended:
        assert run_until_killed(tmp_path / "killed", recipe, 600)
    assert results(tmp_path / "killed") == results(tmp_path / "unbroken")
    assert losses(tmp_path / "killed") == losses(tmp_path / "unbroken")
    assert kills >= 8
