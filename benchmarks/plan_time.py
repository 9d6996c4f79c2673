"""How long does `hagane plan` take to answer? Every shipped recipe, here and on machines of the table, and every claim; each a process of its own.

    python benchmarks/plan_time.py --full                     # some 60 commands five times, in turns: a quarter of an hour, nothing else running
    python benchmarks/plan_time.py --full --corpus DIR        # plans of one's own text as well
    python benchmarks/plan_time.py --quick                    # three commands twice

The profile of this machine is measured before. Commands are run in turns, so that a slow minute of the machine meets all of them alike; the figure is the
slowest command's median from the start of its process to its end. A plan that is refused (a cluster that is too small, a recipe without a published size on
one) counts like any other: it is an answer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import finish
from hagane.measure.machine import profile
from hagane.plan.claim import shipped_claims
from hagane.recipe.load import shipped_recipes
from hagane.recipe.types import duration

GOAL_SECONDS = 1.5  # of issue 5
LOCAL = ("10min", "2h", "30d", "2kWh", "1e20FLOP", "40USD")
CLUSTERS = ("64xH200 21d", "2048xA100 49d", "768xA100 42d", "8xMI300X 7d", "256xv5p 1e22FLOP", "256xv5p 2d", "1024xH100 30d", "8xRTX4090 10d")


def commands(full: bool, corpus: list[str], folder: Path) -> dict[str, list[str]]:
    """Name -> arguments of `hagane`."""
    written = ["--json", str(folder / "plan.json"), "--page", str(folder / "plan.html")]
    text = [part for path in corpus for part in ("--corpus", path)]
    if not full:
        small = {"quickstart 5min": ["plan", "quickstart", "--budget", "5min"], "claim palm-540b": ["plan", "palm-540b", "--claim"]}
        return {**small, "llm-jp-4-8b 64xH200 21d": ["plan", "llm-jp-4-8b", "--machine", "64xH200", "--budget", "21d", *written]}
    found: dict[str, list[str]] = {}
    for recipe in shipped_recipes():
        for budget in LOCAL:
            price = ["--set", "execution.price_per_hour=2"] if budget.endswith("USD") else []
            found[f"{recipe} {budget}"] = ["plan", recipe, "--budget", budget, *text, *price]
        for cluster in CLUSTERS:
            machine, budget = cluster.split()
            found[f"{recipe} {cluster}"] = ["plan", recipe, "--machine", machine, "--budget", budget, *text]
        found[f"{recipe} 2h, written"] = ["plan", recipe, "--budget", "2h", *text, *written]
        found[f"{recipe} 2h, served"] = ["plan", recipe, "--budget", "2h", "--serve-tokens", "1e9", *text]
    return found | {f"claim {claim}": ["plan", claim, "--claim", *written] for claim in shipped_claims()}


def timed(arguments: list[str]) -> tuple[float, str]:
    """Seconds of a process, and what it ended with: "" for a plan, the reason for a refusal. A traceback ends the benchmark."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "hagane", *arguments], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 2) or "Traceback" in done.stderr:
        raise SystemExit(f"hagane {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds, done.stderr.strip().splitlines()[-1] if done.returncode else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the default")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--corpus", action="append", default=[])
    parser.add_argument("--rounds", type=int, help="5 with --full, else 2")
    options = parser.parse_args()
    rounds = options.rounds or (5 if options.full else 2)
    profile("auto")
    with tempfile.TemporaryDirectory(prefix="hagane-plan-time-") as folder:
        wanted = commands(options.full, options.corpus, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in wanted}
        refused: dict[str, str] = {}
        begun, load = time.perf_counter(), os.getloadavg()[0]
        for turn in range(rounds):
            for name, arguments in wanted.items():
                taken, reason = timed(arguments)
                seconds[name].append(taken)
                refused |= {name: reason} if reason else {}
            left = (time.perf_counter() - begun) / (turn + 1) * (rounds - turn - 1)
            print(f"[{time.strftime('%H:%M')}] turn {turn + 1} of {rounds}, about {duration(left)} left", file=sys.stderr, flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{'hagane plan':<44} {'median':>7} {'least':>7} {'most':>7}")
    for name in sorted(medians, key=lambda name: -medians[name]):
        print(f"{name:<44} {medians[name]:>7.2f} {min(seconds[name]):>7.2f} {max(seconds[name]):>7.2f}  {refused.get(name, '')[:90]}")
    slowest = max(medians, key=lambda name: medians[name])
    figures = {"slowest median": medians[slowest], "median of medians": statistics.median(medians.values()), "commands": float(len(medians))}
    figures |= {"plans": float(len(medians) - len(refused)), "load before": load}
    spread = {"slowest median": max(seconds[slowest]) - min(seconds[slowest])}
    finish("plan_time", "full" if options.full else "quick", figures, spread, {"slowest median": f"<= {GOAL_SECONDS}"} if options.full else {})


if __name__ == "__main__":
    main()
