"""One small run of a ladder or of `hagane mix`: a small model trained on the corpus' own text by the plan's rules, scored on held-out text, and forgotten."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from tokenizers import Tokenizer

from hagane.corpus.build import ShardFacts
from hagane.corpus.mixture import Shard
from hagane.data.encode import encode_text
from hagane.engine.load import load_decoder
from hagane.evaluate.bits_per_byte import HeldOut, bits_per_byte
from hagane.folder import Run, write_atomic
from hagane.measure.machine import cores
from hagane.plan.batch import batch_rule
from hagane.plan.choose import Known, embedding_ratio_rule, learning_rate_rule, mean_bytes_per_token, mixture_of
from hagane.plan.fit import Run as FitRun
from hagane.plan.index_phases import with_indexers
from hagane.plan.ladder import Rung
from hagane.plan.languages import effective_total, read_by_language
from hagane.plan.null_experts import with_bias_rate
from hagane.plan.sketch import point_of
from hagane.recipe.types import Frozen, Phase
from hagane.run import result_settings
from hagane.tokenizer.bpe import cut, load_tokenizer
from hagane.train.callbacks import Callback
from hagane.train.loop import train
from hagane.train.settings import TrainSettings

VERSION = 3  # raised when a change makes the same settings another model or another training: kept runs are not its own
TILT = 2.0  # how much more or less often a language is read in a tilted run


class RungFacts(Frozen):
    """What a finished run of the ladder measured. `key` names everything it depends on."""

    key: str
    rung: Rung
    active: float
    total: float
    tokens: int
    bytes: float
    bits_per_byte: dict[str, float]
    text_error: dict[str, float]
    own_bytes: dict[str, float]
    seconds: float

    def run(self) -> FitRun:
        """As the fit wants it."""
        from hagane.plan.law import Point

        point = Point(self.active, self.total, self.bytes, self.rung.vocabulary_size)
        return FitRun(point, sum(self.bits_per_byte.values()) / len(self.bits_per_byte), self.bits_per_byte, self.own_bytes)


@dataclass(frozen=True)
class Ground:
    """What all small runs of a command stand on: the run folder with corpus and tokenizer, what they measured, and the held-out text.

    `name` is the command's: its folder in the run folder, and how its lines begin.
    """

    run: Run
    known: Known
    held_out: Sequence[HeldOut]
    name: str = "ladder"

    @property
    def folder(self) -> Path:
        return self.run.path(self.name)

    @property
    def shards(self) -> dict[str, Shard]:
        return self.known.shards

    def key(self) -> str:
        """Everything but the run itself that its result depends on."""
        recipe = self.run.recipe
        digests = [(self.run.record(stage) or {})["digest"] for stage in ("corpus", "tokenizer")]
        settings = [result_settings(recipe.train), result_settings(recipe.model.pattern), recipe.corpus.max_repeats]
        scored = [(part.shard, len(part.texts), sum(map(len, part.texts))) for part in self.held_out]
        if recipe.mix.weights:
            settings.append(result_settings(recipe.mix.weights))
        return hashlib.blake2b(json.dumps([digests, settings, scored, VERSION], sort_keys=True).encode(), digest_size=12).hexdigest()


def finished(ground: Ground, rung: Rung) -> RungFacts | None:
    """The facts of a run that was finished before, on the same ground; None where there is none. A damaged file counts as none: it is trained again."""
    facts = _read(ground.folder / "runs" / rung.name / "rung.json")
    return facts if facts is not None and facts.key == ground.key() and facts.rung == rung else None


def _read(path: Path) -> RungFacts | None:
    try:
        return RungFacts.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def phase_of(ground: Ground, rung: Rung) -> Phase:
    """The run's only phase: warm-up, plateau and its own complete decay, by the plan's rules."""
    recipe = ground.run.recipe
    if rung.weights:
        recipe = recipe.model_copy(update={"mix": recipe.mix.model_copy(update={"weights": rung.weights, "reason": "of a proxy"})})
    train_settings, context = recipe.train, recipe.train.context
    batch = batch_rule(recipe, rung.tokens)
    rates, _ = mixture_of(recipe, ground.known, rung.tokens * mean_bytes_per_token(ground.known, rung.vocabulary_size))
    if rung.tilt:
        languages = sorted({ground.known.shard_language[name] for name in rates})
        factor = {language: TILT if index % 2 else 1 / TILT for index, language in enumerate(languages)}
        rates = {name: rate * factor[ground.known.shard_language[name]] for name, rate in rates.items()}
        rates = {name: rate / sum(rates.values()) for name, rate in rates.items()}
    steps, config = max(1, round(rung.tokens / batch)), rung.config(recipe)
    rate = train_settings.learning_rate or learning_rate_rule(config, rung.tokens)
    return Phase(
        name=ground.name, collection="text", context=context, rows=batch // context, num_steps=steps, mixture=rates, learning_rate=rate,
        warmup_steps=max(1, round(steps * train_settings.warmup_share)), embedding_ratio=embedding_ratio_rule(recipe, config, rate),
        **train_settings.of_phases(),
    )  # fmt: skip


def encoded(ground: Ground, vocabulary_size: int, contexts: Sequence[int] = ()) -> tuple[Path, Tokenizer]:
    """The text encoded with a vocabulary and packed for contexts (the recipe's train.context where none is given), made once, and the tokenizer."""
    contexts = contexts or [ground.run.recipe.train.context]
    folder = ground.folder / f"text-{vocabulary_size}-{'-'.join(map(str, contexts))}-{ground.key()[:8]}"
    tokenizer = cut(load_tokenizer(ground.run.path("tokenizer")), vocabulary_size)
    if not folder.exists():
        temporary = folder.with_name(f".{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        shards = {name: ShardFacts.model_validate(facts) for name, facts in ground.run.facts("corpus")["shards"].items() if name in ground.known.shard_bytes}
        encode_text(ground.run.path("corpus"), shards, tokenizer, temporary / "text", contexts)
        temporary.replace(folder)
    return folder, tokenizer


def train_rung(ground: Ground, rung: Rung, *, compiled: bool, callbacks: Sequence[Callback] = ()) -> RungFacts:
    """Train, score, write `rung.json` and delete the weights. A run that was killed starts again: it is short."""
    started, run, recipe = time.monotonic(), ground.run, ground.run.recipe
    data, tokenizer = encoded(ground, rung.vocabulary_size)
    began = time.monotonic()
    folder = ground.folder / "runs" / rung.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config, phase = rung.config(recipe), phase_of(ground, rung)
    if compiled:
        torch._dynamo.reset()  # another shape: what was compiled for the last one is not needed
    phases = with_indexers((phase,), config, recipe.train)
    config = with_bias_rate(config, recipe.model.pattern, phases)
    settings = TrainSettings(
        folder=folder, model=config, phases=phases, data=(data,), seed=run.seed + rung.seed, device=run.machine.device,
        threads=recipe.execution.threads or cores(), compile=compiled, dtype=recipe.train.dtype, checkpoint_seconds=1e9,
    )  # fmt: skip
    facts = train(settings, callbacks=callbacks)
    decoder, _ = load_decoder(folder, run.machine.device, getattr(torch, recipe.train.dtype))
    languages, _ = bits_per_byte(decoder, tokenizer, ground.held_out, config.context)
    read = read_by_language(ground.shards, phase.mixture, facts.tokens * mean_bytes_per_token(ground.known, rung.vocabulary_size))
    point = point_of(config, effective_total(read))
    result = RungFacts(
        key=ground.key(), rung=rung, active=point.active, total=point.total, tokens=facts.tokens, bytes=point.bytes,
        bits_per_byte={language: score.value for language, score in languages.items()},
        text_error={language: (score.high - score.low) / 2 / 1.96 / score.value for language, score in languages.items()},
        own_bytes={language: reading.effective for language, reading in read.items()}, seconds=time.monotonic() - began,
    )  # fmt: skip
    del decoder
    shutil.rmtree(folder)
    folder.mkdir()
    write_atomic(folder / "rung.json", result.model_dump_json(indent=1))
    run.say(f"{ground.name:<10} {rung.name}: {result.run().bits_per_byte:.4f} bits per byte ({time.monotonic() - started:.0f}s)")
    return result


def all_finished(ground: Ground) -> list[RungFacts]:
    """Every finished run on this ground, also of earlier, smaller ladders. A file that is damaged or in the wrong place counts as none."""
    key, paths = ground.key(), sorted((ground.folder / "runs").glob("*/rung.json"))
    return [facts for path in paths if (facts := _read(path)) is not None and facts.key == key and facts.rung.name == path.parent.name]
