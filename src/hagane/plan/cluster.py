"""What a recipe would take on a cluster of the machine table: shape, tokens, layouts, days, energy, cost. Arithmetic only."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from hagane.errors import RecipeError
from hagane.model.count import num_active_parameters
from hagane.plan.amounts import amount, factor
from hagane.plan.cluster_page import Page, page_facts, page_lines
from hagane.plan.cluster_shape import Chosen, Job, Laid, choose_shape
from hagane.plan.contexts import curriculum
from hagane.plan.curve import RATIOS
from hagane.plan.dial import Dial
from hagane.plan.facts import CurvePoint
from hagane.plan.found import find_mixture, with_mixture
from hagane.plan.held import refuse_unheld
from hagane.plan.kept import find_law
from hagane.plan.law import Law
from hagane.plan.limits import FEWEST_PUBLISHED, MOST_YEARS
from hagane.plan.machines import cluster
from hagane.plan.serve import Served
from hagane.plan.shapes import published
from hagane.plan.sketch import point_of
from hagane.plan.start import starting_model
from hagane.plan.text import Supply
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Budget


def plan_on(recipe: Recipe, machine_text: str, serve_tokens: float = 0.0) -> tuple[list[str], dict[str, Any]]:
    """Lines for people and facts for scripts. A size that the recipe gives does not yield to the budget on a cluster; one that it leaves open is chosen.

    With `serve_tokens` the budget pays for serving that many tokens, too. Raises RecipeError where the machine is unknown, the recipe gives no amount, the
    budget or its text is too small, it is endless, no host holds the shape, or nothing fits, DataError for text that is not there.
    """
    machine, recipe = cluster(machine_text), with_mixture(recipe, find_mixture(recipe))
    context = max(curriculum(recipe), key=lambda part: part[1])[0]  # of most of pretraining
    law = find_law(recipe)
    supply = Supply.of(recipe, law)
    dial = Dial.of(recipe, machine, serve_tokens)
    job = Job(recipe, dial, context, supply.most_read if dial.hours_count else math.inf)
    law = supply.law(law)
    config = starting_model(recipe) or published(recipe.model, context)
    chosen = None
    if config is not None:
        laid = job.published(config)
    else:
        chosen = choose_shape(job, law, supply.worth)
        laid = chosen.laid
    refuse_unheld(recipe, laid.config)
    job.refuse_absurd(laid, supply.unique, chosen is None)
    curve = _curve(job, law, supply, laid, None if serve_tokens else chosen)
    served = _served(job, laid, curve[len(curve) // 2].bits_per_byte) if serve_tokens else None
    alone = chosen.again(replace(job.dial, serve_tokens=0.0)) if chosen is not None and serve_tokens else laid.config
    languages = supply.languages(law, laid.config, job.text_bytes(laid.config, laid.tokens), laid.tokens)
    page = Page(job, law, supply, laid, chosen, curve, served, alone, languages, _few_tokens(job, laid))
    return page_lines(page), page_facts(page)


def _few_tokens(job: Job, laid: Laid) -> tuple[str, ...]:
    """What to know where a model gets fewer tokens than any that was published: that, and the budget for which it would not."""
    (fewest, whose), active = FEWEST_PUBLISHED, num_active_parameters(laid.config)
    needed, allowed = fewest * active, job.text_tokens(laid.config)
    if laid.tokens >= needed:
        return ()
    said = (
        f"{amount(laid.tokens)} tokens for {amount(active)} active parameters are {factor(laid.tokens / active)} for each, fewer than any published model was "
        f"trained on (the fewest: {whose} {fewest:g})"
    )
    if allowed < needed:
        return (f"{said}; the text that there is allows {amount(allowed)}. Give more text, or take a smaller model.",)
    try:  # with so many tokens steps are larger and faster
        then = job.lay_out(laid.config, needed)
    except RecipeError:
        then = laid
    years = job.dial.seconds(needed, then.tokens_per_second) / (365.25 * 86400)
    if years > MOST_YEARS:
        return (f"{said}; on {job.machine} they would take {years:,.3g} years. Take a larger machine, or a smaller model.",)
    enough = job.dial.enough(needed, then.tokens_per_second, 3 * laid.work.forward_flops)
    words = f" ({enough})" * (enough.kind == "time")
    return (f"{said}; --budget {enough.exact}{words} reaches that. Give it, or take a smaller model.",)


def _served(job: Job, laid: Laid, loss: float) -> Served:
    """How the seconds of the budget are divided."""
    training, serving = (job.dial.seconds(tokens, laid.tokens_per_second) for tokens in (laid.tokens, job.dial.serve_tokens / 3))
    return Served(laid.config, training, serving, loss)


def _curve(job: Job, law: Law, supply: Supply, laid: Laid, chosen: Chosen | None) -> tuple[CurvePoint, ...]:
    """Loss over training time around the plan's own: for its shape and layout, or each for the shape that would be `chosen`."""
    seconds = job.dial.seconds(laid.tokens, laid.tokens_per_second)
    found = []
    for ratio in RATIOS:
        config, speed, flops = laid.config, laid.tokens_per_second, 3 * laid.work.forward_flops
        if chosen is not None and ratio != 1:
            config, speed, flops = chosen.at(replace(job.dial, budget=Budget(kind="time", amount=seconds * ratio)))
        tokens = min(seconds * ratio * job.dial.goodput * speed, job.most_bytes / job.text_bytes(config, 1.0))
        value, low, high = law.predict(point_of(config, supply.effective(job.text_bytes(config, tokens))))
        found.append(
            CurvePoint(
                seconds=seconds * ratio, joules=job.dial.joules(seconds * ratio), flops=tokens * flops, num_active_parameters=num_active_parameters(config),
                bits_per_byte=value, low=low, high=high,
            )
        )  # fmt: skip
    return tuple(found)
