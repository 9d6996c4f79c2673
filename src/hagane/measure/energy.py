"""Joules that a machine's own counters count: RAPL of the processor's packages (Linux powercap), NVML of the GPU.

A counter counts all that its part did, this process or not, and nothing beside it: no memory modules, disks or power supply. RAPL's starts again from zero
after `max_energy_range_uj`, on some machines every few minutes under load: it must be asked more often than that, as the heartbeat of a run's clock does.
Source: Linux, Documentation/power/powercap/powercap.rst; NVML API reference, nvmlDeviceGetTotalEnergyConsumption.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"


class Part(NamedTuple):
    """One counter: how it is read, in joules since some moment, and what it counts to before it starts again from zero (0: it never does)."""

    read: Callable[[], float]
    wraps: float = 0.0


class Counter:
    """Joules since it was made, of all its parts. `source` says in words what is counted. May be asked from any thread."""

    def __init__(self, parts: Sequence[Part], source: str) -> None:
        """Raises OSError where a part cannot be read."""
        self.source = source
        self._parts = parts
        self._last = [part.read() for part in parts]
        self._total: float | None = 0.0
        self._lock = threading.Lock()

    def joules(self) -> float | None:
        """None from the moment on at which a part could not be read any more: what it counted since is not known."""
        with self._lock:
            try:
                now = [part.read() for part in self._parts]
            except (OSError, ValueError):
                self._total = None
            if self._total is not None:
                gone = [(new - old) % part.wraps if part.wraps else new - old for part, old, new in zip(self._parts, self._last, now, strict=True)]
                self._total, self._last = self._total + sum(gone), now
            return self._total


def find_counter(device: str) -> tuple[Counter | None, str]:
    """The counter of what trains (`cpu`: the packages, `cuda`: the GPU), and what it counts or why there is none."""
    return gpu_counter() if device == "cuda" else package_counter(POWERCAP)


def package_counter(powercap: Path) -> tuple[Counter | None, str]:
    """Of all packages under this folder. Their cores, graphics and memory have counters of their own, which count within the packages': not read."""
    packages = [folder for folder in sorted(powercap.glob("intel-rapl:*")) if folder.name.count(":") == 1 and _name(folder).startswith("package")]
    if not packages:
        return None, f"no counter of energy was found in {powercap}"
    try:
        parts = [Part(_microjoules(folder / "energy_uj"), _microjoules(folder / "max_energy_range_uj")()) for folder in packages]
        counter = Counter(parts, f"counter of {', '.join(_name(folder) for folder in packages)} (RAPL)")
    except PermissionError as error:
        return None, f"the counter of energy may not be read: no permission for {error.filename}"
    except (OSError, ValueError) as error:
        return None, f"the counter of energy in {powercap} cannot be read: {error}"
    return counter, counter.source


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text(encoding="ascii")) / 1e6


def gpu_counter() -> tuple[Counter | None, str]:
    """Of the first GPU that this process may see. Millijoules since the driver was loaded, on Volta and later."""
    try:
        library = ctypes.CDLL(NVML)
    except OSError:
        return None, f"no counter of energy was found: {NVML} is not here"
    handle, total, visible = ctypes.c_void_p(), ctypes.c_ulonglong(), os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    if library.nvmlInit_v2() != 0:
        return None, "the counter of energy cannot be read: NVML does not start"
    if visible.isdigit():
        status = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(visible)), ctypes.byref(handle))
    else:
        status = library.nvmlDeviceGetHandleByUUID(visible.encode(), ctypes.byref(handle))
    if status != 0:
        return None, f"the counter of energy cannot be read: NVML does not know GPU {visible}"

    def read() -> float:
        if (status := library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(total))) != 0:
            raise OSError(f"NVML answers {status}")
        return total.value / 1e3

    try:
        counter = Counter([Part(read)], "counter of the GPU (NVML)")
    except OSError as error:
        return None, f"the GPU has no counter of energy: {error}"
    return counter, counter.source
