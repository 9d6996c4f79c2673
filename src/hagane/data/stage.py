"""The encode stage: cut the vocabulary to the plan's size, write the shards of text and of generated conversations."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from hagane.corpus.build import ShardFacts
from hagane.corpus.pool import ConsoleProgress, useful_workers
from hagane.data.encode import encode_text, write_conversations
from hagane.data.writer import CollectionFacts
from hagane.folder import Run
from hagane.plan.facts import PlanFacts
from hagane.plan.start import starting_folder
from hagane.recipe.schema import TuneStep
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import cut, load_tokenizer
from hagane.tokenizer.chat import CHAT_TEMPLATE, ChatEncoder
from hagane.tokenizer.save import chat_template, load_pieces, save_for_transformers, save_pieces
from hagane.tune.conversations import Wanted, encoded_problems, problem_conversations

MEASURED = 400  # conversations whose mean length says how many are needed
CONVERSATIONS_PER_WORKER = 10_000  # starting a process costs half a second; making and encoding these takes about one
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
    if starting_folder(run.recipe) is None:
        tokenizer = cut(tokenizer, plan.vocabulary_size)
    else:  # the ids of a checkpoint's tokenizer are those of its rows
        save_pieces(folder, load_pieces(run.path("tokenizer")))
    steps = [step for step in run.recipe.tune.steps if f"tune/{step.name}" in plan.phases]
    # conversations are learned in our form; a model that learns none here keeps the one it has
    save_for_transformers(tokenizer, folder, plan.context, CHAT_TEMPLATE if steps else chat_template(run.path("tokenizer")))
    shards = {name: ShardFacts.model_validate(facts) for name, facts in run.facts("corpus")["shards"].items() if name in plan.mixture}
    contexts = sorted({plan.context, *(phase.context for parts in plan.phases.values() for phase in parts if phase.collection == "text")})
    collections = {
        "text": encode_text(
            run.path("corpus"), shards, tokenizer, folder / "text", contexts, tokens_per_step=plan.tokens_per_step, progress=ConsoleProgress()
        )
    }
    if steps:
        encoder = ChatEncoder(tokenizer)
        wanted = [one for step in steps for one in _wanted(run, plan, step, encoder)]
        total = sum(one.num for one in wanted)
        workers = useful_workers(run.recipe.corpus.workers, total, total, CONVERSATIONS_PER_WORKER)
        made = encoded_problems(wanted, run.recipe.tune, tokenizer, workers, ConsoleProgress())
        collections["tune"] = write_conversations(made, tokenizer, folder / "tune", [plan.context])
    return EncodeFacts(vocabulary_size=plan.vocabulary_size, collections=collections, seconds=time.monotonic() - started)


def _wanted(run: Run, plan: PlanFacts, step: TuneStep, encoder: ChatEncoder) -> Iterator[Wanted]:
    """As many conversations of each mode as the step's planned tokens need; different ones for every step and mode."""
    phase = plan.phases[f"tune/{step.name}"][0]
    for shard, share in phase.mixture.items():
        if "/" in shard:  # replayed text is encoded already
            continue
        thinking, seed = shard.endswith(".thinking"), f"{run.seed}/{shard}"
        first = list(itertools.islice(problem_conversations(run.recipe.tune, seed, thinking, shard, step.learn_prompt), MEASURED))
        mean = sum(len(ids) for ids, _ in encoder.training(first)) / len(first)
        count = round(MARGIN * share * phase.num_steps * phase.tokens_per_step * plan.expected_tokens / plan.tokens / mean)
        yield Wanted(seed, shard, thinking, step.learn_prompt, 0, max(MEASURED, count))
