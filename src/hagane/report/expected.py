"""What the plan expected by its loss law: the loss that other budgets would have bought, and every language beside what came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hagane.report import text
from hagane.report.figures import Picture
from hagane.report.record import Record, dig, number, rows, table
from hagane.report.svg import MUTED, SERIES, new_figure, to_svg
from hagane.report.tables import Table


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
    curve = [point for point in rows(points) if all(number(point.get(name)) for name in ("seconds", "bits_per_byte", "low", "high"))]
    if len(curve) < 2:
        return []
    chosen = curve[len(curve) // 2]  # the curve goes as far down as up from the plan's own training time
    pictures = [_picture("law-time", "Loss against time", curve, chosen, [point["seconds"] for point in curve], text.seconds, "training time")]
    if price is not None:
        cost = [point["seconds"] / 3600 * price for point in curve]
        pictures.append(_picture("law-cost", "Loss against cost", curve, chosen, cost, _dollars, "cost of training"))
    elif all(number(point.get("joules")) for point in curve):
        energy = [point["joules"] for point in curve]
        pictures.append(_picture("law-cost", "Loss against energy", curve, chosen, energy, text.energy, "energy of training"))
    return pictures


def _dollars(value: float) -> str:
    return f"{text.scaled(value)} USD" if value >= 1000 else f"{value:.3g} USD"


def _picture(
    name: str, title: str, curve: Sequence[dict[str, Any]], chosen: dict[str, Any], x: Sequence[float], show: Callable[[Any], str], what: str
) -> Picture:
    figure, axes = new_figure()
    axes.fill_between(x, [point["low"] for point in curve], [point["high"] for point in curve], color=SERIES[0], alpha=0.2, linewidth=0)
    axes.plot(x, [point["bits_per_byte"] for point in curve], color=SERIES[0], linewidth=1.8)
    place = list(curve).index(chosen)
    axes.plot([x[place]], [chosen["bits_per_byte"]], "o", color=SERIES[1], markersize=8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=6))
    axes.set_xticks([x[0], x[place], x[-1]])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{what} (logarithmic)", color=MUTED, fontsize=10)
    told = ", ".join(f"{text.fixed(point['bits_per_byte'], 2)} for {show(value)}" for point, value in zip(curve, x, strict=True))
    return Picture(
        title,
        to_svg(figure, name, f"Expected bits per byte over {what}: {told}; chosen {show(x[place])}."),
        "Bits per byte of held-out text that the loss law expects, each with the best shape for it and with enough text; the band holds 80 %.",
        (("series-1", "expected, with 80 % interval"), ("series-2", "this plan")),
    )


def _outcomes(record: Record, languages: dict[str, Any]) -> Table:
    return language_table(languages, table(record.facts("evaluate").get("bits_per_byte")))


def language_table(languages: dict[str, Any], measured: dict[str, Any]) -> Table:
    """Text, repeats, expectation and outcome of every language; `measured` is empty before anything was trained."""
    lines: list[tuple[str, ...]] = []
    for tag, plan in languages.items():
        if not isinstance(plan, dict):
            continue
        value, came = number(plan.get("bits_per_byte")), number(dig(measured, tag, "value"))
        interval = f"{text.fixed(value, 2)} ({text.fixed(plan.get('low'), 2)} to {text.fixed(plan.get('high'), 2)})" if value is not None else ""
        gain, repeats = number(plan.get("more_text_gain")), number(plan.get("repeats"))
        lines.append(
            (
                text.language(tag), text.size(plan.get("bytes")), f"{repeats:.1f}" if repeats is not None else "", text.percent(plan.get("worth"), 0), interval,
                text.fixed(came, 2) if came is not None else "", f"{100 * (came / value - 1):+.1f} %" if came is not None and value else "",
                "" if gain is None else f"{gain:.3f}" if gain >= 0.0005 else "nothing",
            )
        )  # fmt: skip
    columns: tuple[str, ...] = ("language", "text", "times read", "worth of new text", "expected bits per byte")
    columns = (*columns, *(("outcome", "error") if measured else ()), "10 MB more would take off")
    if not measured:  # nothing came yet
        lines = [(*line[:5], line[7]) for line in lines]
    caption = "Languages in the plan, and what came" if measured else "Languages in the plan"
    return Table(caption, columns, tuple(lines), frozenset(range(1, len(columns))))
