"""A plan before anything is read: that of the run, with what can be known of the text from its files and with steps by the machine's matrix rate.

The text of people that the recipe has not named yet is taken to suffice. Bytes a token stands for are those of usual text, as no tokenizer was trained.
"""

from __future__ import annotations

from typing import Any

from hagane.corpus.language import UNDETERMINED
from hagane.errors import RecipeError
from hagane.folder import pinned_only
from hagane.measure.machine import profile, step_key
from hagane.model.config import ModelConfig
from hagane.model.count import mtp_parts, num_active_parameters, num_parameters, parts
from hagane.plan.amounts import amount, dollars, energy
from hagane.plan.choose import Allowance, Known, TimeStep, choose, text_worth
from hagane.plan.contexts import contexts
from hagane.plan.cost import step_seconds, step_work
from hagane.plan.curve import curve_line
from hagane.plan.facts import PlanFacts, schedule_of
from hagane.plan.fitted import fitted
from hagane.plan.found import find_mixture, with_mixture
from hagane.plan.held import refuse_unheld
from hagane.plan.kept import find_law
from hagane.plan.languages import generated_sources, language_lines, mixture_reason, often_line, unused_line
from hagane.plan.law import Law
from hagane.plan.least import refuse_few_steps
from hagane.plan.serve import Served, served_lines, serving_options
from hagane.plan.shapes import parts_line, published, shape_facts
from hagane.plan.sketch import (
    EVALUATE_SECONDS,
    OVERRIDES,
    PLAN_SECONDS,
    PREPARED_SHARE,
    SHAPE_SECONDS,
    START_SECONDS,
    Sketch,
    budget_seconds,
    point_of,
    release_seconds,
    sketch,
    whole_seconds,
)
from hagane.plan.text import UNNAMED_BYTES, Supply, text_before
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Budget, Machine, StepRate, duration


def preview(recipe: Recipe, pinned: tuple[str, ...], serve_tokens: float | None = None) -> tuple[list[str], dict[str, Any]]:
    """What a budget would buy: numbers before the corpus is read, from the kept profile and the kept law of the text, or the general one.

    With `serve_tokens` the budget pays for serving that many tokens, too, and the shape is chosen for both. Raises RecipeError for what cannot be planned,
    DataError for text that is not there.
    """
    if (unused := next((name for name in pinned if name.startswith(("execution.layout", "execution.goodput"))), None)) is not None:
        raise RecipeError(f"{unused} is of a machine of the table, and this plan is of the machine at hand. Give --machine, or leave it out.")
    recipe = with_mixture(recipe, find_mixture(recipe))
    size = pinned_only(recipe, pinned)
    if serve_tokens and (recipe.budget is None or Budget.parse(recipe.budget).kind not in ("time", "energy", "money")):
        raise RecipeError("--serve-tokens divides a budget between training and serving. Give --budget as time, energy or money, for example 2h.")
    exact = published(recipe.model, recipe.train.context)
    if recipe.budget is None and recipe.train.tokens is None and exact is not None:
        return _count(recipe, exact)
    machine = profile(recipe.execution.device, recipe.execution.threads)
    recipe = fitted(recipe, pinned, machine)
    law = find_law(recipe)
    rough = sketch(recipe, size, machine, law)
    refuse_few_steps(recipe, size, machine, law)
    known = text_before(recipe, size, law, rough.sample_bytes)
    step, serving, alone = _expected_step(recipe, machine), None, None
    plan = choose(recipe, size, machine, known, rough, _allowance(recipe, machine, rough), step, law=law, time_quickly=step)
    refuse_unheld(recipe, plan.model)
    if serve_tokens:
        alone, worth = plan.model, text_worth(recipe, known)
        serving = serving_options(recipe, size, machine, alone.vocabulary_size, rough.training_seconds, law, serve_tokens, worth)[0]
        rough = rough.model_copy(update={"training_seconds": serving.training_seconds})
        plan = choose(recipe, size, machine, known, rough, _allowance(recipe, machine, rough), step, serving.config, law, step)
        plan = plan.model_copy(update={"reasons": {"model": "for training and serving together, as told above", **plan.reasons}})
    facts = _facts(recipe, machine, plan, rough, known) | _of_people(recipe, plan, known, law)
    if serving is not None and alone is not None:
        facts |= {"serve_tokens": serve_tokens, "serving_seconds": round(serving.serving_seconds, 1), "width_without_serving": alone.width}
    return _lines(recipe, machine, plan, facts, known, serving, alone), facts


