"""Small models on one text, trained by a count of steps and scored on the same held-out bytes: what `settings.py` and `plan_transfer.py` share.

Counting steps, a training reads no clock: it can share the machine, and several can run at once, each with its part of the cores.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import torch

from common import digest_of
from hagane.engine.load import load_decoder
from hagane.evaluate.bits_per_byte import score
from hagane.folder import Run
from hagane.measure.machine import cores, profile
from hagane.measure.rung import Ground, encoded
from hagane.model.config import ModelConfig
from hagane.plan.index_phases import with_indexers
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import Recipe, Source
from hagane.recipe.types import Phase
from hagane.run import create
from hagane.train.loop import train
from hagane.train.settings import TrainSettings
from peers.ratios import Bits, mean_bits
from peers.score import read_test
from peers.text import Text

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


def train_and_score(ground: Ground, text: Text, recipe: Recipe, config: ModelConfig, phase: Phase, *, folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """Train one phase in a folder that is deleted afterwards. Tokens read, seconds, and bits of every held-out document by language."""
    data, tokenizer = encoded(ground, config.vocabulary_size, config.context)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch._dynamo.reset()
    begun = time.monotonic()
    phases = with_indexers((phase,), config, recipe.train)
    facts = train(TrainSettings(folder=folder, model=config, phases=phases, data=(data,), seed=seed, threads=threads, checkpoint_seconds=1e9))
    decoder, config = load_decoder(folder)
    documents = read_test(text.test)
    scores = score(decoder, tokenizer, [document["text"] for document in documents], config.context)
    bits: Bits = {}
    for document, value in zip(documents, scores.bits_D.tolist(), strict=True):
        bits.setdefault(document["lang"], []).append(value)
    shutil.rmtree(folder)
    return {"seed": seed, "tokens": facts.tokens, "seconds": time.monotonic() - begun, "bits": bits, "bits_per_byte": mean_bits(bits, text.test_bytes)}


def keep(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Write a finished training where it is looked for next time, whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(result), encoding="utf-8")
    temporary.replace(path)
    return result


def in_processes(jobs: int, function: Callable[..., dict[str, Any]], calls: Sequence[tuple[str, tuple[Any, ...]]], ends: float = float("inf")) -> bool:
    """Call `function` once for each (name, arguments), `jobs` at a time, each in a process of its own. False where `ends` came before all were begun."""
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
            print(f"{name}: {result['bits_per_byte']:.4f} bits per byte, {result['seconds']:.0f} s", flush=True)
    return not waiting
