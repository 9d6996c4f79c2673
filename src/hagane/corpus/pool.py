"""Work spread over processes, results in order, with progress in bytes. One worker means this process: nothing is started."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from hagane.errors import RunError

Task = TypeVar("Task")
Result = TypeVar("Result")

_counter: Any = None  # in a worker process: bytes done by all of them

MIN_BYTES_PER_WORKER = 16 << 20  # starting a process costs about half a second; reading this much takes about one


class Progress(Protocol):
    """Told what is being done and how far it is, in bytes; called a few times a second."""

    def __call__(self, what: str, done: float, total: float) -> None: ...


def silent(what: str, done: float, total: float) -> None:
    """No progress."""


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


def run_in_order(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
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
    global _counter
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
        before, _counter = _counter, add
        try:
            result = work(task)
        finally:
            _counter = before
        yield result
    progress(what, total, total)


def _enter(counter: Any, initialise: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    global _counter
    _counter = counter
    if initialise:
        initialise(*arguments)


def useful_workers(workers: int | None, num_bytes: int, num_tasks: int, per_worker: int = MIN_BYTES_PER_WORKER) -> int:
    """How many processes this much work is worth: at most `workers` (all cores where None)."""
    limit = workers or len(os.sched_getaffinity(0))
    return max(1, min(limit, num_tasks, num_bytes // per_worker))
