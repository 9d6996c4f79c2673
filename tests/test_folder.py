"""The run folder keeps its promises: whole or not at all, one process at a time, nothing lost."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from hagane.errors import RunError
from hagane.folder import FORMAT, Clock, Environment, Run, file_digest, folder_digest, lock, open_environment, write_atomic
from hagane.recipe.load import load_recipe
from hagane.recipe.types import Machine

MACHINE = Machine(name="test", device="cpu", num_cores=2, memory_bytes=8 << 30, matmul_flops=4e11, bandwidth=2e10, power_watts=31, power_source="test")


def run_in(folder, **changes):
    recipe, _ = load_recipe("quickstart")
    environment = Environment(format=FORMAT, hagane="0", versions={}, machine=MACHINE, seed=0, settings={})
    return Run(folder, recipe.model_copy(update=changes), environment)


def test_a_stage_folder_appears_whole_or_not_at_all(tmp_path):
    run = run_in(tmp_path)
    with pytest.raises(ValueError, match="broken"), run.writing("corpus") as folder:
        (folder / "part").write_text("half")
        raise ValueError("broken")
    assert not run.path("corpus").exists() and not list(tmp_path.glob(".corpus*"))
    with run.writing("corpus") as folder:
        (folder / "part").write_text("whole")
    assert (run.path("corpus") / "part").read_text() == "whole"


def test_a_superseded_result_is_kept(tmp_path):
    run = run_in(tmp_path)
    with run.writing("tune/one") as folder:
        (folder / "weights").write_text("precious")
    run.supersede("tune/one")
    assert not run.path("tune/one").exists()
    assert [path.read_text() for path in (tmp_path / "superseded").rglob("weights")] == ["precious"]


def test_two_at_once_are_refused_and_a_killed_holder_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from hagane.folder import lock; held = lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=rf"in use by process {holder.pid}"):
        lock(tmp_path)
    holder.kill()
    holder.wait()
    lock(tmp_path).close()


def test_the_clock_counts_active_seconds_over_attempts(tmp_path):
    first = Clock(tmp_path / "clock.json", time.monotonic() - 5)
    first.start()
    first.stop()
    second = Clock(tmp_path / "clock.json", time.monotonic() - 2)
    assert 6.9 < second.seconds() < 7.5 and second.attempts == 2
    second.restart()
    assert 1.9 < second.spent() < 2.5


def test_a_folder_of_a_newer_version_is_refused(tmp_path):
    write_atomic(tmp_path / "environment.json", json.dumps({"format": FORMAT + 1}))
    with pytest.raises(RunError, match="newer hagane"):
        open_environment(tmp_path)


@pytest.mark.parametrize(("content", "message"), [("", "damaged"), ("[]", "damaged"), ('{"format": "x"}', "damaged")])
def test_a_damaged_environment_is_named(tmp_path, content, message):
    (tmp_path / "environment.json").write_text(content)
    with pytest.raises(RunError, match=message):
        open_environment(tmp_path)


def test_no_folder_and_no_permission_are_sentences(tmp_path):
    with pytest.raises(RunError, match="there is no run folder"):
        open_environment(tmp_path / "nowhere")
    with pytest.raises(RunError, match="cannot be written"):
        write_atomic(tmp_path / "missing" / "file", "x")


def test_a_full_disk_is_said_by_small_files_too(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match=r"disk of .* is full"):
        write_atomic(tmp_path / "file", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_the_old_result(tmp_path):
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        run = run_in(tmp_path)
        with run.writing("corpus") as folder:
            (folder / "small").write_text("kept")
        with pytest.raises(RunError, match=r"disk of .* is full"), run.writing("corpus") as folder:
            (folder / "large").write_bytes(b"x" * 200_000)
        assert (run.path("corpus") / "small").read_text() == "kept"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_digests_change_with_content_and_name_only(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a").write_bytes(b"x" * 3_000_000)
    os.utime(two / "a", (1, 1))
    assert folder_digest(one) == folder_digest(two)
    (two / "a").write_bytes(b"x" * 2_999_999 + b"y")
    assert folder_digest(one) != folder_digest(two)
    assert folder_digest(one, frozenset({"a"})) == folder_digest(two, frozenset({"a"}))
    assert file_digest(one / "a") != file_digest(two / "a")
