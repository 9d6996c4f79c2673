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
from functools import cache
from pathlib import Path

import torch  # loads the OpenMP library whose threads the kernels share  # noqa: F401

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
        key = "\n".join((source.read_text(encoding="utf-8"), version, *FLAGS, _processor()))
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
