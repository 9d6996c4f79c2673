"""Does a run end when it was asked to? Whole runs of `hagane run` as a process, timed from outside.

    python benchmarks/budget.py --corpus DIR --full            # 3, 10 and 20 minutes, frozen and steered, and with a stolen core
    python benchmarks/budget.py --quick                        # 75 s, embedded corpus, steered only

Frozen: steering off, the step count as planned; the figure is |seconds / budget - 1|. Steered: seconds / budget, planned tokens
reached and decay completed. Stolen: another process spins on one core for a minute in the middle.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import finish
from hagane.recipe.types import Budget


def spin(seconds: float) -> None:
    """Keep one core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def one(recipe: str, corpus: list[str], budget: str, kind: str, keep: Path) -> dict[str, Any]:
    """Run once and measure from outside."""
    out = keep / f"{recipe}-{budget}-{kind}"
    command = [sys.executable, "-m", "hagane", "run", recipe, "--budget", budget, "--out", str(out)]
    command += [part for path in corpus for part in ("--corpus", path)] + (["--no-steer"] if kind == "frozen" else [])
    seconds = Budget.parse(budget).amount
    thief = multiprocessing.Process(target=spin, args=(60.0,))
    timer = threading.Timer(seconds * 0.45, thief.start) if kind == "stolen" else None
    start = time.monotonic()
    if timer:
        timer.start()
    with (keep / f"{out.name}.log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True)
    taken = time.monotonic() - start
    if timer:
        timer.join()
        thief.join()
    facts = {stage: json.loads((out / stage / "facts.json").read_text())["facts"] for stage in ("plan", "pretrain", "tune", "evaluate")}
    trained = facts["pretrain"]["tokens"] + sum(step["tokens"] for step in facts["tune"]["steps"].values())
    progress = [step.get("progress", 1.0) for step in (facts["pretrain"], *facts["tune"]["steps"].values())]
    return {"share": taken / seconds, "tokens": trained / facts["plan"]["tokens"], "progress": min(progress)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--corpus", action="append", default=[])
    parser.add_argument("--recipe", default="nordic")
    parser.add_argument("--cases", nargs="*", help="BUDGET:KIND, for example 3min:frozen 10min:steered")
    parser.add_argument("--keep", type=Path, help="folder for the runs; a temporary one where not given")
    options = parser.parse_args()
    keep = options.keep or Path(tempfile.mkdtemp(prefix="hagane-budget-"))
    keep.mkdir(parents=True, exist_ok=True)
    full = [f"{budget}:{kind}" for budget in ("3min", "10min", "20min") for kind in ("frozen", "steered")] + ["10min:stolen", "20min:stolen"]
    cases = options.cases or (full if options.full else ["75s:steered"])
    recipe = options.recipe if options.corpus else "quickstart"
    figures: dict[str, float] = {}
    goals: dict[str, str] = {}
    print(f"{'case':<18} {'time / budget':>14} {'tokens / plan':>14} {'progress':>9}")
    for case in cases:
        budget, kind = case.split(":")
        row = one(recipe, options.corpus, budget, kind, keep)
        print(f"{case:<18} {row['share']:>14.3f} {row['tokens']:>14.3f} {row['progress']:>9.3f}", flush=True)
        if kind == "frozen":
            figures[f"{case} time error"] = abs(row["share"] - 1)
            goals[f"{case} time error"] = "<= 0.10"
        else:
            figures |= {f"{case} time": row["share"], f"{case} earliness": 1 - row["share"], f"{case} tokens": row["tokens"], f"{case} decay": row["progress"]}
            goals |= {f"{case} time": "<= 1.01", f"{case} earliness": "<= 0.05", f"{case} tokens": ">= 0.90", f"{case} decay": ">= 1"}
    finish("budget", "full" if options.full else "quick", figures, {}, goals)


if __name__ == "__main__":
    main()
