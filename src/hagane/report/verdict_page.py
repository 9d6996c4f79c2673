"""One self-contained page of a verdict on a claim: what was said of a model, whether it can be true, which number breaks it, and what would be possible."""

from __future__ import annotations

from hagane.plan.amounts import factor
from hagane.plan.check import Check
from hagane.plan.claim import Claim
from hagane.plan.claim_page import NOT_FOUND, fact_rows
from hagane.plan.judge import Verdict
from hagane.recipe.types import duration
from hagane.report import text
from hagane.report.tables import Section, Table
from hagane.report.templates import template

MARKS = {"possible": "✓", "at the edge": "●", "impossible": "✗"}
# What a number that was checked is of, where its name alone does not say it to somebody who reads nothing else.
PLAIN = {
    "compute": "the computing that its hardware can do", "tokens": "the text that its hardware can work through", "text": "the text that there is in the world",
    "text read": "the share of its text that is ever read", "memory": "the memory of its devices", "energy": "its energy", "year": "the year of its hardware",
    "active share": "the share of it that works on a token", "utilisation": "the use made of the hardware", "training time": "its training time",
    "tokens per parameter": "the text for so many parameters", "active parameters": "the parameters that work on a token",
}  # fmt: skip


def verdict_page(verdict: Verdict) -> str:
    """The page as text: the same facts, arithmetic and changes that `hagane plan NAME --claim` prints."""
    sections = (_breaks(verdict), _facts(verdict), _arithmetic(verdict), _sources(verdict))
    return template("plan.html.jinja").render(
        name=verdict.claim.name,
        state=verdict.outcome,
        good=verdict.outcome == "possible",
        sentence=_sentence(verdict),
        notes=_notes(verdict),
        tiles=[],
        sections=[section for section in sections if section is not None],
    )


def _sentence(verdict: Verdict) -> str:
    if verdict.outcome == "possible":
        return "What is said of this model is possible" + (", as far as it can be checked." if verdict.claim.unknown() else ".")
    names = [PLAIN.get(check.number, check.number) for check in verdict.breaks]
    told = _listed([f"{name} ({_short(check)})" if check.margin is not None else name for name, check in zip(names, verdict.breaks, strict=True)])
    if verdict.outcome == "impossible":
        return f"What is said of this model is impossible. It breaks at {told}."
    return f"What is said of this model is at the edge of what anybody has shown: {told}."


def _notes(verdict: Verdict) -> list[str]:
    notes = [f"It {condition}." for condition in verdict.conditions]
    if verdict.changes:
        notes.append(f"The nearest possible plan: {'; '.join(_arrow(change.text) for change in verdict.changes)}.")
    if verdict.stuck:
        notes.append(f"{NOT_FOUND.capitalize()}.")
    return notes


def _arrow(change: str) -> str:
    return change.replace("->", "→")


def _short(check: Check) -> str:
    return "" if check.margin is None else f"short by a factor of {factor(1 / check.margin)}"


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _breaks(verdict: Verdict) -> Section | None:
    """Which numbers make the verdict, and which single change of another would mend each."""
    if not verdict.breaks:
        return None
    lines = []
    for check in verdict.breaks:
        alone = "\n".join(f"{_arrow(change.text)} (× {factor(change.ratio)})" for change in check.remedies)
        lines.append((check.number, "" if check.margin is None else factor(1 / check.margin), alone or "no single change"))
    columns = ("number", "short by a factor of", "what would mend it alone, smallest change first")
    shown = Table("Numbers that make the verdict", columns, tuple(lines), frozenset({1}))
    return Section("breaks", "What breaks it" if verdict.outcome == "impossible" else "What is at the edge", tables=(shown,))


def _facts(verdict: Verdict) -> Section:
    """What was said, beside the nearest possible plan where something must change."""
    said = _rows(verdict.claim)
    if verdict.nearest is None:
        return Section("facts", "What was said", tables=(Table("The facts as published", ("fact", "said"), tuple(said.items())),))
    possible = _rows(verdict.nearest)
    lines = []
    for name in dict.fromkeys([*said, *possible]):
        new = possible.get(name, "not stated")
        lines.append((name, said.get(name, "not stated"), "the same" if new == said.get(name) else new))
    intro = "Of all plans that are possible, the one whose numbers change least: the product of the factors by which they change is the smallest."
    shown = Table("The claim and the plan", ("fact", "said", "nearest possible plan"), tuple(lines))
    return Section("facts", "What was said, and what would be possible", intro, tables=(shown,))


def _rows(claim: Claim) -> dict[str, str]:
    """The facts by name; days as people say them."""
    rows = dict(fact_rows(claim))
    if claim.days is not None:
        rows["training time"] = rows["training time"].replace(duration(claim.days * 86400), text.seconds(claim.days * 86400))
    return rows


def _arithmetic(verdict: Verdict) -> Section:
    told = []
    for check in verdict.checks:
        room = "" if check.margin is None else f", with room of a factor of {factor(check.margin)}" if check.margin >= 1 else f", {_short(check)}"
        told.append((f"{MARKS[check.outcome]} {check.number}", "\n".join([f"{check.outcome.capitalize()}{room}.", *check.lines])))
    return Section("arithmetic", "The arithmetic", "Every number that can be held against another, or against what others published.", reasons=tuple(told))


def _sources(verdict: Verdict) -> Section:
    claim, unknown = verdict.claim, verdict.claim.unknown()
    told = {"source": "\n".join(claim.source), "note": claim.note, "unknown": ", ".join(unknown)}
    return Section("sources", "Where the facts are from", reasons=tuple((name, value) for name, value in told.items() if value))
