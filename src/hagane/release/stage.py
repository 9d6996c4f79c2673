"""The release stage: the trained weights as a Hugging Face folder with its card, proven before it counts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hagane.engine.load import load_config, load_weights
from hagane.evaluate.facts import EvaluateFacts
from hagane.folder import Run
from hagane.hosts import host_for
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters, num_parameters
from hagane.plan.cost import joules
from hagane.release.card import CardFacts, CardSource, card
from hagane.release.huggingface import ReleaseFacts, release_huggingface
from hagane.tune.stage import trained_folder


def run_stage(run: Run, folder: Path) -> ReleaseFacts:
    """Write `huggingface/` into the stage's folder. Raises RunError where transformers does not agree."""
    trained = trained_folder(run)
    config, settings = load_config(trained), run.recipe.release
    text = card(_card_facts(run, config))
    (folder / "card.md").write_text(text, encoding="utf-8")
    return release_huggingface(load_weights(trained), config, run.path("encode"), folder / "huggingface", settings.dtype, text)


def _card_facts(run: Run, config: ModelConfig) -> CardFacts:
    settings, machine = run.recipe.release, run.machine
    training: list[dict[str, Any]] = [run.facts("pretrain"), run.facts("midtrain"), *run.facts("tune")["steps"].values()]
    seconds = run.clock.spent()
    sources = tuple(
        CardSource(name=shard["source"], language=shard["language"], licenses=tuple(shard["license"]), documents=shard["documents"], bytes=shard["bytes"])
        for shard in run.facts("corpus")["shards"].values()
        if shard["documents"]
    )
    return CardFacts(
        name=run.recipe.name, description=run.recipe.description, author=settings.author, license=settings.license, country=settings.country,
        year=time.gmtime().tm_year, host=host_for(config), num_parameters=num_parameters(config), num_active_parameters=num_active_parameters(config),
        vocabulary_size=config.vocabulary_size, context=config.context, training_tokens=sum(stage["tokens"] for stage in training), sources=sources,
        hardware=machine.hardware, seconds=seconds,
        joules=joules(seconds, machine), power_source=machine.power_source, evaluation=EvaluateFacts.model_validate(run.facts("evaluate")),
        hagane=run.environment.hagane,
    )  # fmt: skip
