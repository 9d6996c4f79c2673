"""plan.json of a run: the numbers, reasons and curve of its plan under the names that `hagane plan --json` has, and what came of each."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from hagane.plan.facts import PlanFacts
from hagane.plan.shapes import experts_of
from hagane.report.against import compared
from hagane.report.record import Record, dig, number


def plan_file(record: Record) -> str | None:
    """The file as text; None before there is a plan, and for a plan that this version cannot read."""
    try:
        plan = PlanFacts.model_validate(record.facts("plan"))
    except ValidationError:
        return None
    return json.dumps(_facts(record, plan), ensure_ascii=False, indent=1) + "\n"


def _facts(record: Record, plan: PlanFacts) -> dict[str, Any]:
    predicted, price = plan.predicted, number(dig(record.recipe, "execution", "price_per_hour"))
    first = next((phases[0] for phases in plan.phases.values() if phases), None)
    return {
        "recipe": str(record.recipe.get("name") or record.name), "budget": plan.budget, "machine": plan.machine.name, "width": plan.model.width,
        "num_layers": plan.model.num_layers, "num_experts": experts_of(plan.model), "vocabulary_size": plan.vocabulary_size,
        "num_parameters": plan.num_parameters, "num_active_parameters": plan.num_active_parameters, "tokens": plan.expected_tokens,
        "promised_tokens": plan.tokens, "tokens_per_step": plan.tokens_per_step, "steps": round(plan.expected_tokens / max(1, plan.tokens_per_step)),
        "learning_rate": None if first is None else first.learning_rate, "flops": plan.flops * plan.expected_tokens / max(1, plan.tokens),
        "seconds": predicted.seconds, "stages": {name: stage.seconds for name, stage in plan.stages.items()},
        "bits_per_byte": predicted.bits_per_byte, "low": predicted.low, "high": predicted.high, "memory_bytes": predicted.peak_memory_bytes,
        "joules": predicted.joules, "price_per_hour": price, "usd": None if price is None else predicted.seconds / 3600 * price, "law": plan.law,
        "languages": {language: item.model_dump(mode="json") for language, item in plan.languages.items()},
        "curve": [point.model_dump(mode="json") for point in plan.curve], "reasons": plan.reasons,
        "finished": record.finished,
        "outcome": {one.key: {"planned": one.planned, "came": one.came, "error": one.relative if record.finished else None} for one in compared(record)},
    }  # fmt: skip
