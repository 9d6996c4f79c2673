"""The release stage: the trained weights as a Hugging Face folder with its card and as GGUF files, proven before they count."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from hagane.engine.load import load_config, load_weights
from hagane.evaluate.bits_per_byte import read_held_out
from hagane.evaluate.facts import EvaluateFacts
from hagane.folder import Run
from hagane.hosts import HOSTS, host_for
from hagane.hosts.base import as_held
from hagane.hosts.gguf import missing_tools, unfit
from hagane.measure.energy import find_counter
from hagane.measure.machine import cores
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters, num_parameters
from hagane.plan.cost import joules
from hagane.recipe.types import Machine
from hagane.release.card import CardFacts, CardSource, card
from hagane.release.gguf import GgufFacts, Identity, release_gguf
from hagane.release.huggingface import ReleaseFacts, release_huggingface
from hagane.release.verify import Verdict
from hagane.tokenizer.bpe import load_tokenizer, pre_tokenizer_is_ours
from hagane.tokenizer.save import chat_template
from hagane.tune.stage import trained_folder

TEXTS, TEXT_CHARACTERS = 3, 2_000  # held-out texts of a shard that llama.cpp must read as we do, and how much of each


def run_stage(run: Run, folder: Path) -> ReleaseFacts:
    """Write `gguf/` and `huggingface/` into the stage's folder. Raises RunError where llama.cpp or transformers does not agree."""
    trained = trained_folder(run)
    config, state, settings = load_config(trained), load_weights(trained), run.recipe.release
    gguf = _gguf(run, folder, config, state)
    released = folder / "huggingface"
    facts = release_huggingface(state, config, run.path("encode"), released, settings.dtype, lambda verdict: card(_card_facts(run, config, gguf, verdict)))
    shutil.copy2(released / "README.md", folder / "card.md")
    return facts.model_copy(update={"gguf": gguf})


def _gguf(run: Run, folder: Path, config: ModelConfig, state: dict[str, Tensor]) -> GgufFacts:
    """The GGUF files, or why there are none. What the recipe demands and cannot be is an error, what `auto` cannot do is said."""
    settings, host = run.recipe.release, host_for(config)
    if settings.gguf is False:
        return GgufFacts(skipped="release.gguf = false")
    if settings.gguf == "auto" and (reason := missing_tools() or unfit(HOSTS[host], config)) is not None:
        return GgufFacts(skipped=reason)
    tokenizer = load_tokenizer(run.path("encode"))
    if settings.gguf == "auto" and not pre_tokenizer_is_ours(tokenizer):
        return GgufFacts(skipped=f"the tokenizer of {run.recipe.start.from_} splits text as none that hagane knows by a name of llama.cpp's")
    held_out = read_held_out(run.path("corpus"), TEXTS * TEXT_CHARACTERS, run.seed)
    texts = [text[:TEXT_CHARACTERS] for part in held_out for text in part.texts[:TEXTS]]
    identity = Identity(name=run.recipe.name, license=settings.license, author=settings.author)
    threads = run.recipe.execution.threads or cores()
    return release_gguf(state, config, host, tokenizer, folder / "gguf", identity, texts, threads, chat_template(run.path("encode")))


def _card_facts(run: Run, config: ModelConfig, gguf: GgufFacts, verdict: Verdict) -> CardFacts:
    settings, machine, held = run.recipe.release, run.machine, as_held(config)
    training: list[dict[str, Any]] = [*(run.facts(stage) for stage in ("pretrain", "midtrain", "extend")), *run.facts("tune")["steps"].values()]
    seconds, counted = run.clock.spent(), run.clock.spent_joules()
    sources = tuple(
        CardSource(name=shard["source"], language=shard["language"], licenses=tuple(shard["license"]), documents=shard["documents"], bytes=shard["bytes"])
        for shard in run.facts("corpus")["shards"].values()
        if shard["documents"]
    )
    return CardFacts(
        name=run.recipe.name, description=run.recipe.description, author=settings.author, license=settings.license, country=settings.country,
        year=time.gmtime().tm_year, host=host_for(config), num_parameters=num_parameters(config), num_active_parameters=num_active_parameters(config),
        host_active_parameters=None if held == config else num_active_parameters(held),
        vocabulary_size=config.vocabulary_size, context=config.context, training_tokens=sum(stage["tokens"] for stage in training), sources=sources,
        hardware=machine.hardware, seconds=seconds,
        joules=joules(seconds, machine) if counted is None else counted, power_source=_power_source(machine, counted),
        evaluation=EvaluateFacts.model_validate(run.facts("evaluate")),
        hagane=run.environment.hagane, max_logit_gap=verdict.max_logit_gap, form_logit_gap=verdict.form_logit_gap,
        greedy_parted=verdict.greedy_parted, prompts_checked=verdict.prompts_checked,
        left_out=HOSTS[host_for(config)].modules_reason(config) or "", gguf=gguf,
    )  # fmt: skip


def _power_source(machine: Machine, counted: float | None) -> str:
    """Where the joules of a card come from."""
    return f"modelled, not counted: {machine.power_watts:g} W, {machine.power_source}" if counted is None else find_counter(machine.device)[1]
