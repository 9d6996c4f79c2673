"""A verdict as people read it, the same as JSON, and a claim as the TOML it is read from."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from hagane.plan.amounts import MWH, amount, energy, factor, flops, percent
from hagane.plan.claim import UNKNOWN, Claim, Hardware
from hagane.plan.judge import Verdict
from hagane.recipe.types import duration

WIDTH = 150
NOT_FOUND = "no possible plan was found"


def verdict_lines(verdict: Verdict) -> list[str]:
    """The page: facts, arithmetic, verdict, what breaks it, the nearest possible plan."""
    claim = verdict.claim
    lines = [*fact_lines(claim), *_wrapped(f"  {'source':<14}", "; ".join(claim.source)), *note_lines(claim), "", "arithmetic"]
    for check in verdict.checks:
        room = "" if check.margin is None else f", room {factor(check.margin)}" if check.margin >= 1 else f", short by {factor(1 / check.margin)}"
        lines.append(f"  {check.number}: {check.outcome}{room}")
        lines += [part for line in check.lines for part in _wrapped("   ", line)]
    unknown = claim.unknown()
    lines += ["", f"verdict: {verdict.outcome}" + (", as far as it can be checked" if verdict.outcome == "possible" and unknown else "")]
    for check in verdict.breaks:
        short = "" if check.margin is None else f" (short by a factor of {factor(1 / check.margin)})"
        lines.append(f"  {'broken by' if verdict.outcome == 'impossible' else 'at the edge in'} {check.number}{short}")
        alone = "; or ".join(f"{change.text} (x{factor(change.ratio)})" for change in check.remedies)
        lines += _wrapped("    alone, smallest change first:", alone) if alone else []
    lines += [f"  it {condition}" for condition in verdict.conditions]
    lines += _wrapped("  unknown:", ", ".join(unknown)) if unknown else []
    if verdict.nearest is not None:
        lines += ["", "nearest possible plan", *_wrapped("  changes:", "; ".join(change.text for change in verdict.changes)), *fact_lines(verdict.nearest)[1:]]
    return [*lines, "", NOT_FOUND] if verdict.stuck else lines


def fact_lines(claim: Claim) -> list[str]:
    """The six facts, and beside them what else is given."""
    return [f"  {name:<14} {value}" for name, value in fact_rows(claim)]


def fact_rows(claim: Claim) -> list[tuple[str, str]]:
    """The same as names and values."""
    kind = {"dense": "dense", "moe": "mixture of experts", None: "dense or experts: unknown"}[claim.architecture]
    experts = f", {f'{claim.top_k} of ' if claim.top_k else ''}{claim.experts} experts" if claim.experts else ""
    count = UNKNOWN if claim.parameters is None else f"{amount(claim.parameters)}"
    used = "" if claim.architecture == "dense" else f", {UNKNOWN if claim.active is None else amount(claim.active)} active"
    hours = f"{amount(claim.device_hours)} device-hours" if claim.device_hours else ""
    time = UNKNOWN if claim.days is None else duration(claim.days * 86400)
    rows = [
        ("model", f"{claim.name} ({kind}{experts})"), ("parameters", count + used),
        ("hardware", " + ".join(map(str, claim.hardware)) if claim.hardware else UNKNOWN),
        ("training time", ", ".join(part for part in (time if claim.days or not hours else "", hours) if part)),
        ("country", claim.country or UNKNOWN), ("year", str(claim.year or UNKNOWN)), ("tokens", UNKNOWN if claim.tokens is None else amount(claim.tokens)),
    ]  # fmt: skip
    more = {
        "text": claim.corpus_bytes and amount(claim.corpus_bytes, "B"), "compute": claim.flops and flops(claim.flops),
        "utilisation": claim.utilisation and percent(claim.utilisation), "energy": claim.energy_mwh and energy(claim.energy_mwh * MWH),
    }  # fmt: skip
    return [(name, value) for name, value in [*rows, *more.items()] if value]


def note_lines(claim: Claim) -> list[str]:
    """What a reader should know about the facts, if anything."""
    return _wrapped(f"  {'note':<14}", claim.note) if claim.note else []


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """The verdict for scripts."""
    nearest = None if verdict.nearest is None else verdict.nearest.model_dump(mode="json", exclude_defaults=True, exclude={"source", "note"})
    return {
        "claim": verdict.claim.name, "verdict": verdict.outcome, "breaks": [check.number for check in verdict.breaks],
        "checks": {check.number: {"outcome": check.outcome, "margin": check.margin and float(f"{check.margin:.4g}")} for check in verdict.checks},
        "conditions": list(verdict.conditions), "unknown": verdict.claim.unknown(), "changes": [change.text for change in verdict.changes], "nearest": nearest,
    }  # fmt: skip


def claim_toml(claim: Claim) -> str:
    """The claim as a TOML file that `load_claim` reads back; unknown ones of the six facts are written so."""
    lines = []
    for name, field in Claim.model_fields.items():
        value = getattr(claim, name)
        if name == "hardware":
            lines.append(f"hardware = {UNKNOWN!r}" if value is None else f"hardware = [{', '.join(map(_table, value))}]")
        elif value is not None and (field.is_required() or value != field.default):
            lines.append(f"{name} = {_value(value)}")
        elif field.is_required():
            lines.append(f"{name} = {_value(UNKNOWN)}")
    return "\n".join(lines) + "\n"


def _table(item: Hardware) -> str:
    values = {name: getattr(item, name) for name in Hardware.model_fields}
    known = {name: UNKNOWN if value is None else value for name, value in values.items() if value is not None or Hardware.model_fields[name].is_required()}
    return "{ " + ", ".join(f"{name} = {_value(value)}" for name, value in known.items()) + " }"


def _value(value: Any) -> str:
    # strings and lists of strings of JSON are TOML once no character is written as a pair of surrogates
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{label} ", subsequent_indent=" " * (len(label) + 1), break_on_hyphens=False)
