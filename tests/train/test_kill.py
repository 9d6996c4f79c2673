"""Killed with SIGKILL at any moment, in a step or in a save, a stage loses at most what was done since the last checkpoint and ends bit-equal."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toy_training as toy

from hagane.train.journal import TIMINGS


class Server:
    """Starts training processes (see toy_training.serve) and kills them."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen([sys.executable, toy.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def train(self, folder: Path, data: Path, asked: dict[str, Any], kill_after: float | None = None, in_a_save: bool = False) -> int:
        """Exit status of a training process; if it has not ended after so many seconds it is killed, `in_a_save` at the next one that is seen to begin."""
        self._process.stdin.write(json.dumps({"folder": str(folder), "data": str(data), "asked": asked}) + "\n")
        self._process.stdin.flush()
        child, ended = int(self._process.stdout.readline()), threading.Event()

        def kill() -> None:
            if ended.wait(kill_after):
                return
            while in_a_save and not any((folder / "checkpoints").glob(".writing-*")):
                if ended.wait(0.0002):
                    return
            os.kill(child, signal.SIGKILL)

        killer = threading.Thread(target=kill) if kill_after is not None else None
        if killer is not None:
            killer.start()
        status = int(self._process.stdout.readline())
        ended.set()
        if killer is not None:
            killer.join()
        return status

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in toy.lines(folder)]


PHASES = [{"num_steps": 26, "accumulation": 2}, {"name": "tune", "collection": "tune", "mixture": {"talk.en": 1.0}, "num_steps": 14, "warmup_steps": 0}]


def endure(server: Server, tmp_path: Path, data: Path, kind: str, dtype: str, kills: int, seed: int, **asked: Any) -> None:
    asked = {"kind": kind, "phases": PHASES, "step_seconds": 0.02, **asked, "settings": {"dtype": dtype, "checkpoint_seconds": 0.05}}
    begun = time.monotonic()
    assert server.train(tmp_path / "whole", data, asked) == 0
    length = time.monotonic() - begun
    draw, killed, starts = random.Random(seed), 0, []
    while killed < kills:
        starts.append(killed)
        assert len(starts) < 20 * kills, "the run ends before it can be killed"
        folder = tmp_path / f"broken-{len(starts)}"
        while killed < kills:  # a run that was killed is started again, until it ends
            status = server.train(folder, data, asked, kill_after=draw.uniform(0.0, 0.6 * length))
            assert status in (0, -signal.SIGKILL)
            if status == 0:
                break
            killed += 1
        assert server.train(folder, data, asked) == 0
        assert toy.digest(folder) == toy.digest(tmp_path / "whole")
        assert timeless(folder) == timeless(tmp_path / "whole")
        assert len(list((folder / "checkpoints").iterdir())) <= 2  # nothing half-written is left


@pytest.mark.parametrize(("kind", "dtype"), [("dense", "bfloat16"), ("routed", "float32")])
def test_a_few_kills(server: Server, tmp_path: Path, data: Path, kind: str, dtype: str) -> None:
    endure(server, tmp_path, data, kind, dtype, kills=4, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype", "kills"), [("dense", "float32", 10), ("routed", "bfloat16", 10), ("bias", "bfloat16", 10)])
def test_thirty_kills(server: Server, tmp_path: Path, data: Path, kind: str, dtype: str, kills: int) -> None:
    endure(server, tmp_path, data, kind, dtype, kills, seed=2)


@pytest.mark.slow
def test_kills_in_the_middle_of_saves(server: Server, tmp_path: Path, data: Path) -> None:
    """Saves follow one another, and each kill waits for one to begin: what is half written then is never taken for a checkpoint."""
    asked = {"kind": "routed", "phases": PHASES, "settings": {"dtype": "bfloat16", "checkpoint_seconds": 0.0}}
    assert server.train(tmp_path / "whole", data, asked) == 0
    folder, halves, kills, draw = tmp_path / "broken", 0, 0, random.Random(3)
    while server.train(folder, data, asked, kill_after=draw.uniform(0.0, 0.5) if kills < 12 else None, in_a_save=True) != 0:
        kills += 1
        halves += any((folder / "checkpoints").glob(".writing-*"))
    assert toy.digest(folder) == toy.digest(tmp_path / "whole")
    assert timeless(folder) == timeless(tmp_path / "whole")
    assert kills > 0, "the run ends before it can be killed"
    assert halves > 0, f"none of {kills} kills fell into a save"
