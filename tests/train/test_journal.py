"""Lines are whole, decisions survive, metrics past a restored step go."""

import errno
import json
from pathlib import Path

import pytest

from hagane.errors import RunError
from hagane.train import journal as module
from hagane.train.journal import Journal
from hagane.train.schedule import Decision


def test_metrics_past_the_restored_step_are_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (1, 5, 10, 15):
        journal.metrics({"step": step, "seconds": step / 10})
    assert journal.cut(10) == 1.5  # the time is known even of what is cut
    journal.metrics({"step": 12, "seconds": 2.0})
    journal.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 5, 10, 12]


@pytest.mark.parametrize("torn", [b'{"step": 10, "lo', b"\0\0\0\0\n", b'{"step": 10}', b"half\n" + b'{"step": 3}\n'])
def test_a_torn_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 5, "seconds": 1}\n' + torn)
    journal = Journal(tmp_path)
    journal.metrics({"step": 6, "seconds": 2})
    assert [line["step"] for line in journal.read("metrics.jsonl")] == [5, 6]


def test_decisions_come_back(tmp_path: Path) -> None:
    decision = Decision(number=0, at_step=7, steps=(5, 6))
    journal = Journal(tmp_path)
    line = journal.event(7, "steer", **decision.model_dump(mode="json"))
    journal.event(8, "checkpoint", path="step-00000008")
    assert line["event"] == "steer" and line["step"] == 7 and line["time"] > 1e9
    assert Journal(tmp_path).decisions() == [decision]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(RunError, match=r"disk is full: .*events\.jsonl.*Free some space"):
        journal.event(1, "start")
