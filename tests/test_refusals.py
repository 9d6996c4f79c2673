"""What is refused before a stage works leaves no folder behind, and one that was there as it was."""

import json
import time

import pytest

from hagane.errors import HaganeError
from hagane.recipe.load import validate
from hagane.recipe.types import Machine
from hagane.run import create
from toy import hagane

MACHINE = Machine(name="test", device="cpu", num_cores=2, memory_bytes=8 << 30, matmul_flops=4e11, bandwidth=2e10, power_watts=31, power_source="test")
UNHELD = {"pattern": {"ffn": "experts", "balance": "bias"}}
REFUSALS = {
    "missing corpus": (lambda folder: {"corpus": {"sources": [{"name": "corpus", "path": str(folder / "nowhere")}]}}, "there is no file or folder"),
    "empty corpus": (lambda folder: {"corpus": {"sources": [{"name": "corpus", "path": str(folder / "empty")}]}}, "is empty"),
    "no corpus": (lambda folder: {"corpus": {"sources": []}}, "names no corpus"),
    "a checkpoint without config.json": (lambda folder: {"start": {"from": str(folder / "empty")}}, "config.json cannot be read"),
    "a checkpoint without weights": (lambda folder: {"start": {"from": str(folder / "bare")}}, "is missing|has no"),
    "no host": (lambda folder: {"model": UNHELD}, "No published architecture can hold"),
    "a small budget": (lambda folder: {"budget": "5s"}, "too small"),
    "a budget of few steps": (lambda folder: {"budget": "200tokens"}, "too few"),
}


def opened(folder, until=None, **changes):
    values = {"name": "x", "budget": "300000tokens", "corpus": {"sources": [{"name": "problems", "path": "embedded:problems"}]}, "train": {"context": 64}}
    return create(folder, validate({**values, **changes}, "test"), "", MACHINE, (), started=time.monotonic(), say=lambda text: None, until=until)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    config = {
        "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    }  # fmt: skip
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config))
    return tmp_path


def state(folder):
    return {path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_leaves_nothing_new_and_nothing_changed(home, name):
    changes, message = REFUSALS[name]
    with pytest.raises(HaganeError, match=message):
        opened(home / "runs" / "new", **changes(home))
    assert not (home / "runs").exists()
    with opened(home / "there"):
        pass
    before = state(home / "there")
    with pytest.raises(HaganeError, match=message):
        opened(home / "there", **changes(home))
    assert state(home / "there") == before


def test_a_stage_that_there_is_not_leaves_nothing(home):
    with pytest.raises(HaganeError, match="there is no stage 'tune2'"):
        opened(home / "run", until="tune2")
    assert not (home / "run").exists()


def test_what_is_no_folder_is_named(home):
    (home / "file").write_text("x")
    with pytest.raises(HaganeError, match=f"^{home / 'file'}: Not a directory"):
        opened(home / "file")


@pytest.mark.parametrize("command", ["ladder", "mix"])
def test_small_runs_without_a_budget_of_time_leave_nothing(tmp_path, command):
    done = hagane(command, "quickstart", "--budget", "300000tokens", "--out", tmp_path / "run", check=False)
    assert done.returncode == 2 and f"hagane {command} is bounded by time" in done.stderr and not (tmp_path / "run").exists()
