"""plan.json of a run: the numbers, reasons and curve of its plan under the names that `hagane plan --json` has, and what came of each.

All but `sample_bytes`, an estimate of what a run would have to read: `text_bytes` is what came of that.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from hagane.plan.facts import PlanFacts, schedule_of
from hagane.plan.shapes import shape_facts
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
    training = sum(stage.seconds for name, stage in plan.stages.items() if name in plan.phases)
    return {
        "recipe": str(record.recipe.get("name") or record.name), "budget": plan.budget, "machine": plan.machine.name, **shape_facts(plan.model),
        "tokens": plan.expected_tokens, "promised_tokens": plan.tokens, "tokens_per_step": plan.tokens_per_step,
        "steps": round(plan.expected_tokens / max(1, plan.tokens_per_step)), **schedule_of(plan.phases.get("pretrain", ())),
        "flops": plan.flops * plan.expected_tokens / max(1, plan.tokens), "training_seconds": training,
        "tokens_per_second": plan.expected_tokens / training if training else None,
        "text_bytes": sum(item.bytes for item in plan.languages.values()) if plan.languages else None,
        "repeats": max(plan.repeats.values(), default=0.0), "unused_seconds": round(plan.unused_seconds, 1), "mixture": plan.reasons.get("mixture"),
        "seconds": predicted.seconds, "stages": {name: stage.seconds for name, stage in plan.stages.items()},
        "bits_per_byte": predicted.bits_per_byte, "low": predicted.low, "high": predicted.high, "memory_bytes": predicted.peak_memory_bytes,
        "joules": predicted.joules, "energy_source": plan.machine.energy_source,
        "price_per_hour": price, "usd": None if price is None else predicted.seconds / 3600 * price, "law": plan.law,
        "languages": {language: item.model_dump(mode="json") for language, item in plan.languages.items()},
        "curve": [point.model_dump(mode="json") for point in plan.curve], "reasons": plan.reasons,
        "finished": record.finished,
        "outcome": {one.key: {"planned": one.planned, "came": one.came, "error": one.relative if record.finished else None} for one in compared(record)},
    }  # fmt: skip
