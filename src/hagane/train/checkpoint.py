"""Checkpoints: everything a stage needs to go on bit for bit, whole or not there.

    checkpoints/step-00001234/
      masters.safetensors   float32 weights by canonical name
      moments.safetensors   AdamW's, `{name}.mean` and `{name}.square`
      rest.safetensors      router state, meter sums, random states
      state.json            step, sample counter, decisions, meter totals; size and SHA-256 of each file, and of itself

Written under another name, synced, renamed. The newest that reads back whole is used; a broken one is named. A background thread of low
priority writes from a copy, so that training waits for the copy only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hagane.errors import TrainingError
from hagane.train.journal import cannot_write

FORMAT = 1
GROUPS = ("masters", "moments", "rest")
_TEMPORARY = ".writing-"


@dataclass
class Checkpoint:
    """What is saved: tensors in three groups, and plain values."""

    step: int
    masters: dict[str, Tensor]
    moments: dict[str, Tensor]
    rest: dict[str, Tensor]
    state: dict[str, Any]


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def write(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write one checkpoint under `folder` and delete all but the newest `keep`. Raises OSError; what was there before stays."""
    temporary = folder / f"{_TEMPORARY}{folder_name(checkpoint.step)}"
    final = folder / folder_name(checkpoint.step)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        files = {}
        for group in GROUPS:
            path = temporary / f"{group}.safetensors"
            save_tensors(getattr(checkpoint, group), path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
        state = {"format": FORMAT, "step": checkpoint.step, **checkpoint.state, "files": files}
        state["sha256"] = _digest_of(state)
        write_text(temporary / "state.json", json.dumps(state, indent=1))
        sync_folder(temporary)
        if final.exists():  # a broken one: the whole one before it was used, and training has come here again
            _remove(final)
        temporary.rename(final)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _keep_newest(folder, keep)
    return final


def _keep_newest(folder: Path, keep: int) -> None:
    for old in complete(folder)[keep:]:
        _remove(old)


def complete(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first. What is inside has not been looked at."""
    return sorted(folder.glob("step-*"), reverse=True) if folder.exists() else []


def read(path: Path) -> Checkpoint:
    """Read one checkpoint and check every byte of it. Raises TrainingError that says what is wrong with it."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise TrainingError(f"{path} has checkpoint format {state['format']}; this version of hagane reads {FORMAT}.")
        if state.pop("sha256") != _digest_of(state):
            raise TrainingError(f"{path}/state.json does not match its checksum")
        tensors = {}
        for name, expected in state.pop("files").items():
            file = path / name
            if file.stat().st_size != expected["bytes"]:
                raise TrainingError(f"{file} has {file.stat().st_size:,} bytes instead of {expected['bytes']:,}")
            if _digest(file) != expected["sha256"]:
                raise TrainingError(f"{file} does not match its checksum")
            tensors[name.removesuffix(".safetensors")] = load_file(file)
        return Checkpoint(step=state.pop("step"), state=state, **tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole (None where there is none), and what is wrong with newer ones.

    Raises TrainingError where there are checkpoints and not one is whole: training must not start again in silence.
    """
    for leftover in folder.glob(f"{_TEMPORARY}*") if folder.exists() else ():
        shutil.rmtree(leftover, ignore_errors=True)
    problems: list[str] = []
    for path in complete(folder):
        try:
            return read(path), problems
        except TrainingError as error:
            problems.append(str(error))
    if problems:
        raise TrainingError(f"no checkpoint in {folder} is whole: {'; '.join(problems)}. Put a good copy there, or delete the folder to train from the start.")
    return None, []


class Writer:
    """Saves in the background from a copy. One save at a time."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep
        self._copies: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._saved: dict[str, Any] | None = None
        self.last_seconds = 0.0  # of the last save, copy and writing

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """See `newest`. Where all is well, what a kill after the last save left to delete is deleted."""
        saved, problems = newest(self.folder)
        if saved is not None and not problems:
            _keep_newest(self.folder, self._keep)
        return saved, problems

    def save(self, checkpoint: Checkpoint) -> None:
        """Copy, and begin to write. Raises RunError if the save before failed."""
        self.wait()
        begun = time.perf_counter()
        copy = Checkpoint(checkpoint.step, **{group: self._copy(group, getattr(checkpoint, group)) for group in GROUPS}, state=checkpoint.state)
        blocked = time.perf_counter() - begun
        self._thread = threading.Thread(target=self._write, args=(copy, begun, blocked), name="hagane-checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written. Raises RunError where writing failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise RunError if a save has failed, without waiting."""
        error, self._error = self._error, None
        if isinstance(error, OSError):
            raise cannot_write(self.folder, error) from error
        if error is not None:
            raise error

    def finished(self) -> dict[str, Any] | None:
        """What there is to say about a save that has finished since the last call."""
        if self.busy:
            return None
        saved, self._saved = self._saved, None
        return saved

    def _copy(self, group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        copies = self._copies[group]
        for name, tensor in tensors.items():
            if name not in copies or copies[name].shape != tensor.shape:
                copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            copies[name].copy_(tensor.detach(), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()
        return {name: copies[name] for name in tensors}

    def _write(self, checkpoint: Checkpoint, begun: float, blocked: float) -> None:
        try:
            if sys.platform == "linux":  # where threads have a priority of their own: the writer takes what training leaves
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
            path = write(self.folder, checkpoint, self._keep)
            self.last_seconds = time.perf_counter() - begun
            self._saved = {
                "path": path.name,
                "saved_step": checkpoint.step,
                "blocked_seconds": round(blocked, 4),
                "seconds": round(self.last_seconds, 4),
                "bytes": sum(file.stat().st_size for file in path.iterdir()),
            }
        except BaseException as error:  # handed to the training thread by `check`
            self._error = error


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """A synced safetensors file. Raises OSError, also where the library has an error of its own for it."""
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise _as_os_error(error, path) from error
    sync_file(path)


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    """safetensors reports `... (os error 28)` as text."""
    text = str(error)
    number = text.rpartition("os error ")[2].split(")")[0] if "os error " in text else ""
    return OSError(int(number), os.strerror(int(number)), str(path)) if number.isdigit() else OSError(5, text, str(path))


def write_text(path: Path, text: str) -> None:
    """A synced text file."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


sync_folder = sync_file  # a folder is synced like a file: its entries then survive a power cut


def _remove(path: Path) -> None:
    """Delete a checkpoint so that a kill in between does not leave half of one under its name."""
    hidden = path.with_name(f"{_TEMPORARY}{path.name}-old")
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
