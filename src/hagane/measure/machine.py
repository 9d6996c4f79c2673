"""The profile of the machine at hand: measured once in a few seconds and kept for the user, `hagane measure` renews it.

The matrix rate is the best bf16 `linear` over a stated set of shapes, the bandwidth a large copy (bytes read + written).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hagane.cache import cache_folder
from hagane.errors import RunError
from hagane.folder import write_atomic
from hagane.measure.energy import find_counter
from hagane.model.config import ModelConfig
from hagane.plan.cost import overhead_of
from hagane.plan.shapes import shape_key
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Machine, StepRate

# (rows, in, out): token counts and widths of small and middle models; large ones are what a GPU needs to reach its rate.
CPU_SHAPES = ((4096, 256, 1024), (4096, 512, 2048), (2048, 1024, 4096), (4096, 1024, 1024))
CUDA_SHAPES = ((8192, 2048, 8192), (8192, 4096, 4096), (8192, 8192, 8192))
SECONDS_PER_SHAPE = 0.25
GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # NVIDIA's driver, the same under WSL, AMD's
STEP_VERSION = 7  # raised when a change makes steps faster or slower: what was timed before it says nothing then
# Watts of a core under AVX load and of the rest of a small machine, where no counter can be read: a stated model, not a measurement.
_WATTS_PER_CORE, _WATTS_BASE, _GPU_WATTS = 8.0, 15.0, 700.0


def pick_device(wanted: str) -> str:
    """`auto` is the first GPU if there is one. Raises RunError for a device that is not there."""
    if wanted == "auto":
        return "cuda" if _has_gpu() else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise RunError(f"{wanted!r} is not a device. Give auto, cpu or cuda.")
    if wanted == "cuda" and not _has_gpu():
        raise RunError("PyTorch finds no CUDA GPU here. Take the device cpu or auto, or install the driver and PyTorch's CUDA build.")
    return wanted


def _has_gpu() -> bool:
    """Whether PyTorch finds a GPU. It is not asked (importing it takes a second) on a Linux machine without the device files of any driver."""
    if sys.platform == "linux" and not any(Path(path).exists() for path in GPU_FILES):
        return False
    import torch

    return torch.cuda.is_available()


def profile(device: str = "auto", threads: int | None = None, *, renew: bool = False, say: Callable[[str], None] = lambda text: None) -> Machine:
    """The kept profile of this machine, or a new one (about two seconds on a CPU)."""
    device = pick_device(device)
    path = _profile_path(device, threads)
    if path.exists() and not renew:
        try:
            return Machine.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError:
            say(f"{path} is damaged or of another version; the machine is measured again")
    machine = measure(device, threads)
    keep(machine, threads)
    return machine


def keep(machine: Machine, threads: int | None = None) -> None:
    """Write the profile where `profile` finds it. A cache that cannot be written is no error: it is measured again next time."""
    path = _profile_path(machine.device, threads)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, machine.model_dump_json(indent=1))
    except (RunError, OSError):
        return


def step_key(recipe: Recipe, config: ModelConfig, rows: int, context: int) -> str:
    """Names the training step of a recipe at a context in the kept profile."""
    train = recipe.train
    key = shape_key(config, rows, context, train.dtype)
    return f"{key}-{train.optimizer}-{STEP_VERSION}" + ("" if recipe.execution.compile else "-eager")


def add_step(machine: Machine, key: str, rate: StepRate, threads: int | None = None) -> Machine:
    """The profile with one more measured step and what that says of its overhead, kept for later plans."""
    steps = {**machine.steps, key: rate}
    machine = machine.model_copy(update={"steps": steps, "overhead": overhead_of(steps.values())})
    keep(machine, threads)
    return machine


def measure(device: str, threads: int | None = None) -> Machine:
    """Measure matrix rate and bandwidth. `device` is `cpu` or `cuda`."""
    import torch

    if threads and device == "cpu":
        torch.set_num_threads(threads)
    shapes = CUDA_SHAPES if device == "cuda" else CPU_SHAPES
    counter, source = find_counter(device)
    start = time.perf_counter()
    flops = max(matmul_rate(device, *shape) for shape in shapes)
    seconds, counted = time.perf_counter() - start, None if counter is None else counter.joules()
    watts, source = power(device, source) if not counted else (counted / seconds, f"{source}, while it multiplied matrices")
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        name, memory = properties.name, properties.total_memory
    else:
        name, memory = _cpu_name(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        name=name, device="cuda" if device == "cuda" else "cpu", num_cores=threads or cores(), memory_bytes=memory, matmul_flops=flops,
        bandwidth=copy_rate(device), power_watts=watts, power_source=source,
    )  # fmt: skip


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def matmul_rate(device: str, rows: int, width: int, out: int) -> float:
    """bf16 FLOP/s of `linear(rows x width, out x width)`: the best of repeated calls, each a multiply-add counted as two."""
    import torch

    x = torch.randn(rows, width, device=device).bfloat16()
    weight = torch.randn(out, width, device=device).bfloat16()
    best = _fastest(lambda: torch.nn.functional.linear(x, weight), device)
    return 2.0 * rows * width * out / best


def copy_rate(device: str) -> float:
    """Bytes read and written per second by a copy much larger than any cache."""
    import torch

    size = (1 << 30) if device == "cuda" else (1 << 28)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * size / _fastest(lambda: target.copy_(source), device)


def _fastest(call: Callable[[], object], device: str) -> float:
    import torch

    def once() -> float:
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    end, best = time.perf_counter() + SECONDS_PER_SHAPE, float("inf")
    while time.perf_counter() < end:
        best = min(best, once())
    return best


def power(device: str, reason: str) -> tuple[float, str]:
    """Watts under load where no counter can be read, and where the figure comes from; `reason` is why there is no counter."""
    if device == "cuda":
        return _GPU_WATTS, f"a stated model: {_GPU_WATTS:g} W, the board power of an H100-class GPU; {reason}"
    return _WATTS_BASE + _WATTS_PER_CORE * cores(), f"a stated model: {_WATTS_BASE:g} W + {_WATTS_PER_CORE:g} W per core; {reason}"


def _profile_path(device: str, threads: int | None) -> Path:
    name = "".join(c if c.isalnum() else "-" for c in f"{_cpu_name()}-{device}-{threads or cores()}-torch{importlib.metadata.version('torch')}")
    return cache_folder() / "machines" / f"{name}.json"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
