"""What a recipe would take on a cluster of the machine table: shape, tokens, layouts, days, energy, cost. Arithmetic only."""

from __future__ import annotations

import math
from typing import Any

from hagane.errors import RecipeError
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters, num_parameters
from hagane.plan.contexts import curriculum
from hagane.plan.curve import RATIOS, curve_line
from hagane.plan.facts import CurvePoint
from hagane.plan.held import refuse_unheld
from hagane.plan.kept import find_law
from hagane.plan.languages import text_of, text_point
from hagane.plan.law import Law, usual_bytes_per_token
from hagane.plan.layout import Estimate
from hagane.plan.machines import Cluster, Precision, cluster
from hagane.plan.search import best_layouts
from hagane.plan.shapes import left_open, published
from hagane.plan.workload import Workload, workload
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Budget, duration

FIRST_BATCH = 4 * 2**20  # tokens: where the choice of a batch starts


def batch_tokens(tokens: float, context: int) -> int:
    """Tokens of an optimizer step by Step Law (Li et al. 2025), 0.58 D^0.571, as a power of two of rows."""
    return int(context * 2 ** max(0, round(math.log2(max(1.0, 0.58 * tokens**0.571 / context)))))


def affordable_tokens(budget: Budget, machine: Cluster, work: Workload, tokens_per_second: float) -> float:
    """Training tokens a budget buys at a speed. Raises RecipeError where the table lacks what the budget is counted in."""
    device = machine.accelerator
    if budget.kind == "tokens":
        return budget.amount
    if budget.kind == "flops":
        return budget.amount / (3 * work.forward_flops)
    seconds = budget.amount
    if budget.kind == "energy":
        if device.watts is None:
            raise RecipeError(f"the maker of {device.name} publishes no power, so a budget of energy cannot be planned on it. Give time, money or tokens.")
        seconds = budget.amount / (device.watts * machine.count)
    if budget.kind == "money":
        if machine.price_per_hour is None:
            raise RecipeError(f"{device.name} is not rented by the hour, so a budget of money cannot be planned on it. Give time, energy or tokens.")
        seconds = budget.amount / machine.price_per_hour * 3600
    return seconds * tokens_per_second


