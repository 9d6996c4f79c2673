"""The run folder: one place that holds everything a recipe became, written so that a kill at any moment loses nothing.

A stage's folder appears whole (written beside, renamed) or, for training stages, is marked done by `facts.json`, written
last. A lock held by the kernel keeps a second process out and vanishes with a killed one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from hagane.errors import RunError
from hagane.measure.energy import Counter, find_counter
from hagane.plan.law import GENERAL, Law
from hagane.plan.sketch import Sketch, budget_seconds, sketch
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import Budget, Frozen, Machine

FORMAT = 1
LAW = "law.json"
MIXTURE = "mixture.json"
TARGET_SHARE = 0.985  # of a time budget: steering aims a little early, ending late is worse than early


def write_atomic(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise disk_error(error, path) from None
        raise RunError(f"{path} cannot be written: {error.strerror}.") from None


def replace_folder(temporary: Path, folder: Path) -> None:
    """Put a folder in the place of another, which is deleted only after that."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    temporary.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Parse a JSON file of a run; a missing or damaged one is a RunError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: this is not a complete run folder.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise RunError(f"{path} is damaged: it is not valid JSON.") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from None


def file_digest(path: Path) -> str:
    """Content digest of a file: all of it up to 64 MiB, beyond that the size and eight evenly spread MiB."""
    digest, size, mebi = hashlib.blake2b(digest_size=16), path.stat().st_size, 1 << 20
    with path.open("rb") as file:
        if size <= 64 * mebi:
            while chunk := file.read(mebi):
                digest.update(chunk)
        else:
            digest.update(str(size).encode())
            for part in range(8):
                file.seek(part * (size - mebi) // 7)
                digest.update(file.read(mebi))
    return digest.hexdigest()


def folder_digest(folder: Path, skip: frozenset[str] = frozenset()) -> str:
    """Digest of the names and contents of all files under `folder`, except names in `skip`."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in skip and not (skip & set(path.relative_to(folder).parts)):
            digest.update(f"{path.relative_to(folder).as_posix()}:{file_digest(path)}\n".encode())
    return digest.hexdigest()


class Environment(Frozen):
    """What a run was made with, frozen when it is created; the machine's profile is the one its plan was made for."""

    format: int
    hagane: str
    versions: dict[str, str]
    machine: Machine
    commit: str | None = None
    seed: int
    settings: dict[str, Any]
    pinned: tuple[str, ...] = ()


class Clock:
    """Active seconds of a run over all its attempts, and joules where the machine counts them; kept in `clock.json` by a heartbeat so that a kill loses two
    seconds at most."""

    def __init__(self, path: Path, started: float, device: str = "cpu") -> None:
        self._path = path
        self._started = started
        self._device = device
        state: dict[str, Any] = read_json(path) if path.exists() else {"seconds": 0.0, "origin": 0.0, "attempts": 0, "joules": 0.0, "origin_joules": 0.0}
        self._before: float = state["seconds"]
        self.origin: float = state["origin"]
        self._joules_before: float | None = state.get("joules")
        self._origin_joules: float = state.get("origin_joules", 0.0)
        self._counter: Counter | None = None
        self.attempts: int = state["attempts"] + 1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def seconds(self) -> float:
        """Active seconds over all attempts."""
        return self._before + time.monotonic() - self._started

    def spent(self) -> float:
        """Active seconds that count against the budget: those since the walk that made (or will make) the plan began."""
        return self.seconds() - self.origin

    def joules(self) -> float | None:
        """Counted over all attempts, from when each of them opened the run; None where an attempt had no counter."""
        counted = None if self._counter is None else self._counter.joules()
        return None if counted is None or self._joules_before is None else self._joules_before + counted

    def spent_joules(self) -> float | None:
        """Of those, what counts against the budget, as `spent` of the seconds."""
        joules = self.joules()
        return None if joules is None else joules - self._origin_joules

    def restart(self) -> None:
        """Begin a new account: the plan is about to be made anew, and cached stages cost nothing."""
        self.origin, self._origin_joules = self._before, self._joules_before or 0.0
        self._save()

    def start(self) -> None:
        self._counter, _ = find_counter(self._device)
        self._save()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="clock")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._save()

    def _beat(self) -> None:
        while not self._stop.wait(2.0):
            with contextlib.suppress(RunError):  # a full disk is reported by the stage that needs it
                self._save()

    def _save(self) -> None:
        joules = self.joules()
        state = {
            "seconds": round(self.seconds(), 3), "origin": round(self.origin, 3), "attempts": self.attempts,
            "joules": None if joules is None else round(joules, 3), "origin_joules": round(self._origin_joules, 3),
        }  # fmt: skip
        write_atomic(self._path, json.dumps(state))


