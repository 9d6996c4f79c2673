"""The nodes of a Ray cluster, for `cluster.py`. The package ray is imported only where `execution.ray` asks for it.

Ray's own repetition of tasks is off: what is done again, how often, and that its files get other names is decided in `cluster.py`. Nothing about
the nodes goes into the run folder; a cluster of this machine's own keeps its files in a temporary folder that goes with it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from hagane.corpus.cluster import Call, Cluster, Handle, Invitation, Outcome, WorkerLostError, accept
from hagane.errors import RunError

_OBJECT_BYTES = 256 << 20  # of memory for results on their way, in a cluster of this machine's own: they are counts and hashes, text goes through files
_REACHED_SECONDS = 10.0
_TOLD_SECONDS = 0.5  # between two messages of a task about its bytes


@contextlib.contextmanager
def joined(address: str, workers: int | None = None, say: Callable[[str], None] = lambda sentence: None) -> Iterator[Cluster]:
    """The cluster that `execution.ray` names, or one of this machine's own cores while this lasts (`"local"`).

    `workers`: at most so many tasks at a time. Raises RunError where Ray is missing or the cluster cannot be reached.
    """
    if find_spec("ray") is None:
        raise RunError("execution.ray needs the package ray, which is not installed. Install it on every node: pip install 'hagane[ray]'.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before it is imported: nothing is sent anywhere
    import ray

    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            _connect(ray, address, workers, stack)
        yield Cluster(RayNodes(ray), workers, say)


def _connect(ray: Any, address: str, workers: int | None, stack: contextlib.ExitStack) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
        if not any(os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray makes one and leaves it in the home folder; it is read once in a process
        cores = workers or len(os.sched_getaffinity(0))
        quiet |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _OBJECT_BYTES, "_temp_dir": folder}
    else:
        _reach(os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address)
    with _own_signals():
        try:
            ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:  # ConnectionError where no cluster is found
            if address == "auto" and isinstance(error, ConnectionError):
                raise RunError('execution.ray = "auto": no Ray cluster runs on this machine. Start one with `ray start --head`, or say where one is.') from None
            token = "" if address in ("auto", "local") else " If its nodes are started with RAY_AUTH_MODE=token, set that here too."
            raise RunError(f'execution.ray = "{address}" cannot be used: {_first_line(error).rstrip(".")}.{token}') from None
    stack.callback(ray.shutdown)
    ray._private.worker._worker_logs_enabled = False  # else the log of a lost node, with its address, is printed to standard output; there is no setting


def _reach(address: str) -> None:
    """Ray itself waits for minutes, and may end the process, where nobody answers."""
    if address == "auto":
        return
    place = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        socket.create_connection((place.hostname, place.port), timeout=_REACHED_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f'execution.ray = "{address}" cannot be reached ({reason}). Is the cluster up, and may this machine open the port?') from None


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; a run has its own way to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class _Tally:
    """An actor: bytes done of tasks under way."""

    def __init__(self) -> None:
        self._num_bytes: dict[int, int] = {}

    def tell(self, number: int, num_bytes: int) -> None:
        self._num_bytes[number] = num_bytes

    def of(self, numbers: Collection[int]) -> dict[int, int]:
        """Of these; the others are over."""
        self._num_bytes = {number: self._num_bytes.get(number, 0) for number in numbers}
        return self._num_bytes


_calls: dict[str, Call[Any, Any]] = {}  # in a worker: the call that it has


def _perform(key: str, kept: list[Any], number: int, task: bytes, attempt: int, tally: Any) -> bytes:
    """In a worker. `kept` is a list so that Ray hands over the reference, and the call is fetched once for a process.

    Task and outcome are pickled as between processes: Ray itself would give arrays that cannot be written to, in memory that it shares.
    """
    import ray

    if key not in _calls:
        _calls.clear()
        _calls[key] = ray.get(kept[0])
    last = time.monotonic()

    def on_bytes(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > _TOLD_SECONDS:
            last = time.monotonic()
            tally.tell.remote(number, done)

    outcome: Outcome[Any] = _calls[key](pickle.loads(task), attempt, on_bytes)
    return pickle.dumps(outcome)


class RayNodes:
    """`cluster.Nodes` of the Ray cluster that this process has joined."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._tally = ray.remote(_Tally).options(num_cpus=0, max_restarts=-1).remote()
        self._perform = ray.remote(_perform).options(num_cpus=1, max_retries=0)
        self._accept = ray.remote(accept)
        self._asked: Any = None
        self._known: dict[int, int] = {}

    def slots(self) -> int:
        count = int(self._ray.cluster_resources().get("CPU", 0))
        if not count:
            raise RunError("execution.ray: the nodes of the cluster offer no CPU. Start them with `ray start --num-cpus`.")
        return count

    def names(self) -> list[str]:
        return [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]

    def keep(self, call: Call[Any, Any]) -> Any:
        return call.key, [self._ray.put(call)]

    def start(self, kept: Any, number: int, task: Any, attempt: int) -> Handle:
        key, box = kept
        handle: Handle = self._perform.remote(key, box, number, pickle.dumps(task), attempt, self._tally)
        return handle

    def ask(self, node: str, invitation: Invitation) -> Handle:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        handle: Handle = self._accept.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(invitation, node)
        return handle

    def wait(self, handles: Sequence[Handle], seconds: float) -> list[Handle]:
        ready, _ = self._ray.wait(handles, num_returns=1, timeout=seconds)
        return list(ready)

    def take(self, handle: Handle) -> Any:
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(handle)
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            if isinstance(cause, errors.ObjectLostError):  # what the task needed went with a node
                raise WorkerLostError(type(cause).__name__) from None
            if "No module named 'hagane" in str(cause) or "failed to import on the worker" in str(cause):
                raise RunError("execution.ray: a node has no hagane, or another one. Install the same on every node, in the Python of Ray.") from None
            raise cause from error
        except errors.RayError as error:
            raise WorkerLostError(type(error).__name__) from None
        return pickle.loads(answer) if isinstance(answer, bytes) else answer

    def stop(self, handles: Collection[Handle]) -> None:
        for handle in handles:
            self._ray.cancel(handle, force=True)
        if handles:
            self._ray.wait(list(handles), num_returns=len(handles), timeout=_REACHED_SECONDS)

    def bytes_of(self, numbers: Collection[int]) -> int:
        """As of the last answer: the actor is asked again when it has answered, never waited for."""
        if self._asked is None:
            self._asked = self._tally.of.remote(list(numbers))
        elif self._ray.wait([self._asked], timeout=0)[0]:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._known = self._ray.get(self._asked)
            self._asked = None
        return sum(self._known.get(number, 0) for number in numbers)
