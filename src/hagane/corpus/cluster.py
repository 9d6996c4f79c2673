"""Work spread over the nodes of a cluster: results in order, and what a lost worker had begun is done again.

Nothing here knows which system carries the tasks: that is a `Nodes` (`on_ray.py`). Nodes take tasks by their functions and arguments and give results back;
large data goes through the run folder, which every node must see. Before any work, each node is asked whether it can take part: the same versions, the
folder, the files; so is every process before its first task, for nodes that join later.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from hagane.corpus import pool
from hagane.corpus.pool import Result, Task
from hagane.corpus.versions import versions
from hagane.errors import HaganeError, RunError

PAUSES = (0.5, 2.0, 8.0, 30.0)  # seconds before a lost task is begun again: a cluster may give tasks to a dead node until it notices
ATTEMPTS = len(PAUSES) + 1  # of one task: when so many workers die of it in a row, it is the task
_PROBE = "probe"
_ANSWER_SECONDS = 120.0  # a node that is busy starts a process slowly
_SEEN_SECONDS = 5.0  # a network file system may show a new file a little later on other nodes


class WorkerLostError(Exception):
    """The worker of a task is gone, and its result with it."""


class RefusedError(HaganeError):
    """Why a process can take no part. It becomes a RunError that says how to mend it."""


class Handle(Hashable, Protocol):
    """Of a task that was given to a node."""


class Nodes(Protocol):
    """What a system of clusters must be able to do."""

    def slots(self) -> int:
        """Tasks that run at the same time."""

    def names(self) -> list[str]:
        """Of the nodes that are there."""

    def keep(self, call: Call[Any, Any]) -> Any:
        """Make a call known to all nodes once, to be named in `start`."""

    def start(self, kept: Any, number: int, task: Any, attempt: int) -> Handle:
        """Begin `call(task, attempt, on_bytes)`; what `on_bytes` is told counts for `number` in `bytes_of`."""

    def ask(self, node: str, invitation: Invitation) -> Handle:
        """Begin `accept(invitation, node)` on one node."""

    def wait(self, handles: Sequence[Handle], seconds: float) -> list[Handle]:
        """Those that are finished or lost; waits for the first of them, at most `seconds`."""

    def take(self, handle: Handle) -> Any:
        """The result of one that is finished. Raises WorkerLostError, or what the work raised."""

    def stop(self, handles: Collection[Handle]) -> None:
        """End them now; returns when they have ended."""

    def bytes_of(self, numbers: Collection[int]) -> int:
        """Bytes done so far of tasks under way, as far as is known: it may be a little less."""


@dataclass(frozen=True)
class Invitation:
    """What a process must have to take part."""

    folder: Path
    token: str
    files: tuple[str, ...]
    directory: str  # in which relative paths begin
    versions: dict[str, str]


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """Of one task: its result, or an error that is the user's to mend."""

    result: Result | None
    error: HaganeError | None
    num_bytes: int


_T = TypeVar("_T", contravariant=True)


