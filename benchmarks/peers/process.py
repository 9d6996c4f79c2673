"""A contestant's process: its environment and its log."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from hagane.measure.machine import cores
from hagane.process import ENVIRONMENT

BENCHMARKS = Path(__file__).resolve().parents[1]


class ContestantError(Exception):
    """A contestant's process failed; the text says how."""


def environment(caches: Path, **more: str) -> dict[str, str]:
    """All cores and hagane's settings of the libraries for everybody; compiler caches and hagane's machine profile below `caches`."""
    own = {"TORCHINDUCTOR_CACHE_DIR": str(caches / "compiled"), "TRITON_CACHE_DIR": str(caches / "triton"), "HAGANE_CACHE": str(caches / "hagane")}
    same = {"OMP_NUM_THREADS": str(cores()), "HF_HUB_OFFLINE": "1", **ENVIRONMENT}
    path = os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **same, **own, "PYTHONPATH": path, **more}


def first_time(caches: Path, what: str) -> bool:
    """Whether `what` was not compiled into these caches before."""
    marker = caches / f"seen-{hashlib.blake2b(what.encode(), digest_size=8).hexdigest()}"
    known = marker.exists()
    caches.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return not known


def run_process(command: Sequence[str], log: Path, env: dict[str, str], cwd: Path | None = None) -> float:
    """Run to the end; returns when it began, seconds since the epoch. Raises ContestantError with the end of its log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        start = time.time()
        code = subprocess.run(list(command), stdout=file, stderr=file, env=env, cwd=cwd, check=False).returncode
    if code:
        raise ContestantError(f"{' '.join(command[:6])} ... ended with {code}:\n{log.read_text(errors='replace')[-1500:]}")
    return start
