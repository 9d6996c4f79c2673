"""Small models on one text, trained by a count of steps and scored on the same held-out bytes: what `settings.py`, `plan_transfer.py` and the rows of
`mechanisms.py` share.

Counting steps, a training reads no clock: it can share the machine, and several can run at once, each with its part of the cores.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from common import digest_of
from hagane.data.source import BatchSource, StepData
from hagane.engine.generate import generate
from hagane.engine.load import load_decoder
from hagane.evaluate.bits_per_byte import score
from hagane.folder import Run
from hagane.measure.machine import cores, profile
from hagane.measure.rung import Ground, encoded
from hagane.measure.small_runs import ground_of
from hagane.model.config import ModelConfig
from hagane.model.decoder import Decoder
from hagane.plan.batch import batch_rule
from hagane.plan.choose import embedding_ratio_rule, learning_rate_rule, mean_bytes_per_token, mixture_of
from hagane.plan.contexts import Part, batch_at, contexts, curriculum, split
from hagane.plan.index_phases import with_indexers
from hagane.plan.null_experts import with_bias_rate
from hagane.plan.shapes import shape
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import Recipe, SizeSettings, Source
from hagane.recipe.types import Phase
from hagane.run import create, open_run
from hagane.train.journal import METRICS
from hagane.train.loop import train
from hagane.train.probe import random_step
from hagane.train.settings import TrainSettings
from hagane.train.stepper import Stepper, torch_set_up
from peers.ratios import Bits, mean_bits
from peers.score import read_test
from peers.text import Text

ROUNDS, STEPS_A_ROUND = 12, 3
DECODED_ROWS, DECODED_PROMPT, DECODED_TOKENS = 8, 32, 64
ROOT = Path(__file__).resolve().parents[1]
TRAINS = ("model", "train", "data", "kernels")  # rooms whose code decides what a run of so many steps learns


@cache
def training_code() -> str:
    """A digest of the code that trains: results of another version of it are not kept."""
    rooms = ((ROOT / "src/hagane" / room).rglob("*") for room in TRAINS)
    return digest_of(path for files in rooms for path in sorted(files) if path.suffix in (".py", ".cpp", ".h"))


def open_folder(recipe_name: str, text: Text, folder: Path, budget_seconds: float) -> Run:
    """The run folder whose corpus and tokenizer all trainings on this text share. The caller walks it to the tokenizer."""
    recipe, written = load_recipe(recipe_name, ["corpus.sources=[]", "release.gguf=false"])
    corpus = recipe.corpus.model_copy(update={"sources": (Source(name="text", path=(str(text.train),)),)})
    recipe = recipe.model_copy(update={"budget": f"{budget_seconds:g}s", "corpus": corpus})
    return create(folder, recipe, written, profile(recipe.execution.device, cores(), say=print), (), started=time.monotonic(), say=print)


def parts_of(recipe: Recipe, phase: Phase) -> list[Part]:
    """The recipe's curriculum with the batch of a phase at its longest context."""
    return [Part(context, *batch_at(context, phase.context, phase.rows, phase.accumulation), share) for context, share in curriculum(recipe)]


