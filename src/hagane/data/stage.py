"""The encode stage: cut the vocabulary to the plan's size, write the shards of text and of generated conversations."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from hagane.corpus.build import ShardFacts
from hagane.corpus.pool import ConsoleProgress
from hagane.data.encode import encode_conversations, encode_text
from hagane.data.writer import CollectionFacts
from hagane.folder import Run
from hagane.plan.facts import PlanFacts
from hagane.plan.start import starting_folder
from hagane.recipe.schema import TuneStep
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import cut, load_tokenizer
from hagane.tokenizer.chat import ChatEncoder, Conversation
from hagane.tokenizer.save import save_for_transformers
from hagane.tune.conversations import problem_conversations

MEASURED = 400  # conversations whose mean length says how many are needed
MARGIN = 1.1  # over the steps that are expected; beyond this the packed rows are read again


class EncodeFacts(Frozen):
    """What was written: `text` for pretraining, `tune` for conversations."""

    vocabulary_size: int
    collections: dict[str, CollectionFacts]
    seconds: float


def run_stage(run: Run, folder: Path) -> EncodeFacts:
    """Write tokenizer, `text/` and `tune/`."""
    started = time.monotonic()
    plan = PlanFacts.model_validate(run.facts("plan"))
    tokenizer = load_tokenizer(run.path("tokenizer"))
    if starting_folder(run.recipe) is None:  # the ids of a checkpoint's tokenizer are those of its rows
        tokenizer = cut(tokenizer, plan.vocabulary_size)
    save_for_transformers(tokenizer, folder, plan.context)
    shards = {name: ShardFacts.model_validate(facts) for name, facts in run.facts("corpus")["shards"].items() if name in plan.mixture}
    contexts = sorted({plan.context, *(phase.context for parts in plan.phases.values() for phase in parts if phase.collection == "text")})
    collections = {
        "text": encode_text(
            run.path("corpus"), shards, tokenizer, folder / "text", contexts, tokens_per_step=plan.tokens_per_step, progress=ConsoleProgress()
        )
    }
    steps = [step for step in run.recipe.tune.steps if f"tune/{step.name}" in plan.phases]
    if steps:
        encoder = ChatEncoder(tokenizer)
        conversations = itertools.chain.from_iterable(_conversations(run, plan, step, encoder) for step in steps)
        collections["tune"] = encode_conversations(conversations, tokenizer, folder / "tune", [plan.context], shard=lambda conversation: conversation.source)
    return EncodeFacts(vocabulary_size=plan.vocabulary_size, collections=collections, seconds=time.monotonic() - started)


def _conversations(run: Run, plan: PlanFacts, step: TuneStep, encoder: ChatEncoder) -> Iterator[Conversation]:
    """As many conversations of each mode as the step's planned tokens need; different ones for every step and mode."""
    phase = plan.phases[f"tune/{step.name}"][0]
    for shard, share in phase.mixture.items():
        if "/" in shard:  # replayed text is encoded already
            continue
        thinking = shard.endswith(".thinking")
        made = problem_conversations(run.recipe.tune, f"{run.seed}/{shard}", thinking, shard, step.learn_prompt)
        first = list(itertools.islice(made, MEASURED))
        mean = sum(len(ids) for ids, _ in encoder.training(first)) / len(first)
        wanted = round(MARGIN * share * phase.num_steps * phase.tokens_per_step * plan.expected_tokens / plan.tokens / mean)
        yield from itertools.islice(itertools.chain(first, made), max(MEASURED, wanted))
