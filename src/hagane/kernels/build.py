"""Compile C++ for the processor at hand, once, and load it. The compiler is the one that torch.compile needs on a CPU anyway."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch  # loads the OpenMP library whose threads the kernels share

from hagane.cache import cache_folder

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-w")


def _processor() -> str:
    """What decides which instructions `-march=native` may use: a cache on a shared disk serves several kinds of machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(next((line for line in lines if line.startswith(start)), "") for start in ("flags", "Features", "model name"))


_one_at_a_time = threading.Lock()  # a second thread that asks waits for the first one's library instead of compiling its own


def load(name: str) -> ctypes.CDLL | None:
    """The library made from `name`.cpp of this folder; None, with one warning, where it cannot be compiled here."""
    with _one_at_a_time:
        return _load(name)


@cache
def _load(name: str) -> ctypes.CDLL | None:
    source = Path(__file__).with_name(f"{name}.cpp")
    compiler = os.environ.get("CXX", "g++")
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
        texts = [path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h")))]
        key = "\n".join((*texts, version, *FLAGS, _processor()))
        library = cache_folder() / "kernels" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
        if not library.exists():
            _compile(compiler, source, library)
        return ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or str(error)).strip().splitlines()[-1]
    except OSError as error:
        reason = str(error)
    advice = "Install g++, or name a compiler in CXX."
    warnings.warn(f"{name}: the slower form is used, for the C++ kernel could not be compiled ({reason}). {advice}", stacklevel=2)
    return None


class Library:
    """The functions of `name`.cpp, which return nothing: by their names, with the types of their arguments. Tensors go by their address."""

    def __init__(self, name: str, functions: Mapping[str, Sequence[type[Any]]]) -> None:
        self._name, self._functions = name, functions

    def serves(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether there are kernels here for such tensors; asked first, it compiles them (seconds, once per machine)."""
        return device.type == "cpu" and dtype in (torch.bfloat16, torch.float32) and load(self._name) is not None

    def __getattr__(self, name: str) -> Callable[..., None]:
        library = load(self._name)
        assert library is not None, "ask `serves` first"
        function = getattr(library, name)
        function.argtypes, function.restype = self._functions[name], None

        def call(*arguments: Any) -> None:
            function(*[value.data_ptr() if isinstance(value, torch.Tensor) else value for value in arguments])

        setattr(self, name, call)
        return call


def wide(tensor: torch.Tensor) -> int:
    """What kernels are told of a tensor's precision: 1 for float32, 0 for bfloat16."""
    return int(tensor.dtype == torch.float32)


def _compile(compiler: str, source: Path, library: Path) -> None:
    """Under another name first: two processes may compile at once, and a killed one leaves nothing that looks whole."""
    library.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=library.parent, prefix=f".{library.stem}.", suffix=".so")
    os.close(handle)
    try:
        subprocess.run([compiler, *FLAGS, "-o", temporary, str(source)], capture_output=True, text=True, check=True)
        Path(temporary).replace(library)
    finally:
        Path(temporary).unlink(missing_ok=True)
