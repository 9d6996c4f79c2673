"""The converse stage: make the conversations that tuning learns from. Only tuning reads them, so training on text does not wait for them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from hagane.corpus.pool import ConsoleProgress, useful_workers
from hagane.data.encode import write_conversations
from hagane.data.writer import CollectionFacts
from hagane.folder import Run
from hagane.plan.facts import PlanFacts
from hagane.recipe.schema import TuneStep
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import load_tokenizer
from hagane.tokenizer.chat import ChatEncoder
from hagane.tune.conversations import Wanted, encoded_problems, problem_conversations

MEASURED = 400  # conversations whose mean length says how many are needed
CONVERSATIONS_PER_WORKER = 10_000  # starting a process costs half a second; making and encoding these takes about one
MARGIN = 1.1  # over the steps that are expected; beyond this the packed rows are read again


class ConverseFacts(Frozen):
    """What was written: `tune`, a shard for every step and mode. Nothing where nothing is tuned."""

    collections: dict[str, CollectionFacts]
    seconds: float


def run_stage(run: Run, folder: Path) -> ConverseFacts:
    """Write `tune/`."""
    started = time.monotonic()
    plan = PlanFacts.model_validate(run.facts("plan"))
    steps = [step for step in run.recipe.tune.steps if f"tune/{step.name}" in plan.phases]
    if not steps:
        return ConverseFacts(collections={}, seconds=0.0)
    tokenizer = load_tokenizer(run.path("encode"))
    encoder = ChatEncoder(tokenizer)
    wanted = [one for step in steps for one in _wanted(run, plan, step, encoder)]
    total = sum(one.num for one in wanted)
    workers = useful_workers(run.recipe.corpus.workers, total, total, CONVERSATIONS_PER_WORKER)
    made = encoded_problems(wanted, run.recipe.tune, tokenizer, workers, ConsoleProgress())
    written = write_conversations(made, tokenizer, folder / "tune", [plan.context])
    return ConverseFacts(collections={"tune": written}, seconds=time.monotonic() - started)


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