@dataclass(frozen=True)
class Call(Generic[_T, Result]):
    """What is done with every task of one `run_in_order`, as it is sent to the nodes."""

    key: str
    work: Callable[[_T], Result]
    initialise: Callable[..., None] | None
    arguments: tuple[Any, ...]
    invitation: Invitation | None

    def __call__(self, task: _T, attempt: int, on_bytes: Callable[[int], None]) -> Outcome[Result]:
        """In a worker: do the task. `on_bytes` is told the bytes done so far."""
        done = 0

        def add(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            on_bytes(done)

        try:
            _enter(self)
            with pool.under_way(add, attempt):
                return Outcome(self.work(task), None, done)
        except HaganeError as error:
            return Outcome(None, error, done)


_entered = ""  # in a worker: the key of the call that this process is prepared for


def _enter(call: Call[Any, Any]) -> None:
    global _entered
    if _entered == call.key:
        return
    if call.invitation is not None:
        _check(call.invitation)
    if call.initialise:
        call.initialise(*call.arguments)
    _entered = call.key


def accept(invitation: Invitation, node: str) -> HaganeError | None:
    """In a worker: why it cannot take part, or None and an answer in the folder."""
    try:
        _check(invitation)
        (invitation.folder / f"{_PROBE}.{node}").write_text(invitation.token)
    except HaganeError as error:
        return error
    except OSError as error:
        return RefusedError(f"cannot write into {invitation.folder} ({error.strerror}); make it writable there.")
    return None


def _check(invitation: Invitation) -> None:
    """Raises RefusedError. Paths are then read as where the run was started, where this node has that folder."""
    with contextlib.suppress(OSError):
        os.chdir(invitation.directory)
    own = versions()
    if differing := sorted(name for name in own.keys() | invitation.versions.keys() if own.get(name) != invitation.versions.get(name)):
        pairs = ", ".join(f"{name} {own.get(name, 'missing')} instead of {invitation.versions.get(name, 'none')}" for name in differing)
        raise RefusedError(f"has {pairs}, which could change the text; install the same versions on every node.")
    until = time.monotonic() + _SEEN_SECONDS
    while not _holds(invitation.folder / _PROBE, invitation.token):
        if time.monotonic() > until:
            raise RefusedError(f"does not see {invitation.folder}; the run folder must lie on storage that all nodes share, under one path (--out).")
        time.sleep(0.1)
    for file in invitation.files:
        if not Path(file).exists():
            raise RefusedError(f"does not see {file}; sources must lie on storage that all nodes share, under one path, or in a store (a URL).")


def _holds(path: Path, token: str) -> bool:
    try:
        return path.read_text() == token
    except OSError:
        return False


class Cluster:
    """A `pool.Cluster` on some `Nodes`. `workers`: at most so many tasks at a time (None: as many as the nodes have slots); `say` is told of lost workers."""

    def __init__(self, nodes: Nodes, workers: int | None = None, say: Callable[[str], None] = lambda sentence: None) -> None:
        self._nodes = nodes
        self._workers = workers
        self._say = say
        self._invitation: Invitation | None = None
        self._numbers = itertools.count()

    def share(self, folder: Path, files: Sequence[str]) -> None:
        """Ask every node whether it can take part. Raises RunError with what it lacks."""
        invitation = Invitation(folder, uuid.uuid4().hex, tuple(files), str(Path.cwd()), versions())
        (folder / _PROBE).write_text(invitation.token)
        asked = {self._nodes.ask(node, invitation): node for node in self._nodes.names()}
        until = time.monotonic() + _ANSWER_SECONDS
        try:
            while asked:
                for handle in self._nodes.wait(list(asked), 1.0):
                    node = asked.pop(handle)
                    with contextlib.suppress(WorkerLostError):  # a node that is gone is not asked for anything more
                        self._hear(node, self._nodes.take(handle), invitation)
                if asked and time.monotonic() > until:
                    raise RunError(f"execution.ray: node {min(asked.values())} gives no answer. Take it out of the cluster, or look at its log.")
        finally:
            self._nodes.stop(asked)
        self._invitation = invitation

    @staticmethod
    def _hear(node: str, refusal: HaganeError | None, invitation: Invitation) -> None:
        answer, until = invitation.folder / f"{_PROBE}.{node}", time.monotonic() + _SEEN_SECONDS
        while refusal is None and not _holds(answer, invitation.token):
            if time.monotonic() > until:
                refusal = RefusedError(f"writes into another {invitation.folder} than this one; the run folder must lie on storage that all nodes share.")
            time.sleep(0.1)
        if refusal is not None:
            raise RunError(f"execution.ray: node {node} {refusal}")

    def run_in_order(
        self,
        work: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        what: str,
        total: int,
        progress: pool.Progress,
        initialise: Callable[..., None] | None,
        arguments: tuple[Any, ...],
    ) -> Iterator[Result]:
        """`work(task)` for every task, in order. Raises RunError where one task loses ATTEMPTS workers."""
        run = _Run(self._nodes, Call(uuid.uuid4().hex, work, initialise, arguments, self._invitation), tasks, what, self._say)
        most = min(self._workers or len(tasks), 2 * self._nodes.slots())  # a node need not wait for its next task
        try:
            for turn in range(len(tasks)):
                while turn not in run.finished:
                    run.fill(most, self._numbers)
                    run.collect(0.25)
                    done = run.num_bytes()
                    progress(what, done, max(total, done + 1))
                outcome = run.finished.pop(turn)
                if outcome.error is not None:
                    raise RunError(f"execution.ray: a node {outcome.error}") if isinstance(outcome.error, RefusedError) else outcome.error
                yield cast(Result, outcome.result)
        finally:
            self._nodes.stop(run.under_way)
        progress(what, total, total)


class _Run(Generic[Task, Result]):
    """Tasks of one `run_in_order`: not yet begun, under way, finished and not yet taken."""

    def __init__(self, nodes: Nodes, call: Call[Task, Result], tasks: Sequence[Task], what: str, say: Callable[[str], None]) -> None:
        self.under_way: dict[Handle, tuple[int, int]] = {}  # number of the start, place of the task
        self.finished: dict[int, Outcome[Result]] = {}
        self._nodes, self._tasks, self._what, self._say = nodes, tasks, what, say
        self._kept = nodes.keep(call)
        self._waiting = iter(range(len(tasks)))
        self._again: list[tuple[float, int]] = []  # when, and the place
        self._attempts: Counter[int] = Counter()
        self._done = 0  # bytes of finished tasks
        self._failed = False

    def fill(self, most: int, numbers: Iterator[int]) -> None:
        """Begin tasks, lost ones first, until so many are under way."""
        while len(self.under_way) < most:
            if self._again and self._again[0][0] <= time.monotonic():
                _, place = heapq.heappop(self._again)
            elif self._failed or (place := next(self._waiting, -1)) < 0:
                return
            number = next(numbers)
            self.under_way[self._nodes.start(self._kept, number, self._tasks[place], self._attempts[place])] = number, place
            self._attempts[place] += 1

    def collect(self, seconds: float) -> None:
        """Take what is finished. After a failure no new task begins, those before it are still waited for: the first in order is what is told."""
        if not self.under_way:  # all that is left is lost and waits its turn
            time.sleep(seconds)
            return
        for handle in self._nodes.wait(list(self.under_way), seconds):
            _, place = self.under_way.pop(handle)
            try:
                outcome: Outcome[Result] = self._nodes.take(handle)
            except WorkerLostError as lost:
                task = f"task {place + 1} of {len(self._tasks)}"
                if self._attempts[place] >= ATTEMPTS:
                    raise RunError(
                        f"{self._what or 'work'}: {task} lost {ATTEMPTS} workers in a row ({lost}), most likely because memory ran out on the nodes. "
                        "Run again with fewer at a time: corpus.workers, or fewer CPUs for each node."
                    ) from None
                self._say(f"{self._what or 'work'}: a worker was lost ({lost}); {task} is done again.")
                heapq.heappush(self._again, (time.monotonic() + PAUSES[self._attempts[place] - 1], place))
                continue
            self.finished[place] = outcome
            self._done += outcome.num_bytes
            self._failed |= outcome.error is not None

    def num_bytes(self) -> int:
        """Done so far, by finished tasks and those under way."""
        return self._done + self._nodes.bytes_of([number for number, _ in self.under_way.values()])
