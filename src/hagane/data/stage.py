"""The encode stage: cut the vocabulary to the plan's size, write the shards of text."""

from __future__ import annotations

import time
from pathlib import Path

from hagane.corpus.build import ShardFacts
from hagane.corpus.pool import ConsoleProgress
from hagane.data.encode import encode_text
from hagane.data.writer import CollectionFacts
from hagane.folder import Run
from hagane.plan.facts import PlanFacts
from hagane.plan.start import starting_folder
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import cut, load_tokenizer
from hagane.tokenizer.chat import CHAT_TEMPLATE
from hagane.tokenizer.save import chat_template, load_pieces, save_for_transformers, save_pieces


class EncodeFacts(Frozen):
    """What was written: `text`, for all training on text."""

    vocabulary_size: int
    collections: dict[str, CollectionFacts]
    seconds: float


def run_stage(run: Run, folder: Path) -> EncodeFacts:
    """Write tokenizer and `text/`."""
    started = time.monotonic()
    plan = PlanFacts.model_validate(run.facts("plan"))
    tokenizer = load_tokenizer(run.path("tokenizer"))
    if starting_folder(run.recipe) is None:
        tokenizer = cut(tokenizer, plan.vocabulary_size)
    else:  # the ids of a checkpoint's tokenizer are those of its rows
        save_pieces(folder, load_pieces(run.path("tokenizer")))
    tuned = any(phase.startswith("tune/") for phase in plan.phases)
    # conversations are learned in our form; a model that learns none here keeps the one it has
    save_for_transformers(tokenizer, folder, plan.context, CHAT_TEMPLATE if tuned else chat_template(run.path("tokenizer")))
    shards = {name: ShardFacts.model_validate(facts) for name, facts in run.facts("corpus")["shards"].items() if name in plan.mixture}
    contexts = sorted({plan.context, *(phase.context for parts in plan.phases.values() for phase in parts if phase.collection == "text")})
    collections = {
        "text": encode_text(
            run.path("corpus"), shards, tokenizer, folder / "text", contexts, tokens_per_step=plan.tokens_per_step, progress=ConsoleProgress()
        )
    }
    return EncodeFacts(vocabulary_size=plan.vocabulary_size, collections=collections, seconds=time.monotonic() - started)
