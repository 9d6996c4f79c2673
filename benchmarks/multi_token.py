"""Multi-token prediction: what a module for the token after next costs and brings in training, and what its drafts bring in decoding.

    python benchmarks/multi_token.py                                    # does it run: a few steps, one seed
    python benchmarks/multi_token.py --full --corpus DIR --out DIR      # what is quoted: five seeds, ten languages

Training: a small model without modules, and the same with one, each at the best of the learning rates tried. The one with a module is
trained for as many steps, and for as many as take the other's time (from the seconds of its steps). What its loss is worth in time is read
from two runs of the model without, of the whole and of half the steps: the loss falls as a straight line in log time between them.
Decoding: greedy text after held-out beginnings, with drafts and without, in turns; equal token for token. In float32, not compiled, on one
thread; times are seconds of the processor, in which other work on the machine counts less.
Text as in `equal_time.py`: a folder per language, or the Python library's own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from claims.bench import CONTEXT, VOCABULARY, Bench
from common import finish
from hagane.engine.draft import Drafts
from hagane.engine.generate import generate
from hagane.model.decoder import Decoder
from hagane.plan.shapes import shape
from hagane.recipe.schema import PatternSettings, SizeSettings
from hagane.recipe.types import Phase
from hagane.train.schedule import Timetable
from hagane.train.stepper import Stepper, torch_set_up
from peers.ratios import mean_bits, paired
from peers.text import prepare

ROWS, WIDTH, NUM_LAYERS = 8, 96, 4
PLAIN, MODULE = PatternSettings(head_dim=32), PatternSettings(head_dim=32, mtp_layers=1)
RATES = (2e-3, 4e-3, 8e-3)
SLOW_START = 3  # steps that warm up and are not timed
NEW_TOKENS, PROMPT = 64, 32


@dataclass(frozen=True)
class Arm:
    """A trained model, its held-out bits per byte (mean over languages), and the seconds of the processor that one of its steps took (median)."""

    decoder: Decoder
    bits: float
    step_seconds: float


def train(bench: Bench, pattern: PatternSettings, steps: int, rate: float, seed: int) -> Arm:
    config = shape(pattern, SizeSettings(), width=WIDTH, num_layers=NUM_LAYERS, vocabulary_size=VOCABULARY, context=CONTEXT)
    phase = Phase(
        name="arm", collection="", context=CONTEXT, rows=ROWS, num_steps=steps, mixture={}, learning_rate=rate, warmup_steps=max(1, steps // 20),
        decay_share=0.4, optimizer="muon", muon_ratio=2.5,
    )  # fmt: skip
    timetable, seconds = Timetable((phase,)), []
    with torch_set_up(threads=1, compiled=False):
        stepper = Stepper(config, device="cpu", dtype="float32", compiled=False, seed=seed, optimizer="muon")
        for step, data in enumerate(bench.data(seed, steps)):
            begun = time.process_time()
            stepper.step(data, phase, timetable.learning_rate(step))
            seconds.append(time.process_time() - begun)
        stepper.decoder.eval().requires_grad_(False)
        return Arm(stepper.decoder, mean_bits(bench.score(stepper.decoder), bench.text.test_bytes), statistics.median(seconds[min(SLOW_START, steps - 1) :]))


def tuned(bench: Bench, pattern: PatternSettings, steps: int, rates: tuple[float, ...]) -> float:
    """The learning rate with the fewest bits per byte, on a seed of its own."""
    return min(rates, key=lambda rate: train(bench, pattern, steps, rate, 1000).bits) if len(rates) > 1 else rates[0]


def training(bench: Bench, steps: int, seeds: int, rates: tuple[float, ...], figures: dict[str, float], spread: dict[str, float]) -> Decoder:
    """The arms of every seed, paired. Returns the last model with a module."""
    plain_rate, module_rate = tuned(bench, PLAIN, steps, rates), tuned(bench, MODULE, steps, rates)
    print(f"learning rates {plain_rate:g} and, with a module, {module_rate:g}; {steps} steps of {ROWS * CONTEXT:,} tokens")
    found: dict[str, list[float]] = {"step time": [], "bits at equal steps": [], "bits at equal time": [], "time to the same loss": []}
    for seed in range(seeds):
        whole, half = (train(bench, PLAIN, count, plain_rate, seed) for count in (steps, max(1, steps // 2)))
        module = train(bench, MODULE, steps, module_rate, seed)
        ratio = module.step_seconds / whole.step_seconds
        equal = train(bench, MODULE, max(1, round(steps / ratio)), module_rate, seed)
        per_doubling = max(half.bits - whole.bits, 1e-9)
        found["step time"].append(ratio)
        found["bits at equal steps"].append(module.bits / whole.bits)
        found["bits at equal time"].append(equal.bits / whole.bits)
        found["time to the same loss"].append(2 ** ((equal.bits - whole.bits) / per_doubling))
        print(f"seed {seed}: {whole.bits:.4f} bits per byte without, {half.bits:.4f} in half the steps; {module.bits:.4f} with, {equal.bits:.4f} in equal time")
    for name, values in found.items():
        mean = paired(values)
        figures[name] = mean.value
        if seeds > 1:
            spread[name] = mean.half
        print(f"{name:<24}{mean}   with over without")
    return module.decoder


def decoding(bench: Bench, decoder: Decoder, rows: tuple[int, ...], turns: int, figures: dict[str, float], spread: dict[str, float]) -> None:
    prompts = [document[:PROMPT] for documents in bench.held_out.values() for document in documents if len(document) > PROMPT] * max(rows)
    for count in rows:
        asked, speeds, drafts = prompts[:count], [], Drafts()
        for _ in range(turns + 1):
            begun = time.process_time()
            plain = generate(decoder, asked, NEW_TOKENS, [bench.end])
            middle = time.process_time()
            drafted = generate(decoder, asked, NEW_TOKENS, [bench.end], drafts=drafts)
            speeds.append((middle - begun) / (time.process_time() - middle))
            if drafted != plain:
                raise SystemExit("drafts changed the text")
        name = f"decoding speed, {count} row{'s' * (count > 1)}"
        figures[name], spread[name] = statistics.median(speeds[1:]), max(speeds[1:]) - min(speeds[1:])
        print(f"{name:<28}{figures[name]:>8.2f} ± {spread[name] / 2:.2f}   with drafts over without; {drafts.acceptance:.0%} of the drafts accepted")
        figures[f"acceptance, {count} row{'s' * (count > 1)}"] = drafts.acceptance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the default")
    parser.add_argument("--corpus", type=Path, help="folder with one folder of text per language")
    parser.add_argument("--languages", nargs="*", help="names of folders of the corpus, or how many of the largest")
    parser.add_argument("--out", type=Path, help="keeps the prepared text; a temporary folder where not given")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--rates", type=float, nargs="*")
    options = parser.parse_args()
    steps, seeds = options.steps or (1500 if options.full else 12), options.seeds or (5 if options.full else 1)
    rates = tuple(options.rates or (RATES if options.full else RATES[1:2]))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    spread: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="hagane-multi-token-") as name:
        languages = options.languages or (["10"] if options.full else ["2"])
        out, mode = options.out or Path(name), "full" if options.full else "quick"
        text = prepare(options.corpus, languages, 4 * ROWS * CONTEXT * max(200, steps), 30_000 if options.full else 8_000, out)
        bench = Bench(text, out, mode, steps=steps, seeds=seeds, sweep=len(rates), width=WIDTH, rows=ROWS, threads=1)
        decoder = training(bench, steps, seeds, rates, figures, spread)
        decoding(bench, decoder, (1, 8, 64) if options.full else (1, 8), 15 if options.full else 1, figures, spread)
    goals = {"time to the same loss": "<= 1.0", "decoding speed, 1 row": ">= 1.0"} if options.full else {}
    finish("multi_token", mode, figures, spread, goals)


if __name__ == "__main__":
    main()
