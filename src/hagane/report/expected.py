"""What the plan expected by its loss law: the loss that other budgets would have bought, and every language beside what came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hagane.report import text
from hagane.report.chart import TIMES, Point, decimal_ticks
from hagane.report.chart import curve as draw
from hagane.report.record import Record, dig, number, rows, table
from hagane.report.tables import Picture, Table


def expected(record: Record) -> dict[str, Any] | None:
    """Curves of loss against time and cost, and the table of languages; None where the plan holds neither."""
    plan = record.facts("plan")
    pictures = curves(plan.get("curve"), number(dig(record.recipe, "execution", "price_per_hour")))
    languages = table(plan.get("languages"))
    if not pictures and not languages:
        return None
    return {"pictures": pictures, "table": _outcomes(record, languages) if languages else None, "law": str(plan.get("law") or "")}


def curves(points: object, price: float | None) -> list[Picture]:
    """Loss against time, and against cost where the hour has a price, else against energy where a power is known. None for fewer than two points."""
    curve = [point for point in rows(points) if all((number(point.get(name)) or 0) > 0 for name in ("seconds", "bits_per_byte", "low", "high"))]
    if len(curve) < 2:
        return []
    seconds = [point["seconds"] for point in curve]
    times = [tick for tick in TIMES if seconds[0] <= tick <= seconds[-1]]
    pictures = [_picture("Loss against time", curve, seconds, times, text.seconds, "training time")]
    joules = [number(point.get("joules")) or 0.0 for point in curve]
    if price is not None and price > 0:
        cost = [value / 3600 * price for value in seconds]
        pictures.append(_picture("Loss against cost", curve, cost, decimal_ticks(cost[0], cost[-1]), text.dollars, "cost of training"))
    elif all(value > 0 for value in joules):
        ticks = decimal_ticks(joules[0], joules[-1], 3600.0)
        pictures.append(_picture("Loss against energy", curve, joules, ticks, text.energy, "energy of training"))
    return pictures


def _picture(
    title: str, curve: Sequence[dict[str, Any]], x: Sequence[float], ticks: Sequence[float], show: Callable[[Any], str], what: str
) -> Picture:
    chosen = len(curve) // 2  # the curve goes as far down as up from the plan's own training time
    # to the digits that a plan's own numbers have, so that its point says what its tile says
    points = [Point(value, round(point["bits_per_byte"], 3), point["low"], point["high"]) for value, point in zip(x, curve, strict=True)]
    told = ", ".join(f"{text.fixed(point.value, 2)} for {show(point.x)}" for point in points)
    counts = {number(point.get("num_active_parameters")) for point in curve}
    shape = "with the plan's own shape" if len(counts) == 1 else "each with the shape that is best for it"
    return Picture(
        title,
        draw(points, chosen, ticks, show, what, f"Expected bits per byte over {what}: {told}; chosen {show(x[chosen])}."),
        f"Bits per byte of held-out text that the loss law expects, {shape} and with enough text.",
        (("series-1", "expected; 80 % of outcomes in the band"), ("series-2", "this plan")),
    )


def _outcomes(record: Record, languages: dict[str, Any]) -> Table:
    return language_table(languages, table(record.facts("evaluate").get("bits_per_byte")))


def language_table(languages: dict[str, Any], measured: dict[str, Any]) -> Table:
    """Text, repeats, expectation and outcome of every language; `measured` is empty before anything was trained."""
    lines: list[tuple[str, ...]] = []
    plans = {tag: plan for tag, plan in languages.items() if isinstance(plan, dict)}
    hurt = ("repeats hurt from",) if any(number(plan.get("repeats_hurt_tokens")) for plan in plans.values()) else ()  # a plan of a run knows a sample only
    for tag, plan in plans.items():
        value, came = number(plan.get("bits_per_byte")), number(dig(measured, tag, "value"))
        interval = f"{text.fixed(value, 2)} ({text.fixed(plan.get('low'), 2)} to {text.fixed(plan.get('high'), 2)})" if value is not None else ""
        gain, repeats = number(plan.get("more_text_gain")), number(plan.get("repeats"))
        start = number(plan.get("repeats_hurt_tokens"))
        came_cells = (text.fixed(came, 2) if came is not None else "", f"{100 * (came / value - 1):+.1f} %" if came is not None and value else "")
        lines.append(
            (
                text.language(tag), interval, *(came_cells if measured else ()), text.size(plan.get("bytes")), f"{repeats:.1f}" if repeats is not None else "",
                text.percent(plan.get("worth"), 0), "" if gain is None else f"{gain:.3f}" if gain >= 0.0005 else "nothing",
                *(("never" if start is None else f"{text.scaled(start)} tokens",) if hurt else ()),
            )
        )  # fmt: skip
    outcome = ("outcome", "error") if measured else ()  # nothing came yet before anything was trained
    columns = ("language", "expected bits per byte", *outcome, "text", "times read", "worth of new text", "10 MB more would take off", *hurt)
    caption = "Languages in the plan, and what came" if measured else "Languages in the plan"
    return Table(caption, columns, tuple(lines), frozenset(range(1, len(columns))))
