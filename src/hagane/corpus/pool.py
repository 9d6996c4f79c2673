"""Work spread over processes, results in order, with progress in bytes. One worker means this process: nothing is started."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, overload

from hagane.errors import RunError

Task = TypeVar("Task")
Result = TypeVar("Result")

_counter: Any = None  # in a worker process: bytes done by all of them
_attempt = 0

MIN_BYTES_PER_WORKER = 16 << 20  # starting a process costs about half a second; reading this much takes about one


class Progress(Protocol):
    """Told what is being done and how far it is, in bytes; called a few times a second."""

    def __call__(self, what: str, done: float, total: float) -> None: ...


def silent(what: str, done: float, total: float) -> None:
    """No progress."""


class Cluster(Protocol):
    """Workers on the nodes of a cluster, in the place of processes here (`cluster.py`)."""

    def share(self, folder: Path, files: Sequence[str]) -> None:
        """Make sure that every node sees `folder`, in which the work leaves its files, and some `files` to read. Raises RunError where one does not."""

    def run_in_order(
        self,
        work: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        what: str,
        total: int,
        progress: Progress,
        initialise: Callable[..., None] | None,
        arguments: tuple[Any, ...],
    ) -> Iterator[Result]:
        """As the function of this name. `work` may be done more than once for a task: see `attempt`."""
        ...


Workers: TypeAlias = int | Cluster


class ConsoleProgress:
    """One line with percentage and time left: rewritten in place on a terminal, every ten seconds elsewhere."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream or sys.stderr
        self._what, self._started, self._last = "", 0.0, 0.0
        self._terminal = self._stream.isatty()

    def __call__(self, what: str, done: float, total: float) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._started, self._last = what, now, now if not self._terminal else 0.0
        finished = done >= total
        if not finished and now - self._last < (0.2 if self._terminal else 10):
            return
        self._last = now
        share = min(1.0, done / total) if total else 1.0
        left = (now - self._started) * (1 - share) / share if share > 0.01 else None
        line = f"{what}: {share:4.0%} of {total / 1e6:,.1f} MB" + (f", {left:,.0f} s left" if left is not None and not finished else "")
        self._stream.write(f"\r\x1b[K{line}" + ("\n" if finished else "") if self._terminal else f"{line}\n")
        self._stream.flush()


def count(num_bytes: int) -> None:
    """Called by the work itself: so many more bytes are done."""
    if _counter is not None:
        if callable(_counter):
            _counter(num_bytes)
        else:
            with _counter.get_lock():
                _counter.value += num_bytes


@contextlib.contextmanager
def under_way(add: Callable[[int], None], attempt: int = 0) -> Iterator[None]:
    """While a task is worked on: `count` calls `add`, and `attempt` says `attempt`."""
    global _counter, _attempt
    before = _counter, _attempt
    _counter, _attempt = add, attempt
    try:
        yield
    finally:
        _counter, _attempt = before


def attempt() -> int:
    """How often the task now worked on was begun before, on a cluster that lost a worker.

    What the work leaves in files needs other names each time, or must appear by being renamed: a worker that seems lost may still write.
    """
    return _attempt


def run_in_order(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: Workers,
    *,
    what: str = "",
    total: int = 0,
    progress: Progress = silent,
    initialise: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """`work(task)` for every task, yielded in the order of the tasks; at most `2 * workers` of them are under way or waiting to be taken.

    `initialise(*arguments)` runs once in every process first. The first failure ends the rest.
    """
    if not isinstance(workers, int):
        yield from workers.run_in_order(work, tasks, what=what, total=total, progress=progress, initialise=initialise, arguments=arguments)
        return
    if workers <= 1 or len(tasks) <= 1:
        yield from _here(work, tasks, what, total, progress, initialise, arguments)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy the locks of threads that torch and tokenizers start
    counter = context.Value("q", 0)
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _enter, (counter, initialise, arguments)) as pool:
        futures: dict[int, Future[Result]] = {}
        submitted = 0
        try:
            for turn in range(len(tasks)):
                while submitted < min(len(tasks), turn + 2 * workers):
                    futures[submitted] = pool.submit(work, tasks[submitted])
                    submitted += 1
                while not futures[turn].done():
                    wait([futures[turn]], timeout=0.25, return_when=FIRST_COMPLETED)
                    progress(what, counter.value, max(total, counter.value + 1))
                yield futures.pop(turn).result()
        except BrokenProcessPool:
            message = f"{what or 'work'}: the system ended one of the processes, most likely because memory ran out. Run again with fewer: corpus.workers = 1."
            raise RunError(message) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    progress(what, total, total)


def _here(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    what: str,
    total: int,
    progress: Progress,
    initialise: Callable[..., None] | None,
    arguments: tuple[Any, ...],
) -> Iterator[Result]:
    done, last = 0, time.monotonic()

    def add(num_bytes: int) -> None:
        nonlocal done, last
        done += num_bytes
        if time.monotonic() - last > 0.25:
            last = time.monotonic()
            progress(what, done, max(total, done + 1))

    if initialise:
        initialise(*arguments)
    for task in tasks:
        with under_way(add):
            result = work(task)
        yield result
    progress(what, total, total)


def _enter(counter: Any, initialise: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    global _counter
    _counter = counter
    if initialise:
        initialise(*arguments)


@overload
def useful_workers(workers: int | None, num_bytes: int, num_tasks: int, per_worker: int = ...) -> int: ...


@overload
def useful_workers(workers: Workers | None, num_bytes: int, num_tasks: int, per_worker: int = ...) -> Workers: ...


def useful_workers(workers: Workers | None, num_bytes: int, num_tasks: int, per_worker: int = MIN_BYTES_PER_WORKER) -> Workers:
    """How many processes this much work is worth: at most `workers` (all cores where None). A cluster, where it is worth more than one."""
    if not isinstance(workers, int | None):
        return workers if min(num_tasks, num_bytes // per_worker) > 1 else 1
    limit = workers or len(os.sched_getaffinity(0))
    return max(1, min(limit, num_tasks, num_bytes // per_worker))
