"""What all rows share: text, small models trained on it in the same way, held-out bits per byte, intervals, and results that are kept.

An arm is a configuration and a way to train it. Everything else is equal between the arms of a row: text, tokenizer, order of the data, steps,
schedule. There are two kinds. `Bench.train` makes any configuration and lets a row look into its training: the code of the real loop (`train.stepper`), in
float32 and not compiled, as shapes this small would compile longer than they train. `Bench.arms` trains by the plan's rules for so many tokens, as a run of
hagane does, several at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer

from common import digest_of
from hagane.data.batch import Row, collate
from hagane.data.source import StepData
from hagane.measure.small_runs import ground_of
from hagane.model.config import AttentionConfig, DenseConfig, ExpertsConfig, LayerConfig, ModelConfig
from hagane.model.decoder import Decoder
from hagane.model.sequence import PADDING
from hagane.model.sequence import Sequence as Rows
from hagane.recipe.types import Phase
from hagane.run import walk
from hagane.tokenizer.bpe import special_ids, train_tokenizer
from hagane.tokenizer.special import END_OF_TEXT
from hagane.train.health import RouterSums
from hagane.train.schedule import Timetable
from hagane.train.stepper import Stepper, StepResult, torch_set_up
from peers.ratios import OVERALL, Bits, Ratio, compare, mean_bits
from peers.text import Text
from small_models import Arm, Arms, in_processes, keep, open_folder

VOCABULARY, CONTEXT = 1024, 128
TUNING_SEED = 1000  # chooses between an arm's own settings, and is not used again
ARM_VOCABULARY = {"full": 2048, "quick": 1024}
SCORED_ROWS = 32  # of held-out text at a time
ROOT = Path(__file__).resolve().parents[2]

Hook = Callable[[Decoder], None]
Watch = Callable[[int, StepResult], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """A trained arm: bits of every held-out document by language, what the router was at the end, and the seconds that steps took."""

    bits: Bits
    router: dict[str, Any] | None
    seconds: float
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """Options and text of a run, and what the rows add to: figures, their spread, goals."""

    text: Text
    out: Path
    mode: str
    steps: int
    seeds: int
    sweep: int
    width: int
    rows: int
    threads: int
    tokens: float = 0.0
    jobs: int = 1
    context: int | None = None
    figures: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    goals: dict[str, str] = field(default_factory=dict)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        texts = pq.read_table(self.text.stream, columns=["text"])["text"].to_pylist()
        return train_tokenizer(texts[: 1 + len(texts) // 2], VOCABULARY)

    @cached_property
    def stream(self) -> np.ndarray:
        """Token ids of the training text, each document behind an end of text."""
        texts = pq.read_table(self.text.stream, columns=["text"])["text"].to_pylist()
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return np.concatenate([np.array([self.end, *one.ids]) for one in encoded])

    @cached_property
    def held_out(self) -> dict[str, list[list[int]]]:
        """Language -> token ids of its documents."""
        records = [json.loads(line) for line in self.text.test.read_text(encoding="utf-8").splitlines()]
        found: dict[str, list[list[int]]] = {language: [] for language in self.text.test_bytes}
        for record in records:
            found[record["lang"]].append([self.end, *self.tokenizer.encode(record["text"], add_special_tokens=False).ids])
        return found

    @cached_property
    def arms(self) -> Arms:
        """Trainings by the plan's rules, on a run folder of their own with the corpus of this text and a tokenizer."""
        folder = self.out.parent / f"arms-{self.text.digest[:6]}"
        with open_folder("nordic", self.text, folder, 1200.0) as run:
            walk(run, until="tokenizer", report=False)
            return Arms(self.text, ground_of(run), self.out, "nordic", ARM_VOCABULARY[self.mode], self.jobs)

    def tuned(self, arms: Mapping[str, Arm], rates: Sequence[float]) -> dict[str, Arm]:
        """Every arm at the best of the first `sweep` rates, times the plan's, by the tuning seed; of one rate nothing is trained."""
        tries = {name: [replace(arm, learning_rate=rate) for rate in rates[: self.sweep]] for name, arm in arms.items()}
        if self.sweep == 1:
            return {name: own[0] for name, own in tries.items()}
        self.arms.train([(arm, TUNING_SEED) for own in tries.values() for arm in own])
        return {name: min(own, key=lambda arm: self.arms.result(arm, TUNING_SEED)["bits_per_byte"]) for name, own in tries.items()}

    def results(self, arms: Mapping[str, Arm]) -> dict[str, list[dict[str, Any]]]:
        """Every arm trained and scored with every seed: name -> results by seed."""
        self.arms.train([(arm, seed) for seed in range(self.seeds) for arm in arms.values()])
        return {name: [self.arms.result(arm, seed) for seed in range(self.seeds)] for name, arm in arms.items()}

    @property
    def end(self) -> int:
        return special_ids(self.tokenizer)[END_OF_TEXT]

    def train(
        self, name: str, config: ModelConfig, seed: int, learning_rate: float, *, hooks: Mapping[int, Hook] | None = None, watch: Watch | None = None,
        steps: int | None = None,
    ) -> Outcome:  # fmt: skip
        """Train an arm and score it; a result that is kept from before is given again. `name` says what the other arguments do not.

        `hooks[n]` changes the model before step n; `watch` sees every step, and what it returns last is kept as `extra`.
        """
        steps = steps or self.steps
        named = {
            "arm": name, "config": config.model_dump(), "seed": seed, "rate": learning_rate, "steps": steps, "rows": self.rows,
            "text": self.text.digest, "code": code(),
        }  # fmt: skip
        path = self.path(named)
        if path.exists():
            return Outcome(**json.loads(path.read_text()))
        phase = Phase(
            name="row", collection="", context=CONTEXT, rows=self.rows, num_steps=steps, mixture={}, learning_rate=learning_rate,
            warmup_steps=max(1, steps // 20),
            decay_share=0.4,
        )  # fmt: skip
        timetable, health, begun = Timetable((phase,)), RouterSums(), 0.0
        extra: dict[str, Any] = {}
        with torch_set_up(threads=self.threads, compiled=False):
            stepper = Stepper(config, device="cpu", dtype="float32", compiled=False, seed=seed)
            for step, data in enumerate(self.data(seed, steps)):
                if hooks and step in hooks:
                    with torch.no_grad():
                        hooks[step](stepper.decoder)
                if step == 1:
                    begun = time.perf_counter()  # the first step warms up
                result = stepper.step(data, phase, timetable.learning_rate(step))
                if step >= 0.9 * steps:
                    health.add(result.stats, result.moments_6)
                if watch is not None:
                    extra = watch(step, result)
            seconds, router = time.perf_counter() - begun, health.health(stepper.decoder.clamps())
            bits = self.score(stepper.decoder)
        outcome = Outcome(bits, None if router is None else router.model_dump(mode="json"), seconds, extra)
        keep(path, asdict(outcome))
        return outcome

    def path(self, named: Mapping[str, Any]) -> Path:
        """Where the result of what is described so is kept."""
        return self.out / f"{hashlib.blake2b(json.dumps(named, sort_keys=True).encode(), digest_size=10).hexdigest()}.json"

    def at_once(self, function: Callable[..., dict[str, Any]], calls: Sequence[tuple[str, tuple[Any, ...]]], figure: str = "bits_per_byte") -> None:
        """Call `function(bench, *arguments)` for each (name, arguments), `jobs` at a time, each in a process with its part of the threads; for results that
        are kept. `figure` of what it returns is told, and its "seconds"."""
        if not calls:
            return
        one = replace(self, threads=max(1, self.threads // self.jobs))
        one.stream, one.held_out  # noqa: B018 - made once, for all processes
        in_processes(self.jobs, function, [(name, (one, *arguments)) for name, arguments in calls], figure=figure)

    def data(self, seed: int, steps: int) -> Iterator[StepData]:
        """Rows of the stream in an order of the seed's."""
        count = (len(self.stream) - 1) // CONTEXT
        order = np.concatenate([np.random.default_rng([seed, epoch]).permutation(count) for epoch in range(1 + steps * self.rows // count)])
        for step in range(steps):
            numbers = order[step * self.rows : (step + 1) * self.rows]
            rows = [self._row(self.stream[number * CONTEXT : (number + 1) * CONTEXT + 1]) for number in numbers]
            batch = collate(rows, sources=[0] * self.rows, names=("row",), counters=numbers.tolist(), numbers=numbers.tolist())
            yield StepData(step, (batch,), batch.weight_sum, batch.num_tokens)

    def _row(self, tokens: np.ndarray) -> Row:
        """Documents see themselves alone. The end of text that begins one is no target: nothing says when it comes."""
        starts = tokens[:-1] == self.end
        place = np.arange(CONTEXT)
        return Row(
            tokens_T=tokens[:-1].astype(np.int64), targets_T=tokens[1:].astype(np.int64), weight_T=(tokens[1:] != self.end).astype(np.float32),
            position_T=place - np.maximum.accumulate(np.where(starts, place, 0)), document_T=np.cumsum(starts).astype(np.int32), num_tokens=CONTEXT,
        )  # fmt: skip

    @torch.inference_mode()
    def score(self, decoder: Decoder) -> Bits:
        """Bits of every held-out document, read in rows of the context."""
        decoder.eval()
        pieces = [
            (language, number, tokens[start : start + CONTEXT + 1])
            for language, documents in self.held_out.items()
            for number, tokens in enumerate(documents)
            for start in range(0, len(tokens) - 1, CONTEXT)
        ]
        bits: Bits = {language: [0.0] * len(documents) for language, documents in self.held_out.items()}
        for begin in range(0, len(pieces), SCORED_ROWS):
            part = pieces[begin : begin + SCORED_ROWS]
            token_BT = torch.zeros(len(part), CONTEXT + 1, dtype=torch.int64)
            document_BT = torch.full((len(part), CONTEXT), PADDING, dtype=torch.int32)
            for row, (_, _, tokens) in enumerate(part):
                token_BT[row, : len(tokens)] = torch.tensor(tokens)
                document_BT[row, : len(tokens) - 1] = 0
            hidden_BTD = decoder(token_BT[:, :-1], Rows(torch.arange(CONTEXT).expand(len(part), -1), document_BT)).hidden_BTD
            logprob_BT = decoder.head.token_logprobs(hidden_BTD, token_BT[:, 1:]) * (document_BT != PADDING)
            for (language, number, _), nats in zip(part, (-logprob_BT.double().sum(-1)).tolist(), strict=True):
                bits[language][number] += nats / math.log(2)
        return bits

    def mean(self, outcomes: Sequence[Outcome]) -> float:
        """Bits per byte, mean over languages and seeds."""
        return sum(mean_bits(outcome.bits, self.text.test_bytes) for outcome in outcomes) / len(outcomes)

    def ratio(self, ours: Sequence[Outcome], others: Mapping[str, Sequence[Outcome]]) -> Ratio:
        """Bits per byte over those of the best of the others, with the interval of `peers.ratios`: documents and seeds drawn again, in pairs."""
        bits = {name: [outcome.bits for outcome in outcomes] for name, outcomes in others.items()}
        return compare([outcome.bits for outcome in ours], bits, self.text.test_bytes)[OVERALL]

    def note(self, name: str, value: float, spread: float | None = None, goal: str | None = None) -> None:
        """A figure of the last line."""
        self.figures[name] = value
        if spread is not None and not math.isnan(spread):  # of a single seed
            self.spread[name] = spread
        if goal is not None:
            self.goals[name] = goal


def code() -> str:
    """A digest of what trains: results of another version of it are not kept."""
    return digest_of(sorted([*(ROOT / "src/hagane/model").glob("*.py"), *(ROOT / "src/hagane/train").glob("*.py"), Path(__file__)]))


def small(width: int, ffn: ExpertsConfig | DenseConfig, num_layers: int = 3) -> ModelConfig:
    """The model of the rows: attention of narrow heads, the first layer dense."""
    mixer = AttentionConfig(num_heads=width // 16, num_kv_heads=width // 32, head_dim=16, qk_norm=True)
    dense = DenseConfig(hidden=3 * width)
    layers = (LayerConfig(mixer=mixer, ffn=dense), *(LayerConfig(mixer=mixer, ffn=ffn),) * (num_layers - 1))
    return ModelConfig(vocabulary_size=VOCABULARY, width=width, layers=layers, tied=True, context=CONTEXT)
