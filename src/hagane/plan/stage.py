"""The plan stage: gather what the stages before it measured, choose, and write the frozen plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hagane.errors import RecipeError
from hagane.model.config import ModelConfig
from hagane.plan.choose import Allowance, FewStepsError, Known, TimeQuickly, TimeStep, choose
from hagane.plan.cost import overhead_of
from hagane.plan.facts import PlanFacts
from hagane.plan.law import GENERAL, Law
from hagane.plan.shapes import shape_key
from hagane.plan.sketch import CONVERSE_TOKENS_PER_SECOND, Sketch, evaluate_seconds, release_seconds
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import Machine, StepRate

WHOLE_SHARE = 0.7  # of the sample that was asked for: cleaning drops some of a text that would have sufficed
ENCODE_BYTES_PER_SECOND = 6.0e6  # two cores; docs/notebook.md, "where the minutes go"


def known_from(corpus: dict[str, Any], tokenizer: dict[str, Any], sample_bytes: int | None = None) -> Known:
    """The facts of the corpus and tokenizer stages as the plan needs them; the text is all there is where `sample_bytes` asked for more."""
    shards = corpus["shards"]
    if not shards:
        raise RecipeError("the corpus has no documents left to train on; see corpus/facts.json for the drop reasons.")
    return Known(
        shard_bytes={name: shard["bytes"] for name, shard in shards.items() if shard["documents"]},
        shard_source={name: shard["source"] for name, shard in shards.items()},
        shard_language={name: shard["language"] for name, shard in shards.items()},
        held_out_bytes={name: shard["held_out_bytes"] for name, shard in shards.items()},
        shard_repeats={name: shard["repeats"] for name, shard in shards.items() if shard.get("repeats", 1.0) != 1.0},
        bytes_per_token={int(size): table for size, table in tokenizer["bytes_per_token"].items()},
        new_tokens=tokenizer.get("new_tokens", 0),
        whole=sample_bytes is not None and sum(shard["bytes"] for shard in shards.values()) < WHOLE_SHARE * sample_bytes,
    )


def make_plan(
    recipe: Recipe,
    pinned: SizeSettings,
    machine: Machine,
    known: Known,
    sketch: Sketch,
    remaining: Callable[[], float | None],
    time_step: TimeStep,
    spent: dict[str, float],
    law: Law = GENERAL,
    time_quickly: TimeQuickly | None = None,
) -> PlanFacts:
    """Choose for what is left of the budget once the step of the chosen shape was timed. `spent`: seconds of the stages before."""
    preparing = {"encode": sum(known.shard_bytes.values()) / ENCODE_BYTES_PER_SECOND}
    if recipe.tune.share:
        preparing["converse"] = sketch.tokens * recipe.tune.share / CONVERSE_TOKENS_PER_SECOND
    timed: dict[str, StepRate] = {}

    def time_once(config: ModelConfig, rows: int, context: int) -> StepRate:
        """A step is timed once: choosing again with what is left after timing asks for the same shape."""
        key = shape_key(config, rows, context, recipe.train.dtype)
        if key not in timed:
            timed[key] = time_step(config, rows, context)
        return timed[key]

    # a checkpoint is scored as well as what it becomes
    models = 1 if recipe.start.from_ is None else 2

    def allowance(vocabulary_size: int) -> Allowance:
        left = remaining()
        speed = next((rate.tokens_per_second for rate in timed.values()), sketch.tokens / sketch.training_seconds)
        scored = models * _scored_tokens(recipe, known, vocabulary_size)
        ahead = {**preparing, "evaluate": evaluate_seconds(recipe, sketch, scored, speed), "release": release_seconds(recipe)}
        training = None if left is None else max(1.0, left - sum(ahead.values()))
        return Allowance(training_seconds=training, other_seconds={**spent, **ahead})

    def chosen(machine: Machine) -> PlanFacts:
        first = choose(recipe, pinned, machine, known, sketch, allowance(min(known.bytes_per_token)), time_once, law=law, time_quickly=time_quickly)
        if remaining() is None:
            return first
        # what is left is less by the seconds of timing: the steps are counted anew for the same model and batch
        phase = first.phases["pretrain"][-1]  # at train.context
        same_batch = recipe.model_copy(update={"train": recipe.train.model_copy(update={"rows": phase.rows, "accumulation": phase.accumulation})})
        final = choose(same_batch, pinned, machine, known, sketch, allowance(first.vocabulary_size), time_once, model=first.model, law=law)
        of_steps = {name: final.reasons[name] for name in ("steps", "indexers", "bias_rate") if name in final.reasons}
        return final.model_copy(update={"reasons": {**first.reasons, **of_steps}})

    try:
        return chosen(machine)
    except FewStepsError:  # slower than was thought when the shape was chosen: a smaller one may do, chosen for the machine as it is now
        slower = machine.model_copy(update={"overhead": max(machine.overhead, overhead_of(timed.values()))})
        timed.clear()  # their speed is that of another shape; where it is the same one, it deserves a second look
        return chosen(slower)


def _scored_tokens(recipe: Recipe, known: Known, vocabulary_size: int) -> float:
    """Held-out tokens of which bits per byte are measured."""
    bytes_per_token = known.bytes_per_token[vocabulary_size]
    mean = sum(bytes_per_token.values()) / len(bytes_per_token)
    return sum(min(size, recipe.evaluate.max_bytes) / bytes_per_token.get(known.shard_language[name], mean) for name, size in known.held_out_bytes.items())
