"""One number of a claim held against a limit: the outcome, by what factor, the arithmetic, and which single change would mend it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from hagane.plan.amounts import amount, factor
from hagane.plan.claim import Claim, Hardware
from hagane.plan.limits import Limit

Outcome = Literal["possible", "at the edge", "impossible"]
OUTCOMES: tuple[Outcome, ...] = ("possible", "at the edge", "impossible")
_INSIDE = 1.001  # a remedy lands a little inside the limit, so that rounding never puts it back outside


@dataclass(frozen=True)
class Remedy:
    """One change that mends one check: `ratio` is new over old value or the other way round, at least 1; `changes` are fields of the claim.

    A number that `follows` from the others (the text from the tokens) costs nothing in the search for the nearest plan.
    """

    text: str
    ratio: float
    changes: dict[str, Any]
    follows: bool = False


@dataclass(frozen=True)
class Check:
    """A number that was checked. `margin` is the factor of room: above 1 it fits, below 1 it is short by that factor; None where there is no factor."""

    number: str
    outcome: Outcome
    margin: float | None
    lines: tuple[str, ...]
    holds: str = ""  # what an unknown fact must be
    remedies: tuple[Remedy, ...] = ()


def grade(margin: float, limit: Limit) -> Outcome:
    """`margin` is the room to the limit's usual value, as a factor; the edge lies at the ratio of the two."""
    low, high = sorted((limit.usual, limit.edge))
    return "possible" if margin >= 1 else "at the edge" if margin >= low / high else "impossible"


def times(name: str, value: float | None, ratio: float, changed: str, show: str = "") -> list[Remedy]:
    """Multiply one number of the claim by `ratio` (below 1: divide); nothing where it is not known. `show` is a unit."""
    if value is None:
        return []
    ratio = ratio * _INSIDE if ratio > 1 else ratio / _INSIDE
    new = value * ratio
    return [Remedy(f"{name} {amount(value, show)} -> {amount(new, show)}", max(ratio, 1 / ratio), {changed: new})]


def more_hours(claim: Claim, ratio: float) -> list[Remedy]:
    """The remedies that buy `ratio` times the device-hours: more days, more devices. Energy that was stated goes with them."""
    if claim.hours() is None:
        return []
    ratio *= _INSIDE
    scaled = {name: getattr(claim, name) * ratio for name in ("device_hours", "energy_mwh") if getattr(claim, name) is not None}
    found = []
    if claim.days is not None:
        found.append(Remedy(f"days {factor(claim.days)} -> {factor(claim.days * ratio)}", ratio, {"days": claim.days * ratio, **scaled}))
    counts = [item.count for item in claim.hardware or ()]
    if all(counts):
        hardware = tuple(item.model_copy(update={"count": math.ceil((item.count or 0) * ratio)}) for item in claim.hardware or ())
        text = f"devices {devices(claim.hardware or ())} -> {devices(hardware)}"
        found.append(Remedy(text, ratio, {"hardware": hardware, **scaled}))
    if not found and claim.device_hours is not None:
        found.append(Remedy(f"device-hours {amount(claim.device_hours)} -> {amount(claim.device_hours * ratio)}", ratio, scaled))
    return found


def devices(hardware: Iterable[Hardware]) -> str:
    """How many there are of each kind: `1,024` or `512 + 64`."""
    return " + ".join(f"{item.count:,}" for item in hardware)


def joined(groups: Iterable[list[Remedy]]) -> tuple[Remedy, ...]:
    """All remedies, the smallest change first."""
    return tuple(sorted((remedy for group in groups for remedy in group), key=lambda remedy: remedy.ratio))
