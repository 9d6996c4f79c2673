"""A checkpoint is whole or not there; damage is found and named; a full disk harms nothing that was saved before."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch

from hagane.errors import RunError, TrainingError
from hagane.train import checkpoint
from hagane.train.checkpoint import Checkpoint, Writer, complete, newest, read, write


def made(step: int, size: int = 100) -> Checkpoint:
    tensors = {"a.weight": torch.full((size,), float(step)), "b": torch.arange(6).reshape(2, 3)}
    return Checkpoint(step, tensors, {"a.weight.mean": torch.zeros(3)}, {"random": torch.get_rng_state()}, {"meter": {"loss": 0.1 + 0.2}})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, made(12), keep=2)
    assert path.name == "step-00000012"
    again, problems = newest(tmp_path)
    assert problems == []
    assert again.step == 12 and again.state["meter"] == {"loss": 0.1 + 0.2}
    for group in checkpoint.GROUPS:
        for name, tensor in getattr(made(12), group).items():
            assert torch.equal(getattr(again, group)[name], tensor)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        write(tmp_path, made(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]


def test_one_that_was_not_deleted_in_time_is_deleted_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (5, 10):
        write(tmp_path, made(step), keep=2)
    with monkeypatch.context() as killed:
        killed.setattr(checkpoint, "_remove", lambda path: None)
        write(tmp_path, made(15), keep=2)
    assert len(complete(tmp_path)) == 3
    saved, problems = Writer(tmp_path, keep=2).newest()
    assert saved.step == 15 and problems == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]


def test_where_the_newest_is_broken_none_is_deleted(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        write(tmp_path, made(step), keep=3)
    (tmp_path / "step-00000015" / "rest.safetensors").unlink()
    saved, (problem,) = Writer(tmp_path, keep=1).newest()
    assert saved.step == 10 and "step-00000015" in problem
    assert len(complete(tmp_path)) == 3


def test_nothing_yet(tmp_path: Path) -> None:
    assert newest(tmp_path / "checkpoints") == (None, [])


@pytest.mark.parametrize("name", ["masters.safetensors", "moments.safetensors", "rest.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_broken_one_is_named_and_the_one_before_is_used(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path, made(5), keep=3)
    file = write(tmp_path, made(10), keep=3) / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    found, (problem,) = newest(tmp_path)
    assert found.step == 5
    assert "step-00000010" in problem
    with pytest.raises(TrainingError, match="step-00000010"):
        read(file.parent)


def test_where_all_are_broken_training_does_not_start_anew_in_silence(tmp_path: Path) -> None:
    for step in (5, 10):
        (write(tmp_path, made(step), keep=3) / "state.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"no checkpoint in .* is whole.*step-00000010.*step-00000005.*delete the folder"):
        newest(tmp_path)


def test_leftovers_of_a_kill_are_cleared(tmp_path: Path) -> None:
    write(tmp_path, made(5), keep=2)
    half = tmp_path / f"{checkpoint._TEMPORARY}step-00000010"
    half.mkdir()
    (half / "masters.safetensors").write_bytes(b"half of it")
    assert newest(tmp_path)[0].step == 5
    assert not half.exists()


def test_the_writer_saves_what_was_there_when_asked(tmp_path: Path) -> None:
    writer, checkpoint = Writer(tmp_path, 2), made(7)
    writer.save(checkpoint)
    checkpoint.masters["a.weight"].zero_()  # training goes on
    writer.wait()
    saved = writer.finished()
    assert saved["path"] == "step-00000007" and saved["bytes"] > 0
    assert writer.finished() is None
    assert torch.equal(newest(tmp_path)[0].masters["a.weight"], made(7).masters["a.weight"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_save_that_fails_leaves_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    writer = Writer(tmp_path, 2)
    writer.save(made(5))
    writer.wait()

    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(checkpoint, "sync_file", fail)
    writer.save(made(10))
    with pytest.raises(RunError, match="disk is full.*Free some space" if number == errno.ENOSPC else "could not be written"):
        writer.wait()
    assert [path.name for path in complete(tmp_path)] == ["step-00000005"]
    assert newest(tmp_path)[0].step == 5
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        writer = Writer(small / "checkpoints", 2)
        writer.save(made(5, 100_000))
        writer.wait()
        writer.save(made(10, 100_000))
        with pytest.raises(RunError, match="disk is full"):
            writer.wait()
        assert newest(small / "checkpoints")[0].step == 5
    finally:
        subprocess.run(["umount", str(small)], check=True)
