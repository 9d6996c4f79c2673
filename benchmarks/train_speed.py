"""Training speed beside `transformers`: the same shapes, the same batches, whole optimizer steps, in turns on the same machine.

    python benchmarks/train_speed.py             # about a minute: the dense shape of width 256
    python benchmarks/train_speed.py --full      # widths 256 and 512, and experts beside the dense model of the same active FLOPs

hagane takes the step of its training loop (`hagane.train.stepper`, as `time_steps` does). The other side is `LlamaForCausalLM` or
`Qwen3MoeForCausalLM` with bf16 autocast, the whole model compiled, clipping and fused AdamW; with --full it is given the fastest of the
attention or expert kernels it offers. Both compute the loss of every token; hagane also masks attention across documents and
balances its experts, the other side does not. Every contestant is a process of its own that sleeps while it is not its turn; a
round is one turn of each, in alternating order, with the machine's matrix rate measured between them. FLOPs are the model's: causal
attention, no optimizer, no recomputation. The share is of the highest matrix rate seen over the stated shapes of `hagane measure`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import finish
from hagane.measure.machine import cores, pick_device
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters, num_parameters
from hagane.plan.cost import training_flops_per_token
from hagane.plan.shapes import shape
from hagane.process import ENVIRONMENT
from hagane.recipe.schema import PatternSettings, SizeSettings

GOAL = ">= 1.5"
VOCABULARY = 8192
ATTENTION = ("sdpa", "eager")
EXPERTS = ("grouped_mm", "eager")  # batched_mm copies the weights of an expert for every token: made for decoding, it does not fit in memory here


@dataclass(frozen=True)
class Case:
    """A shape both sides train, and shapes that only hagane trains beside it."""

    name: str
    config: ModelConfig
    rows: int
    context: int
    beside: dict[str, ModelConfig] = field(default_factory=dict)


def dense(width: int, num_layers: int, context: int, hidden: int | None = None, *, qk_norm: bool = False) -> ModelConfig:
    pattern = PatternSettings(ffn="dense", qk_norm=qk_norm)
    return shape(pattern, SizeSettings(ffn_hidden=hidden), width=width, num_layers=num_layers, vocabulary_size=VOCABULARY, context=context)


def cases(full: bool) -> list[Case]:
    first = Case("dense 256x6", dense(256, 6, 256), 16, 256)
    if not full:
        return [first]
    # 4 of 16 experts of 192: what a token uses is as wide as a dense feed-forward of 768
    pattern = PatternSettings(ffn="experts", num_experts=16, top_k=4)
    experts = shape(pattern, SizeSettings(ffn_hidden=192), width=256, num_layers=6, vocabulary_size=VOCABULARY, context=256)
    same_active = {"hagane, dense of the same active FLOPs": dense(256, 6, 256, 4 * 192, qk_norm=True)}
    return [first, Case("dense 512x8", dense(512, 8, 512), 8, 512), Case("experts 256x6", experts, 16, 256, same_active)]


class Worker:
    """A contestant's process (`peers/step_worker.py`)."""

    def __init__(self, name: str, job: dict[str, Any], log: Path) -> None:
        self.name, self.log = name, log
        folder = Path(__file__).parent
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "peers" / "step_worker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"), text=True,
            env={**ENVIRONMENT, **os.environ, "HF_HUB_OFFLINE": "1"},  # hagane's own settings of the libraries, for both
        )  # fmt: skip
        self.ready = self.ask(job)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError(f"{self.name} ended with exit code {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def turn(self, steps: int) -> list[float]:
        """Run some steps; their seconds."""
        seconds: list[float] = self.ask({"steps": steps})["seconds"]
        return seconds

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@dataclass
class Measured:
    """Median seconds of a step in each round, per contestant, and the matrix rate of each round."""

    seconds: dict[str, list[float]]
    matrix_rates: list[float]
    variant: str


def fastest_transformers(case: Case, job: dict[str, Any], full: bool, folder: Path) -> tuple[Worker, str]:
    """The process with the fastest of the kernels that `transformers` offers for this shape; just its default without `full`."""
    if case.name.startswith("experts"):
        variants = [{"attn_implementation": "sdpa", "experts_implementation": experts} for experts in EXPERTS]
    else:
        variants = [{"attn_implementation": attention} for attention in ATTENTION]
    best: Worker | None = None
    best_name, best_seconds, reasons = "", float("inf"), []
    for variant in variants if full else variants[:1]:
        name = "/".join(variant.values())
        try:
            worker = Worker("transformers", {**job, "kind": "transformers", "variant": variant}, folder / f"transformers-{name.replace('/', '-')}.log")
        except RuntimeError as error:
            reasons.append(f"{name} does not work here: {str(error).strip().splitlines()[-1]}")
            print(f"  {reasons[-1]}", flush=True)
            continue
        seconds = min(worker.turn(2))
        print(f"  transformers with {name}: first step {worker.ready['first_seconds']:.1f} s, then {seconds * 1e3:.0f} ms", flush=True)
        if seconds < best_seconds:
            if best is not None:
                best.close()
            best, best_name, best_seconds = worker, name, seconds
        else:
            worker.close()
    if best is None:
        raise RuntimeError("; ".join(reasons))
    return best, best_name


def measure(case: Case, device: str, rounds: int, turn_seconds: float, full: bool) -> Measured:
    """Turns of all contestants of a case, round after round."""
    job = {"config": case.config.model_dump(mode="json"), "rows": case.rows, "context": case.context, "device": device, "threads": cores()}
    ours: dict[str, dict[str, Any]] = {"hagane": {"optimizer": "adamw"}}
    if full and not case.beside:
        ours["hagane, muon"] = {"optimizer": "muon"}
    ours |= {name: {"optimizer": "adamw", "config": config.model_dump(mode="json")} for name, config in case.beside.items()}
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            matrix = Worker("matrix rate", {"kind": "matrix", "device": device}, folder / "matrix.log")
            workers.append(matrix)
            contestants = {}
            for index, (label, changes) in enumerate(ours.items()):
                contestants[label] = Worker(label, {**job, "kind": "hagane", **changes}, folder / f"hagane-{index}.log")
                workers.append(contestants[label])
                print(f"  {label}: first step {contestants[label].ready['first_seconds']:.1f} s, compilation included", flush=True)
            contestants["transformers"], variant = fastest_transformers(case, job, full, folder)
            workers.append(contestants["transformers"])
            steps = {label: max(2, round(turn_seconds / worker.ready["step_seconds"])) for label, worker in contestants.items()}
            measured = Measured({label: [] for label in contestants}, [matrix.ask({})["rate"]], variant)
            for number in range(rounds):
                for label in list(contestants) if number % 2 else reversed(contestants):
                    measured.seconds[label].append(statistics.median(contestants[label].turn(steps[label])))
                measured.matrix_rates.append(matrix.ask({})["rate"])
            return measured
        finally:
            for worker in workers:
                worker.close()


def report(case: Case, measured: Measured, figures: dict[str, float], spread: dict[str, float]) -> None:
    """Print a case's table and add its figures."""
    tokens, rate = case.rows * case.context, max(measured.matrix_rates)
    counts = f"{num_parameters(case.config) / 1e6:.1f}M parameters, {num_active_parameters(case.config) / 1e6:.1f}M active"
    print(f"{case.name}, {case.rows}x{case.context} tokens, {counts}; matrix rate {rate / 1e9:,.0f} GFLOP/s (lowest {min(measured.matrix_rates) / 1e9:,.0f})")
    print(f"  {'':<40}{'ms a step':>10}{'tokens/s':>11}{'GFLOP/s':>10}{'share':>7}{'times as fast as transformers':>32}")
    theirs = measured.seconds["transformers"]
    for label, seconds in measured.seconds.items():
        config = case.beside.get(label, case.config)
        median = statistics.median(seconds)
        flops = tokens * training_flops_per_token(config, case.context) / median
        ratios = [other / own for own, other in zip(seconds, theirs)]
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if label.startswith("hagane") and config is case.config else ""
        name = f"{label} ({measured.variant})" if label == "transformers" else label
        print(f"  {name:<40}{median * 1e3:>10.0f}{tokens / median:>11,.0f}{flops / 1e9:>10,.0f}{flops / rate:>7.2f}{shown:>32}", flush=True)
        figures[f"{case.name} {label} tokens/s"] = tokens / median
        figures[f"{case.name} {label} share"] = flops / rate
        if shown:
            key = f"{case.name} {label} over transformers"
            figures[key], spread[key] = statistics.median(ratios), max(ratios) - min(ratios)
    for label in case.beside:
        ratios = [other / own for own, other in zip(measured.seconds["hagane"], measured.seconds[label])]
        key = f"{case.name} over {label.removeprefix('hagane, ')}"
        figures[key], spread[key] = statistics.median(ratios), max(ratios) - min(ratios)
        print(f"  experts over dense of the same active FLOPs: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of its tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the default: one shape, three rounds")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--cases", nargs="*", help="only these shapes, for example 'dense 512x8'")
    options = parser.parse_args()
    device = pick_device(options.device)
    wanted = [case for case in cases(options.full or bool(options.cases)) if not options.cases or case.name in options.cases]
    if not wanted:
        parser.error(f"there is no such case; there are {', '.join(case.name for case in cases(True))}")
    figures: dict[str, float] = {}
    spread: dict[str, float] = {}
    rates: list[float] = []
    for case in wanted:
        print(f"{case.name}: compiling", flush=True)
        measured = measure(case, device, options.rounds or (7 if options.full else 3), 3.0 if options.full else 1.2, options.full)
        rates += measured.matrix_rates
        report(case, measured, figures, spread)
    figures["matrix GFLOP/s"] = max(rates) / 1e9
    spread["matrix GFLOP/s"] = (max(rates) - min(rates)) / 1e9
    goals = {key: GOAL for key in figures if key.endswith(" hagane over transformers")}
    finish("train_speed", "full" if options.full else "quick", figures, spread, goals)


if __name__ == "__main__":
    main()