def train_and_score(ground: Ground, text: Text, recipe: Recipe, config: ModelConfig, phase: Phase, *, folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """Train one phase, cut as the recipe's curriculum says, in a folder that is deleted afterwards. Tokens read, seconds, the loss of every step, the health of
    indexers at the last, and bits of every held-out document by language."""
    data, tokenizer = encoded(ground, config.vocabulary_size, contexts(recipe))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch._dynamo.reset()
    begun = time.monotonic()
    phases = with_indexers(split(phase, parts_of(recipe, phase)), config, recipe.train)
    config = with_bias_rate(config, recipe.model.pattern, phases)
    facts = train(TrainSettings(folder=folder, model=config, phases=phases, data=(data,), seed=seed, threads=threads, checkpoint_seconds=1e9, log_every=1))
    lines = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    decoder, config = load_decoder(folder)
    documents = read_test(text.test)
    scores = score(decoder, tokenizer, [document["text"] for document in documents], config.context)
    bits: Bits = {}
    for document, value in zip(documents, scores.bits_D.tolist(), strict=True):
        bits.setdefault(document["lang"], []).append(value)
    shutil.rmtree(folder)
    taken = {"seed": seed, "tokens": facts.tokens, "seconds": time.monotonic() - begun}
    taken |= {"losses": [line["loss"] for line in lines], "indexer": lines[-1]["indexer"]}
    return {**taken, "bits": bits, "bits_per_byte": mean_bits(bits, text.test_bytes)}


def step_seconds(arms: Mapping[str, tuple[ModelConfig, Phase]], threads: int) -> dict[str, float]:
    """Seconds of a step of every arm, in turns on a quiet machine: the lower quartile over rounds of their means, as other work only ever adds."""
    rounds: dict[str, list[float]] = {name: [] for name in arms}
    with torch_set_up(threads=threads, compiled=True):
        steppers: dict[str, tuple[Stepper, list[StepData]]] = {}
        for name, (config, phase) in arms.items():
            torch._dynamo.reset()  # each with its own compiled code; what was compiled before keeps working
            stepper = Stepper(config, device="cpu", dtype="bfloat16", compiled=True, seed=0, optimizer=phase.optimizer)
            data = [random_step(config.vocabulary_size, phase.rows, phase.context, phase.accumulation, index) for index in range(STEPS_A_ROUND)]
            for index in range(2):
                stepper.step(data[index], phase, 1e-4)
            steppers[name] = stepper, data
        for turn in range(ROUNDS):
            for name, (_, phase) in list(arms.items())[:: 1 if turn % 2 else -1]:
                stepper, data = steppers[name]
                begun = time.perf_counter()
                for one in data:
                    stepper.step(one, phase, 1e-4)
                rounds[name].append((time.perf_counter() - begun) / len(data))
    return {name: sorted(times)[len(times) // 4] for name, times in rounds.items()}


def keep(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Write a finished training where it is looked for next time, whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(result), encoding="utf-8")
    temporary.replace(path)
    return result


def in_processes(
    jobs: int, function: Callable[..., dict[str, Any]], calls: Sequence[tuple[str, tuple[Any, ...]]], ends: float = float("inf"), figure: str = "bits_per_byte"
) -> bool:
    """Call `function` once for each (name, arguments), `jobs` at a time, each in a process of its own, and tell the `figure` and "seconds" of what it returns.
    False where `ends` came before all were begun."""
    begun, waiting, number = time.monotonic(), list(calls), 0
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        running: dict[Any, str] = {}
        while waiting or running:
            while waiting and len(running) < jobs and time.monotonic() < ends:
                name, arguments = waiting.pop(0)
                running[pool.submit(function, *arguments)] = name
            if not running:
                return False
            future = next(as_completed(running))
            name, result, number = running.pop(future), future.result(), number + 1
            left = (time.monotonic() - begun) / number * (len(calls) - number)
            print(f"[{time.strftime('%H:%M')}, about {left / 60:.0f} min left] ", end="")
            print(f"{name}: {result[figure]:.4f} {figure.replace('_', ' ')}, {result['seconds']:.0f} s", flush=True)
    return not waiting


@dataclass(frozen=True)
class Arm:
    """A model of the recipe's pattern with `sets`, trained on `tokens` by the plan's rules, some of their values multiplied.

    `embedding` is of the table's own rate, which stays where the others' are changed; `weights`: how much of a language is read, over its usual share;
    `window`: of grouped-query attention in every layer, which no recipe has.
    """

    name: str
    width: int
    num_layers: int
    tokens: float
    sets: tuple[str, ...] = ()
    learning_rate: float = 1.0
    batch: float = 1.0
    embedding: float = 1.0
    weights: tuple[tuple[str, float], ...] = ()
    window: int | None = None


@dataclass(frozen=True)
class Arms:
    """What all arms share; every training is kept in `out` by what it depends on."""

    text: Text
    ground: Ground
    out: Path
    recipe: str
    vocabulary_size: int
    jobs: int = 1

    def settings(self, arm: Arm) -> Recipe:
        return _recipe(self.recipe, arm.sets)

    def config(self, arm: Arm) -> ModelConfig:
        recipe = self.settings(arm)
        shaped = {"width": arm.width, "num_layers": arm.num_layers, "vocabulary_size": self.vocabulary_size, "context": recipe.train.context}
        config = shape(recipe.model.pattern, SizeSettings(), **shaped)
        if arm.window is None:
            return config
        windowed = (layer.model_copy(update={"mixer": layer.mixer.model_copy(update={"window": arm.window})}) for layer in config.layers)
        return config.model_copy(update={"layers": tuple(windowed)})

    def mean_seen(self, arm: Arm, limit: int | None) -> float:
        """Keys that a token of the training text sees, itself among them, at most `limit`: mean over a hundred rows."""
        phase, (data, _) = self.phase(arm), encoded(self.ground, self.vocabulary_size, contexts(self.settings(arm)))
        source = BatchSource([data], phase.model_copy(update={"rows": 100, "accumulation": 1}), 0)
        step = source.read(0)
        source.close()
        return step.num_seen(limit) / step.num_tokens

    def phase(self, arm: Arm) -> Phase:
        recipe, config, known = self.settings(arm), self.config(arm), self.ground.known
        train, context = recipe.train, recipe.train.context
        rows = max(1, round(arm.batch * batch_rule(recipe, arm.tokens) / context))
        steps = max(1, round(arm.tokens / rows / context))
        rule = learning_rate_rule(config, arm.tokens)
        rates, _ = mixture_of(recipe, known, arm.tokens * mean_bytes_per_token(known, self.vocabulary_size))
        weights = dict(arm.weights)
        rates = {shard: rate * weights.get(known.shard_language[shard], 1.0) for shard, rate in rates.items()}
        return Phase(
            name="arm", collection="text", context=context, rows=rows, num_steps=steps, learning_rate=rule * arm.learning_rate,
            mixture={shard: rate / sum(rates.values()) for shard, rate in rates.items()}, warmup_steps=max(1, round(steps * train.warmup_share)),
            embedding_ratio=embedding_ratio_rule(recipe, config, rule) * arm.embedding / arm.learning_rate, **train.of_phases(),
        )  # fmt: skip

    def step_seconds(self, arms: Mapping[str, Arm]) -> dict[str, float]:
        """Name -> mean seconds of a step over the contexts it is trained at, timed in turns: needs a quiet machine."""
        parts = {name: parts_of(self.settings(arm), self.phase(arm)) for name, arm in arms.items()}
        phases = {
            f"{name} {part.context}": (
                self.config(arm), self.phase(arm).model_copy(update={"context": part.context, "rows": part.rows, "accumulation": part.accumulation}),
            )
            for name, arm in arms.items() for part in parts[name]
        }  # fmt: skip
        seconds = step_seconds(phases, cores())
        return {name: sum(part.share * seconds[f"{name} {part.context}"] for part in own) for name, own in parts.items()}

    def decode_seconds(self, arms: Mapping[str, Arm]) -> dict[str, float]:
        """Name -> seconds of a generated token with initial weights, DECODED_ROWS rows at once: in turns on a quiet machine, the lower quartile of them."""
        decoders = {}
        for name, arm in arms.items():
            decoders[name] = Decoder(self.config(arm))
            decoders[name].init_weights(0)
            decoders[name].eval().requires_grad_(False)
            decoders[name].fuse()  # as every decoder that the engine loads
        prompts, times = [[1] * DECODED_PROMPT] * DECODED_ROWS, {name: list[float]() for name in arms}
        torch.set_num_threads(cores())
        for turn in range(ROUNDS + 1):
            for name in list(arms)[:: 1 if turn % 2 else -1]:
                begun = time.perf_counter()
                generate(decoders[name], prompts, DECODED_TOKENS, stop_ids=())
                times[name].append((time.perf_counter() - begun) / DECODED_TOKENS / DECODED_ROWS)
        return {name: sorted(own[1:])[ROUNDS // 4] for name, own in times.items()}  # the first turn warms up

    def path(self, arm: Arm, seed: int) -> Path:
        config, phase, recipe = self.config(arm), self.phase(arm), self.settings(arm)
        cut = with_indexers((phase,), config, recipe.train)
        config = with_bias_rate(config, recipe.model.pattern, cut)
        trained = phase.model_dump_json() if cut == (phase,) else [piece.model_dump_json() for piece in cut]
        named = [config.model_dump_json(), trained, curriculum(recipe), seed, self.text.digest, training_code()]
        return self.out / f"{hashlib.blake2b(json.dumps(named).encode(), digest_size=8).hexdigest()}.json"

    def result(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Train and score; from the file where it was done before."""
        path = self.path(arm, seed)
        if path.exists():
            return dict(json.loads(path.read_text()))
        recipe, config, phase = self.settings(arm), self.config(arm), self.phase(arm)
        folder, threads = self.out / f"training-{path.stem}", max(1, cores() // self.jobs)
        result = train_and_score(self.ground, self.text, recipe, config, phase, folder=folder, seed=seed, threads=threads)
        return keep(path, {"arm": arm.name, **result})

    def train(self, wanted: Sequence[tuple[Arm, int]], ends: float = float("inf")) -> bool:
        """Train every (arm, seed) that is not kept, `jobs` at a time, each in a process of its own. False where `ends` came before all were begun."""
        missing = [(arm, seed) for arm, seed in wanted if not self.path(arm, seed).exists()]
        for lengths in {tuple(contexts(self.settings(arm))) for arm, _ in missing}:
            encoded(self.ground, self.vocabulary_size, lengths)  # once, before processes that would make it at the same time
        shared = (self.text, self.ground.run.folder, self.out, self.recipe, self.vocabulary_size, self.jobs)
        return in_processes(self.jobs, _one, [(f"{arm.name}, seed {seed}", (*shared, arm, seed)) for arm, seed in missing], ends)


@cache
def _recipe(name: str, sets: tuple[str, ...]) -> Recipe:
    """Asked for at every question about an arm."""
    return load_recipe(name, ["corpus.sources=[]", *sets])[0]


def _one(text: Text, folder: Path, out: Path, recipe: str, vocabulary_size: int, jobs: int, arm: Arm, seed: int) -> dict[str, Any]:
    """A single training, in a process of its own."""
    return Arms(text, ground_of(open_run(folder)), out, recipe, vocabulary_size, jobs).result(arm, seed)