def _expected_step(recipe: Recipe, machine: Machine) -> TimeStep:
    """A micro-step as it was measured here before, else by the matrix rate."""

    def step(config: ModelConfig, rows: int, context: int) -> StepRate:
        kept = machine.steps.get(step_key(recipe, config, rows, context))
        if kept is not None:
            return kept.model_copy(update={"compile_seconds": 0.0})
        seconds = step_seconds(step_work(config, context), rows * context, machine)
        return StepRate(tokens_per_second=rows * context / seconds, step_seconds=seconds, compile_seconds=0.0)

    return step


def _allowance(recipe: Recipe, machine: Machine, rough: Sketch) -> Allowance:
    """Seconds of training where the budget gives them, and what the sketch keeps for everything else."""
    budget = Budget.parse(recipe.budget) if recipe.budget else None
    timed = budget is not None and budget_seconds(budget, machine, recipe.execution.price_per_hour) is not None
    others = {
        "start": START_SECONDS, "corpus and tokenizer": rough.training_seconds * (1 / PREPARED_SHARE - 1),
        "plan": PLAN_SECONDS + SHAPE_SECONDS * (len(contexts(recipe)) - 1), "evaluate": EVALUATE_SECONDS, "release": release_seconds(recipe),
    }  # fmt: skip
    return Allowance(training_seconds=rough.training_seconds if timed else None, other_seconds=others)