def plan_on(recipe: Recipe, machine_text: str) -> tuple[list[str], dict[str, Any]]:
    """Lines for people and facts for scripts. The shape is the recipe's own: on a cluster the size does not yield to the budget.

    Raises RecipeError where the machine is unknown, the recipe gives no size or no amount, no host holds its shape, or nothing fits.
    """
    machine = cluster(machine_text)
    context = max(curriculum(recipe), key=lambda part: part[1])[0]  # of most of pretraining
    config = published(recipe.model, context)
    if config is None:
        raise RecipeError(f"recipe {recipe.name} gives no size to lay out on {machine}. Set {', '.join(left_open(recipe.model))}.")
    refuse_unheld(recipe, config)
    if recipe.budget is None and recipe.train.tokens is None:
        raise RecipeError(f"recipe {recipe.name} says neither how long nor how many tokens to train on {machine}. Give --budget, for example 21d or 1Ttokens.")
    budget = Budget.parse(recipe.budget) if recipe.budget else Budget(kind="tokens", amount=recipe.train.tokens or 0)
    work = workload(config, context)
    precision: Precision = "float32" if recipe.train.dtype == "float32" else "bf16"
    # the batch depends on the tokens and these on the speed at that batch: a fixed point, near enough after one correction
    batch = batch_tokens(budget.amount, config.context) if budget.kind == "tokens" else FIRST_BATCH
    found = best_layouts(work, machine, max(batch, _smallest(machine, work)), precision)
    tokens = affordable_tokens(budget, machine, work, found[0].tokens_per_second)
    wanted = max(batch_tokens(tokens, config.context), _smallest(machine, work))
    if wanted != batch:
        found, batch = best_layouts(work, machine, wanted, precision), wanted
        tokens = affordable_tokens(budget, machine, work, found[0].tokens_per_second)
    law = find_law(recipe)
    curve = _curve(recipe, config, law, work, machine, found[0], tokens)
    here = curve[len(curve) // 2]
    why = reasons(budget, machine, work, found[0], tokens) | {"bits_per_byte": law.source}
    lines = [
        *_lines(recipe, config, work, machine, found, tokens, here),
        "  budgets    " + curve_line(curve),
        "How the numbers follow:",
        *(f"  {name:<16} {text}" for name, text in why.items()),
    ]
    facts = _facts(recipe, config, work, machine, found, tokens) | {
        "bits_per_byte": round(here.bits_per_byte, 3), "low": round(here.low, 3), "high": round(here.high, 3), "law": law.source,
        "curve": [point.model_dump(mode="json") for point in curve], "price_per_hour": machine.price_per_hour, "reasons": why,
    }  # fmt: skip
    return lines, facts


def _curve(
    recipe: Recipe, config: ModelConfig, law: Law, work: Workload, machine: Cluster, best: Estimate, tokens: float
) -> tuple[CurvePoint, ...]:
    """Loss over training time around the plan's own, for the recipe's shape and the fastest layout."""
    each = usual_bytes_per_token(config.vocabulary_size)
    shards, found = text_of(law), []
    for ratio in RATIOS:
        text_bytes = tokens * ratio * each * (1 - recipe.tune.share)
        seconds, joules, _ = _totals(work, machine, best, tokens * ratio)
        value, low, high = law.predict(text_point(recipe, config, shards, text_bytes))
        found.append(
            CurvePoint(
                seconds=seconds, joules=joules, flops=tokens * ratio * 3 * work.forward_flops, num_active_parameters=num_active_parameters(config),
                bits_per_byte=value, low=low, high=high,
            )
        )  # fmt: skip
    return tuple(found)


def _smallest(machine: Cluster, work: Workload) -> int:
    """A row for every eight devices at least, so that few layouts lack work."""
    return max(1, machine.count // 8) * work.context


def _totals(work: Workload, machine: Cluster, best: Estimate, tokens: float) -> tuple[float, float | None, float | None]:
    seconds = tokens / best.tokens_per_second
    joules = None if machine.accelerator.watts is None else seconds * machine.accelerator.watts * machine.count
    dollars = None if machine.price_per_hour is None else seconds / 3600 * machine.price_per_hour
    return seconds, joules, dollars


def utilisation(work: Workload, machine: Cluster, found: Estimate) -> float:
    """Model FLOP utilisation: three forward passes with causal attention over the dense bf16 peak."""
    return found.tokens_per_second * 3 * work.forward_flops / (machine.accelerator.rate("bf16") * machine.count)


def reasons(budget: Budget, machine: Cluster, work: Workload, best: Estimate, tokens: float) -> dict[str, str]:
    """How each number follows from the dial: a formula with its values."""
    device, speed = machine.accelerator, best.tokens_per_second
    seconds = f"{tokens:.3g} tokens / {speed:,.0f} tokens/s"
    given = {
        "tokens": f"{tokens:.3g}, as given",
        "flops": f"{budget.amount:.3g} FLOPs / (3 forward passes x {work.forward_flops:.3g} FLOPs a token)",
        "time": f"{budget.amount:,.0f} s x {speed:,.0f} tokens/s",
        "energy": f"{budget.amount:.3g} J / ({machine.count} x {device.watts or 0:g} W) x {speed:,.0f} tokens/s",
        "money": f"{budget.amount:,.0f} USD / ({machine.count} x {device.price_per_hour or 0:g} USD/h) x {speed:,.0f} tokens/s",
    }
    return {
        "tokens": given[budget.kind],
        "tokens_per_step": f"0.58 D^0.571 (Step Law, Li et al. 2025) as a power of two of rows of {work.context:,}, a row for every eight devices at least",
        "flops": f"{tokens:.3g} tokens x 3 forward passes x {work.forward_flops:.3g} FLOPs a token",
        "seconds": seconds,
        "joules": "not known" if device.watts is None else f"{seconds} x {machine.count} x {device.watts:g} W; modelled, not counted",
        "usd": "not known" if device.price_per_hour is None else f"{seconds} / 3,600 x {machine.count} x {device.price_per_hour:g} USD/h; an assumed price",
        "layout": f"the fastest of all divisions of {machine.count} devices that fit, by a roofline with four fitted constants",
    }


def _lines(recipe: Recipe, config: ModelConfig, work: Workload, machine: Cluster, found: list[Estimate], tokens: float, loss: CurvePoint) -> list[str]:
    best = found[0]
    seconds, joules, dollars = _totals(work, machine, best, tokens)
    device = machine.accelerator
    lines = [
        f"{recipe.name} on {machine}" + (f" with {recipe.budget}" if recipe.budget else ""),
        f"  model      width {config.width}, {config.num_layers} layers, {num_parameters(config):,} parameters, {num_active_parameters(config):,} active, "
        f"vocabulary {config.vocabulary_size:,}",
        f"  training   {tokens / 1e9:,.1f}B tokens in rows of {work.context:,}, {best.tokens / 2**20:.1f}Mi tokens a step, "
        f"{tokens * 3 * work.forward_flops:.3g} FLOPs",
        *[
            f"             {share:.0%} of pretraining on rows of {context:,} is counted like this, and may need another layout"
            for context, share in curriculum(recipe)
            if context != work.context
        ],
        f"  time       {duration(seconds)} at {best.tokens_per_second:,.0f} tokens/s ({best.tokens_per_second / machine.count:,.0f} a device, "
        f"{utilisation(work, machine, best):.0%} of the bf16 peak)",
        "  energy     " + (f"{joules / 3.6e9:,.1f} MWh (board power of {device.watts:g} W; hosts and cooling come on top)" if joules else "not known"),
        "  cost       " + (f"{dollars:,.0f} USD (assumed {device.price_per_hour:g} USD per device and hour)" if dollars else "not known"),
        f"  loss       {loss.bits_per_byte:.2f} bits per byte ({loss.low:.2f}-{loss.high:.2f})",
        f"  layouts    of {device.memory_bytes / 1e9:,.0f} GB a device:",
    ]
    for number, item in enumerate(found, 1):
        lines.append(
            f"    {number}. {item.layout}: {item.memory.total / 1e9:,.0f} GB, {item.seconds:.2f} s a step, {utilisation(work, machine, item):.0%}; "
            f"bottleneck: {item.parts.bottleneck}"
        )
    lines.append("Rates are datasheets' and four fitted constants; half of 173 published speeds are within 12 % (benchmarks/plan_throughput.py).")
    return lines


def _facts(recipe: Recipe, config: ModelConfig, work: Workload, machine: Cluster, found: list[Estimate], tokens: float) -> dict[str, Any]:
    seconds, joules, dollars = _totals(work, machine, found[0], tokens)
    return {
        "recipe": recipe.name, "budget": recipe.budget, "machine": str(machine), "num_parameters": num_parameters(config),
        "num_active_parameters": num_active_parameters(config), "tokens": round(tokens), "tokens_per_step": round(found[0].tokens),
        "flops": tokens * 3 * work.forward_flops, "seconds": round(seconds), "joules": joules and round(joules), "usd": dollars and round(dollars),
        "layouts": [
            {
                "layout": item.layout.model_dump(), "description": str(item.layout), "step_seconds": item.seconds, "tokens_per_second": item.tokens_per_second,
                "utilisation": utilisation(work, machine, item), "memory_bytes": round(item.memory.total), "memory": item.memory._asdict(),
                "parts": item.parts._asdict(), "bottleneck": item.parts.bottleneck,
            }
            for item in found
        ],
    }  # fmt: skip
