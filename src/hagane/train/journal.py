"""metrics.jsonl and events.jsonl: one JSON object a line, appended; a line that a kill tore is dropped when the file is opened again.

    metrics  step, phase, progress, tokens, seconds, loss, auxiliary_loss, mtp_loss, learning_rate, gradient_norm, tokens_per_second,
             flop_utilisation, data_seconds, memory_bytes, router
    events   time (seconds since 1970), step, event: start | resume | phase | compiled | steer | checkpoint | broken_checkpoint |
             no_checkpoint | callback_failed | off_budget | stopped | not_finite | done, and what belongs to each
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hagane.errors import RunError
from hagane.train.schedule import Decision

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"
TIMINGS = ("seconds", "tokens_per_second", "flop_utilisation", "data_seconds", "memory_bytes")
"""Fields of a metrics line that depend on the clock or the machine. The others are equal in every repetition."""


def cannot_write(path: Path, error: OSError) -> RunError:
    """The sentence for a file that the system refused to write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"the disk is full: {path} could not be written. The checkpoints written before are whole. Free some space, then resume the run.")
    return RunError(f"{path} could not be written: {error.strerror}. The checkpoints written before are whole. Mend this, then resume the run.")


class Journal:
    """Both files of a stage folder, open for appending."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        try:
            for name in (METRICS, EVENTS):
                self._drop_torn_line(folder / name)
                self._files[name] = (folder / name).open("ab")
        except OSError as error:
            raise cannot_write(folder, error) from error

    def metrics(self, line: dict[str, Any]) -> None:
        self._append(METRICS, line)

    def event(self, step: int, event: str, **fields: Any) -> dict[str, Any]:
        """Append and sync: when this returns, the event survives a power cut. Returns the line."""
        line = {"time": round(time.time(), 3), "step": step, "event": event, **fields}
        self._append(EVENTS, line)
        self.sync(EVENTS)
        return line

    def sync(self, name: str = METRICS) -> None:
        try:
            os.fsync(self._files[name].fileno())
        except OSError as error:
            raise cannot_write(self._folder / name, error) from error

    def decisions(self) -> list[Decision]:
        """Every steering decision ever written here, in order."""
        lines = (line for line in self.read(EVENTS) if line["event"] == "steer")
        return [Decision(number=line["number"], at_step=line["at_step"], steps=tuple(line["steps"])) for line in lines]

    def cut(self, step: int) -> float:
        """Drop metrics past `step`: they will be made again. Returns the active seconds the last line knew of (0 without lines)."""
        lines = list(self.read(METRICS))
        if any(line["step"] > step for line in lines):
            path, temporary = self._folder / METRICS, self._folder / f".{METRICS}.new"
            try:
                with temporary.open("wb") as file:
                    file.writelines(_line(line) for line in lines if line["step"] <= step)
                    file.flush()
                    os.fsync(file.fileno())
                self._files[METRICS].close()
                temporary.replace(path)
                self._files[METRICS] = path.open("ab")
            except OSError as error:
                raise cannot_write(path, error) from error
        return float(lines[-1]["seconds"]) if lines else 0.0

    def read(self, name: str) -> Iterator[dict[str, Any]]:
        """All complete lines."""
        with (self._folder / name).open("rb") as file:
            for line in file:
                yield json.loads(line)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _append(self, name: str, line: dict[str, Any]) -> None:
        try:
            self._files[name].write(_line(line))
            self._files[name].flush()
        except OSError as error:
            raise cannot_write(self._folder / name, error) from error

    @staticmethod
    def _drop_torn_line(path: Path) -> None:
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        # a power cut may leave zeros where a line should be; a line that is not JSON ends what can be trusted
        good = 0
        for line in content[:whole].splitlines(keepends=True):
            try:
                json.loads(line)
            except ValueError:
                break
            good += len(line)
        if good < len(content):
            os.truncate(path, good)


def _line(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, ensure_ascii=False) + "\n").encode()