class Run:
    """An open run folder. Use as a context manager: it holds the lock and the clock."""

    def __init__(
        self, folder: Path, recipe: Recipe, environment: Environment, *, started: float | None = None, say: Callable[[str], None] | None = None
    ) -> None:
        self.folder = folder
        self.recipe = recipe
        self.environment = environment
        self.machine = environment.machine
        self.seed = recipe.seed
        self.say = say or (lambda text: None)
        self.checked = False  # whether what can be refused before a stage works was asked about
        self.clock = Clock(folder / "clock.json", time.monotonic() if started is None else started, self.machine.device)
        self._lock: IO[str] | None = None

    def __enter__(self) -> Run:
        self._lock = lock(self.folder)
        self.clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.clock.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def budget(self) -> Budget | None:
        return Budget.parse(self.recipe.budget) if self.recipe.budget else None

    @property
    def pinned_size(self) -> SizeSettings:
        """The size settings given with --set: the plan keeps them whatever the budget."""
        return pinned_only(self.recipe, self.environment.pinned)

    @cached_property
    def sketch(self) -> Sketch:
        """How the budget is divided before the corpus is read."""
        return sketch(self.recipe, self.pinned_size, self.machine, self.law)

    @cached_property
    def law(self) -> Law:
        """The loss law of the run's text, frozen when the folder was made; the general law where there was none."""
        from hagane.plan.kept import read_law

        path = self.folder / LAW
        return read_law(path) if path.exists() else GENERAL

    def remaining(self, reserve: float = 0.0) -> float | None:
        """Active seconds left of a budget of time, energy or money after setting `reserve` aside; None for FLOPs and tokens."""
        budget = self.budget
        seconds = None if budget is None else budget_seconds(budget, self.machine, self.recipe.execution.price_per_hour)
        return None if seconds is None else seconds * TARGET_SHARE - self.clock.spent() - reserve

    def path(self, stage: str) -> Path:
        return self.folder / stage

    def record(self, stage: str) -> dict[str, Any] | None:
        """The `facts.json` of a finished stage, else None."""
        path = self.path(stage) / "facts.json"
        return read_json(path) if path.exists() else None

    def facts(self, stage: str) -> dict[str, Any]:
        """The facts of a finished stage. Raises RunError where it is not done."""
        record = self.record(stage)
        if record is None:
            raise RunError(f"{self.folder}: stage {stage} is not done yet. `hagane resume {self.folder}` goes on from where it stopped.")
        facts: dict[str, Any] = record["facts"]
        return facts

    @contextlib.contextmanager
    def writing(self, stage: str) -> Iterator[Path]:
        """A folder for a stage to write: it takes the stage's place whole when the block ends, and is deleted if it fails."""
        temporary = self.folder / f".{stage.replace('/', '-')}.writing"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            _sync(temporary)
            final = self.path(stage)
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise disk_error(error, self.path(stage)) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def supersede(self, stage: str) -> None:
        """Move the result of a stage whose key changed out of the way; nothing is deleted."""
        path = self.path(stage)
        if not path.exists():
            return
        target = self.folder / "superseded" / f"{stage.replace('/', '-')}-{int(time.time() * 1000)}"
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
        self.say(f"{stage}: settings or inputs changed; the earlier result is kept in {target.relative_to(self.folder)}")


def pinned_only(recipe: Recipe, pinned: Collection[str]) -> SizeSettings:
    """The size settings without those that a budget may change."""
    return recipe.model.size.model_copy(update={name: None for name in SizeSettings.model_fields if f"model.size.{name}" not in pinned})


def disk_error(error: OSError, path: Path) -> RunError:
    """An operating-system error as a sentence with the remedy."""
    name = error.filename or path
    if error.errno == errno.ENOSPC:
        return RunError(f"the disk of {path} is full. Free some space and run `hagane resume`: nothing that was finished is lost.")
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return RunError(f"{name} cannot be written: {error.strerror}. Choose another folder with --out, or give this one write permission.")
    return RunError(f"{name}: {error.strerror}.")


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lock(folder: Path) -> IO[str]:
    """Hold the folder for this process, or raise RunError if another one holds it."""
    try:
        file = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise disk_error(error, folder) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise RunError(f"{folder} is in use by process {holder}. Wait for it, or choose another folder with --out.") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def open_environment(folder: Path) -> Environment:
    """Read `environment.json`; a folder of a newer version of hagane is refused."""
    path = folder / "environment.json"
    if not folder.is_dir():
        raise RunError(f"there is no run folder {folder}. `hagane run RECIPE --out {folder}` makes one.")
    values = read_json(path)
    version = values.get("format") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise RunError(f"{path} is damaged: it has no format number.")
    if version > FORMAT:
        raise RunError(f"{folder} was written by a newer hagane (run format {version}, this one knows {FORMAT}). Update hagane to use it.")
    return Environment.model_validate(values)
