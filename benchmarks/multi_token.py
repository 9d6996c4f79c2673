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
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from common import finish
from hagane.data.batch import Row, collate
from hagane.data.source import StepData
from hagane.engine.draft import Drafts
from hagane.engine.generate import generate
from hagane.model.decoder import Decoder
from hagane.model.sequence import PADDING, Sequence
from hagane.plan.shapes import shape
from hagane.recipe.schema import PatternSettings, SizeSettings
from hagane.recipe.types import Phase
from hagane.tokenizer.bpe import special_ids, train_tokenizer
from hagane.tokenizer.special import END_OF_TEXT
from hagane.train.schedule import Timetable
from hagane.train.stepper import Stepper, torch_set_up
from peers.ratios import paired
from peers.text import prepare

VOCABULARY, CONTEXT, ROWS, WIDTH, NUM_LAYERS = 1024, 128, 8, 96, 4
PLAIN, MODULE = PatternSettings(head_dim=32), PatternSettings(head_dim=32, mtp_layers=1)
RATES = (2e-3, 4e-3, 8e-3)
SLOW_START = 3  # steps that warm up and are not timed
NEW_TOKENS, PROMPT = 64, 32


@dataclass(frozen=True)
class Arm:
    """A trained model, its held-out bits per byte, and the seconds of the processor that one of its steps took (median)."""

    decoder: Decoder
    bits: float
    step_seconds: float


