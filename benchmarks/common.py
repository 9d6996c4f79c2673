"""What every benchmark ends with: a table for people, one JSON line for scripts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hagane.process import prepare

prepare()  # as `hagane` does for its own process; children inherit it


def digest_of(paths: Iterable[Path], about: str = "") -> str:
    """Of what is in these files, and of `about`: kept results of other code are not those of this one."""
    digest = hashlib.blake2b(about.encode(), digest_size=8)
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def source_digest(about: str = "") -> str:
    """Of all of hagane's code and shipped recipes: what runs of another version of it came to is not kept."""
    sources = (Path(__file__).resolve().parents[1] / "src").rglob("*")
    return digest_of((path for path in sorted(sources) if path.suffix in (".py", ".toml", ".cpp", ".h")), about)


class Kept:
    """Results by key, a line of `results.jsonl` each as soon as it is there: a benchmark that was interrupted goes on with the same command."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "results.jsonl"
        self._found: dict[str, Any] = {}
        for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):  # cut off by a kill: that one is done again
                record = json.loads(line)
                self._found[record["key"]] = record["result"]

    def get(self, *key: Any) -> Any:
        """None where it is not there yet."""
        return self._found.get(json.dumps(key))

    def put(self, result: Any, *key: Any) -> None:
        self._found[json.dumps(key)] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": json.dumps(key), "result": result}) + "\n")


def machine() -> dict[str, Any]:
    """Facts of the machine a benchmark ran on."""
    import torch

    return {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__, "cuda": torch.cuda.is_available()}


def commit() -> str:
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()


def finish(name: str, mode: str, figures: dict[str, float], spread: dict[str, float], goals: dict[str, str]) -> None:
    """Print the last line: `{"benchmark": ..., "figures": ..., "goals": {KEY: ">= 1.5"}, ...}`; figures outside their goals are said first."""
    for key, goal in goals.items():
        sign, value = goal.split()
        met = figures[key] >= float(value) if sign == ">=" else figures[key] <= float(value)
        print(f"{'met ' if met else 'MISSED'} {key} = {figures[key]:.4g} (goal {goal})")
    print(json.dumps({"benchmark": name, "mode": mode, "figures": figures, "spread": spread, "goals": goals, "machine": machine(), "commit": commit()}))