def _facts(recipe: Recipe, machine: Machine, plan: PlanFacts, rough: Sketch, known: Known) -> dict[str, Any]:
    """The plan's numbers for scripts and for the page."""
    expected = plan.predicted
    training, price = plan.curve[len(plan.curve) // 2].seconds, recipe.execution.price_per_hour
    text_bytes = sum(known.shard_bytes.values())
    languages = {} if text_bytes >= UNNAMED_BYTES else plan.languages
    facts: dict[str, Any] = {
        "recipe": recipe.name, "budget": recipe.budget, "machine": machine.name, **shape_facts(plan.model), "tokens": plan.expected_tokens,
        "tokens_per_step": plan.tokens_per_step, "steps": round(plan.expected_tokens / plan.tokens_per_step), **schedule_of(plan.phases["pretrain"]),
        "flops": plan.flops * plan.expected_tokens / plan.tokens, "training_seconds": round(training, 1), "seconds": round(expected.seconds, 1),
        "tokens_per_second": round(plan.expected_tokens / training), "stages": {name: round(stage.seconds, 1) for name, stage in plan.stages.items()},
        "sample_bytes": rough.sample_bytes, "text_bytes": None if text_bytes >= UNNAMED_BYTES else round(text_bytes),
        "repeats": None if text_bytes >= UNNAMED_BYTES else max(plan.repeats.values(), default=0.0), "unused_seconds": round(plan.unused_seconds, 1),
        "bits_per_byte": round(expected.bits_per_byte, 3), "low": round(expected.low, 3), "high": round(expected.high, 3),
        "memory_bytes": expected.peak_memory_bytes, "joules": round(expected.joules),
        "energy_source": machine.energy_source, "law": plan.law,
        "usd": None if price is None else round(expected.seconds / 3600 * price, 4), "mixture": mixture_reason(recipe, plan.repeats.values()),
        "languages": {language: item.model_dump(mode="json") for language, item in languages.items() if language != UNDETERMINED},
        "curve": [item.model_dump(mode="json") for item in plan.curve], "price_per_hour": price,
    }  # fmt: skip
    return facts | {"reasons": _reasons(recipe, machine, plan, facts)}


def _of_people(recipe: Recipe, plan: PlanFacts, known: Known, law: Law) -> dict[str, Any]:
    """What is expected of text by people alone, where a run's own figure is a mean with generated problems among its languages: these are easy, and as much of
    them is made as is read. As a plan for a cluster tells it."""
    supply = Supply(recipe, known.shards, generated_sources(recipe))
    if law.corpus is not None or not supply.made or not supply.counted or sum(known.shard_bytes.values()) >= UNNAMED_BYTES:
        return {}
    read_bytes = min(supply.most_read, sum(item.read_bytes for item in plan.languages.values()))
    value, low, high = supply.law(law).predict(point_of(plan.model, supply.effective(read_bytes)))
    return {"people_bits_per_byte": round(value, 3), "people_low": round(low, 3), "people_high": round(high, 3)}


def _loss_lines(facts: dict[str, Any]) -> list[str]:
    languages, people = len(facts["languages"]), facts.get("people_bits_per_byte")
    mean = f", mean of {languages} languages{', their generated problems among it' * (people is not None)}" if languages > 1 else ""
    lines = [f"  loss       {facts['bits_per_byte']:.2f} bits per byte ({facts['low']:.2f}-{facts['high']:.2f}){mean}; 8 is knowing nothing"]
    if people is not None:
        lines.append(f"             {people:.2f} ({facts['people_low']:.2f}-{facts['people_high']:.2f}) of text by people alone")
    return lines


def _reasons(recipe: Recipe, machine: Machine, plan: PlanFacts, facts: dict[str, Any]) -> dict[str, str]:
    """How each number follows, and the setting that overrides it where there is one."""
    seconds, last = facts["training_seconds"], plan.phases["pretrain"][-1]
    source = "by the measured matrix rate; `hagane measure` or a run times steps, too"
    if step_key(recipe, plan.model, last.rows, last.context) in machine.steps:
        source = "as steps took here"
    elif machine.overhead != 1.0:
        source = f"by the measured matrix rate and {machine.overhead:.2g} times the usual overhead, as steps of other shapes have here"
    told = {name: reason for name, reason in plan.reasons.items() if name != "steps"}
    told |= {
        "training_seconds": f"{duration(facts['seconds'])} less start, planning, evaluation and release, and {1 - PREPARED_SHARE:.0%} for corpus and tokenizer",
        "tokens": f"{duration(seconds)} x {facts['tokens_per_second']:,} tokens/s, {source}",
        "steps": f"{facts['tokens']:,} tokens / {facts['tokens_per_step']:,} of a step; the run times one before it freezes its plan",
        "flops": f"{facts['flops'] / facts['tokens']:.3g} FLOPs a token, forward and backward, x {facts['tokens']:,} tokens",
        "corpus.sample_bytes": f"{facts['sample_bytes']:,} bytes: text for these tokens, and two thirds more for what cleaning drops and faster steps read",
        "bits_per_byte": f"80 % of outcomes from {facts['low']:.2f} to {facts['high']:.2f}, by {facts['law']}",
        "memory_bytes": "weights, gradients, masters and moments, activations of a micro-step, and the process beside them",
        "joules": f"{duration(facts['seconds'])} x {machine.power_watts:g} W; {machine.power_source}",
    }
    if facts["usd"] is not None:
        told["usd"] = f"{duration(facts['seconds'])} x {facts['price_per_hour']:g} USD an hour"
    return {name: f"{reason}; override: {OVERRIDES[name]}" if name in OVERRIDES else reason for name, reason in told.items()}


def _lines(
    recipe: Recipe, machine: Machine, plan: PlanFacts, facts: dict[str, Any], known: Known, serving: Served | None, alone: ModelConfig | None
) -> list[str]:
    """The page of the terminal."""
    experts, served = facts["num_experts"], facts.get("serve_tokens") or 0.0
    cost = "" if facts["usd"] is None else f"; {dollars(facts['usd'])}"
    return [
        f"{recipe.name} with {recipe.budget or f'{recipe.train.tokens:,} tokens'} on {machine.name} ({machine.matmul_flops / 1e9:,.0f} GFLOP/s bf16 measured)",
        f"  model      width {facts['width']}, {facts['num_layers']} layers{f', {experts} experts' * (experts > 0)}, "
        f"{amount(plan.num_parameters)} parameters ({amount(plan.num_active_parameters)} active), vocabulary {plan.vocabulary_size:,}",
        f"             {parts_line(plan.model)}",
        f"  training   {amount(facts['tokens'])} tokens in {duration(facts['training_seconds'])} at about {facts['tokens_per_second']:,} tokens/s: "
        f"{facts['steps']:,} steps of {facts['tokens_per_step']:,} tokens, learning rate {facts['learning_rate']:.2g}, {amount(facts['flops'], 'FLOP')}",
        *(served_lines(serving, served, alone, _training_budget(recipe, machine, serving)) if serving is not None and alone is not None else []),
        "  time       " + ", ".join(f"{name} {duration(seconds)}" for name, seconds in facts["stages"].items()) + f": {duration(facts['seconds'])} in all",
        f"  text       {_text_line(recipe, facts)}",
        *_loss_lines(facts),
        f"  mixture    {facts['mixture']}",
        f"  memory     {amount(facts['memory_bytes'], 'B')}; energy {energy(facts['joules'])} ({machine.energy_source}){cost}",
        *language_lines({language: plan.languages[language] for language in facts["languages"]}),
        "  budgets    " + curve_line(plan.curve),
        "How the numbers follow:",
        *(f"  {name:<20} {reason}" for name, reason in facts["reasons"].items()),
        "The run times a real step of its shape before it freezes its plan; these are estimates.",
    ]


def _training_budget(recipe: Recipe, machine: Machine, serving: Served) -> Budget:
    """The recipe's budget without what serving takes of it."""
    budget = Budget.parse(recipe.budget or "")
    whole = budget_seconds(budget, machine, recipe.execution.price_per_hour)
    assert whole  # for the type checker: only budgets of time, energy and money are divided
    return Budget(kind=budget.kind, amount=budget.amount * whole_seconds(serving.training_seconds, len(contexts(recipe))) / whole)


def _text_line(recipe: Recipe, facts: dict[str, Any]) -> str:
    """What is read of what there is; what to do where it is read too often."""
    if facts["text_bytes"] is None:
        return f"a sample of {amount(facts['sample_bytes'], 'B')} of the text that you give with --corpus, taken to be there"
    there, sample = amount(facts["text_bytes"], "B"), facts["sample_bytes"]
    if sample < facts["text_bytes"]:
        return f"a sample of {amount(sample, 'B')} of {there}"
    most = recipe.corpus.max_repeats
    return f"all of {there}{unused_line(facts['unused_seconds'], most) or often_line(facts['repeats'], most)}"


def _count(recipe: Recipe, config: ModelConfig) -> tuple[list[str], dict[str, Any]]:
    """A recipe of a published size without a budget: what it holds."""
    refuse_unheld(recipe, config)
    counted = parts(config)
    lines = [f"{recipe.name}: {num_parameters(config):,} parameters, {num_active_parameters(config):,} active"]
    lines += [f"  {name:<10} {count:,}" for name, count in counted.items() if count]
    further = sum(mtp_parts(config).values())
    if further:
        lines.append(f"  and {further:,} in training, to predict further tokens")
    return lines, {"recipe": recipe.name, **shape_facts(config), "mtp_parameters": further}