class Ground:
    """Text as tokens: a stream to train on, held-out documents, and how many bytes the latter have."""

    def __init__(self, corpus: Path | None, languages: list[str], num_tokens: int, test_bytes: int, out: Path) -> None:
        text = prepare(corpus, languages, 4 * num_tokens, test_bytes, out)
        texts = pq.read_table(text.stream, columns=["text"])["text"].to_pylist()
        tokenizer = train_tokenizer(texts[: 1 + len(texts) // 2], VOCABULARY)
        self.end = special_ids(tokenizer)[END_OF_TEXT]
        records = [json.loads(line)["text"] for line in text.test.read_text(encoding="utf-8").splitlines()]
        self.stream = np.concatenate([np.array([self.end, *one.ids]) for one in tokenizer.encode_batch(texts, add_special_tokens=False)])
        self.held_out = [[self.end, *one.ids] for one in tokenizer.encode_batch(records, add_special_tokens=False)]
        self.num_bytes = sum(len(record.encode()) for record in records)

    def steps(self, seed: int, count: int) -> Iterator[StepData]:
        """Rows of the stream in an order of the seed's; both arms see the same."""
        rows = (len(self.stream) - 1) // CONTEXT
        order = np.concatenate([np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(1 + count * ROWS // rows)])
        for step in range(count):
            numbers = order[step * ROWS : (step + 1) * ROWS].tolist()
            batch = collate([self._row(number) for number in numbers], sources=[0] * ROWS, names=("text",), counters=numbers, numbers=numbers)
            yield StepData(step, (batch,), batch.weight_sum, batch.num_tokens)

    def _row(self, number: int) -> Row:
        tokens = self.stream[number * CONTEXT : (number + 1) * CONTEXT + 1].astype(np.int64)
        begins, place = tokens[:-1] == self.end, np.arange(CONTEXT)
        position = place - np.maximum.accumulate(np.where(begins, place, 0))
        weight = (tokens[1:] != self.end).astype(np.float32)
        return Row(tokens[:-1], tokens[1:], weight, position, np.cumsum(begins).astype(np.int32), CONTEXT)

    @torch.inference_mode()
    def bits(self, decoder: Decoder) -> float:
        """Bits per byte of the held-out documents, in pieces of the context: rows of equal length, for which kernels are there already."""
        pieces = [document[start : start + CONTEXT + 1] for document in self.held_out for start in range(0, len(document) - 1, CONTEXT)]
        nats = 0.0
        for begin in range(0, len(pieces), ROWS):
            part = pieces[begin : begin + ROWS]
            token_BT = torch.zeros(ROWS, CONTEXT + 1, dtype=torch.int64)
            document_BT = torch.full((ROWS, CONTEXT), PADDING, dtype=torch.int32)
            for row, piece in enumerate(part):
                token_BT[row, : len(piece)] = torch.tensor(piece)
                document_BT[row, : len(piece) - 1] = 0
            hidden_BTD = decoder(token_BT[:, :-1], Sequence(torch.arange(CONTEXT).expand(ROWS, -1), document_BT)).hidden_BTD
            logprob_BT = decoder.head.token_logprobs(hidden_BTD, token_BT[:, 1:])
            nats -= float((logprob_BT.double() * (document_BT != PADDING)).sum())
        return nats / math.log(2) / self.num_bytes


def train(ground: Ground, pattern: PatternSettings, steps: int, rate: float, seed: int) -> Arm:
    config = shape(pattern, SizeSettings(), width=WIDTH, num_layers=NUM_LAYERS, vocabulary_size=VOCABULARY, context=CONTEXT)
    phase = Phase(
        name="arm", collection="", context=CONTEXT, rows=ROWS, num_steps=steps, mixture={}, learning_rate=rate, warmup_steps=max(1, steps // 20),
        decay_share=0.4, optimizer="muon", muon_ratio=2.5,
    )  # fmt: skip
    timetable, seconds = Timetable((phase,)), []
    with torch_set_up(threads=1, compiled=False):
        stepper = Stepper(config, device="cpu", dtype="float32", compiled=False, seed=seed, optimizer="muon")
        for step, data in enumerate(ground.steps(seed, steps)):
            begun = time.process_time()
            stepper.step(data, phase, timetable.learning_rate(step))
            seconds.append(time.process_time() - begun)
        stepper.decoder.eval().requires_grad_(False)
        return Arm(stepper.decoder, ground.bits(stepper.decoder), statistics.median(seconds[min(SLOW_START, steps - 1) :]))


def tuned(ground: Ground, pattern: PatternSettings, steps: int, rates: tuple[float, ...]) -> float:
    """The learning rate with the fewest bits per byte, on a seed of its own."""
    return min(rates, key=lambda rate: train(ground, pattern, steps, rate, 1000).bits) if len(rates) > 1 else rates[0]


def training(ground: Ground, steps: int, seeds: int, rates: tuple[float, ...], figures: dict[str, float], spread: dict[str, float]) -> Decoder:
    """The arms of every seed, paired. Returns the last model with a module."""
    plain_rate, module_rate = tuned(ground, PLAIN, steps, rates), tuned(ground, MODULE, steps, rates)
    print(f"learning rates {plain_rate:g} and, with a module, {module_rate:g}; {steps} steps of {ROWS * CONTEXT:,} tokens")
    found: dict[str, list[float]] = {"step time": [], "bits at equal steps": [], "bits at equal time": [], "time to the same loss": []}
    for seed in range(seeds):
        whole, half = (train(ground, PLAIN, count, plain_rate, seed) for count in (steps, max(1, steps // 2)))
        module = train(ground, MODULE, steps, module_rate, seed)
        ratio = module.step_seconds / whole.step_seconds
        equal = train(ground, MODULE, max(1, round(steps / ratio)), module_rate, seed)
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


def decoding(ground: Ground, decoder: Decoder, rows: tuple[int, ...], turns: int, figures: dict[str, float], spread: dict[str, float]) -> None:
    prompts = [document[:PROMPT] for document in ground.held_out if len(document) > PROMPT] * max(rows)
    for count in rows:
        asked, speeds, drafts = prompts[:count], [], Drafts()
        for _ in range(turns + 1):
            begun = time.process_time()
            plain = generate(decoder, asked, NEW_TOKENS, [ground.end])
            middle = time.process_time()
            drafted = generate(decoder, asked, NEW_TOKENS, [ground.end], drafts=drafts)
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
        ground = Ground(options.corpus, languages, ROWS * CONTEXT * max(200, steps), 30_000 if options.full else 8_000, options.out or Path(name))
        decoder = training(ground, steps, seeds, rates, figures, spread)
        decoding(ground, decoder, (1, 8, 64) if options.full else (1, 8), 15 if options.full else 1, figures, spread)
    goals = {"time to the same loss": "<= 1.0", "decoding speed, 1 row": ">= 1.0"} if options.full else {}
    finish("multi_token", "full" if options.full else "quick", figures, spread, goals)


if __name__ == "__main__":
    main()
