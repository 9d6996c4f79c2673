"""The pictures of the report: each takes plain numbers and gives an SVG with its caption, legend and alternative text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter

from hagane.report import text
from hagane.report.svg import INK, MUTED, RULE, SERIES, new_figure, to_svg
from hagane.report.tables import Picture

MAX_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """A measured course: x and y of one length; y may hold NaN where nothing was measured."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, x: Sequence[float | None], y: Sequence[float | None]) -> Curve:
        """From facts with gaps; points without x are left out, the rest is put in the order of x."""
        pairs = [(float(a), math.nan if b is None else float(b)) for a, b in zip(x, y) if a is not None]
        pairs.sort(key=lambda pair: pair[0])
        return cls(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))

    @property
    def drawable(self) -> bool:
        return int(np.isfinite(self.y).sum()) >= 2


@dataclass(frozen=True)
class Bucketed:
    """A curve in at most MAX_POINTS buckets: mean, least and greatest y of each."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bucketed(curve: Curve, points: int = MAX_POINTS) -> Bucketed:
    """Down-sample by averaging neighbours; an empty bucket (all NaN) stays NaN, so gaps stay gaps."""
    parts = np.array_split(np.arange(len(curve.x)), min(points, len(curve.x)))
    x = np.array([curve.x[part].mean() for part in parts])
    y = [curve.y[part][np.isfinite(curve.y[part])] for part in parts]
    return Bucketed(
        x,
        *(np.array([fold(part) if len(part) else math.nan for part in y]) for fold in (np.mean, np.min, np.max)),
    )


@dataclass(frozen=True)
class Interval:
    """A measured value of one language with its 95 % interval; low and high may be None."""

    label: str
    value: float
    low: float | None
    high: float | None


def loss(name: str, stage: str, curve: Curve, resumes: Sequence[float]) -> Picture:
    """Training loss over tokens. `resumes` are the x at which a new attempt began."""
    figure, axes = new_figure()
    line = bucketed(curve, max(40, min(130, len(curve.x) // 3)))  # several steps to a bucket, so that the band shows their spread
    _course(axes, line, SERIES[0], band=True)
    finite = line.mean[np.isfinite(line.mean)]
    # The first steps fall from log(vocabulary): showing them whole would flatten all that follows.
    top = max(float(np.quantile(finite, 0.97)), float(finite[-1]) + 0.15 * float(np.ptp(finite)))
    bottom = float(np.nanmin(line.low))
    axes.set_ylim(bottom - 0.06 * (top - bottom) - 1e-9, top + 0.06 * (top - bottom) + 1e-9)
    for x in resumes:
        axes.axvline(x, color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    _tokens_axis(axes)
    again = f" Dotted lines: the run was resumed there ({len(resumes)}×)." if resumes else ""
    return Picture(
        stage,
        to_svg(figure, name, f"Training loss of {stage} falls from {text.fixed(finite[0], 2)} to {text.fixed(finite[-1], 2)} nats per token."),
        f"Loss in nats per target token over tokens trained; the band is the range of the single steps.{again}",
    )


def course(
    name: str,
    title: str,
    series: Sequence[tuple[str, Curve]],
    marks: Sequence[tuple[str, float]],
    *,
    caption: str,
    share: bool = False,
    goal: tuple[str, float] | None = None,
) -> Picture:
    """Courses over active time (x in seconds). `marks` name the stages and where they begin; `goal` is a line to compare with."""
    figure, axes = new_figure()
    for colour, (_, curve) in zip(SERIES, series):
        _course(axes, bucketed(curve, 200), colour)
    if goal is not None:
        axes.axhline(goal[1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    if share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.scaled(value)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    _time_axis(axes, max(float(curve.x[-1]) for _, curve in series))
    _stage_marks(axes, marks)
    ends = ", ".join(f"{label} ends at {_last(curve, share)}" for label, curve in series)
    legend = tuple((f"series-{i + 1}", label) for i, (label, _) in enumerate(series)) if len(series) > 1 or goal else ()
    if goal is not None:
        legend += (("goal", goal[0]),)
    return Picture(title, to_svg(figure, name, f"{title} over active time: {ends}."), caption, legend)


def intervals(name: str, title: str, items: Sequence[Interval], *, caption: str, band: tuple[float, float] | None = None) -> Picture:
    """One row per language: a dot with its interval. `band` is what the plan predicted for the mean."""
    figure, axes = new_figure(70 + 21 * len(items))
    places = np.arange(len(items))[::-1]
    if band is not None:
        axes.axvspan(*band, color=SERIES[1], alpha=0.14, linewidth=0)
    for place, item in zip(places, items):
        if item.low is not None and item.high is not None:
            axes.plot([item.low, item.high], [place, place], color=SERIES[0], linewidth=5, alpha=0.35, solid_capstyle="round")
        axes.plot([item.value], [place], "o", color=SERIES[0], markersize=6)
    axes.set_yticks(places, [item.label for item in items])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_ylim(-0.7, len(items) - 0.3)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    best, worst = min(items, key=lambda item: item.value), max(items, key=lambda item: item.value)
    alt = f"{title}: from {text.fixed(best.value, 2)} ({best.label}) to {text.fixed(worst.value, 2)} ({worst.label}), {len(items)} rows."
    legend = (("series-1", "measured, with 95 % interval"), *((("band", "predicted by the plan"),) if band else ()))
    return Picture(title, to_svg(figure, name, alt), caption, legend)


def stage_times(name: str, planned: dict[str, float | None], spent: dict[str, float | None]) -> Picture:
    """Planned against spent seconds per stage."""
    figure, axes = new_figure(70 + 34 * len(planned))
    places = np.arange(len(planned))[::-1]
    for offset, height, values, colour, alpha in ((0.19, 0.26, planned, MUTED, 0.45), (-0.13, 0.34, spent, SERIES[0], 1.0)):
        axes.barh(places + offset, [value or 0 for value in values.values()], height=height, color=colour, alpha=alpha, linewidth=0)
    axes.set_yticks(places, list(planned))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_ylim(-0.6, len(planned) - 0.4)
    axes.margins(x=0.02)
    _time_axis(axes, max([value or 0 for value in (*planned.values(), *spent.values())]))
    told = (f"{stage} {text.seconds(planned[stage])} and {text.seconds(spent[stage])}" for stage in planned)
    alt = f"Time per stage, planned and spent: {'; '.join(told)}."
    return Picture(
        "Time by stage",
        to_svg(figure, name, alt),
        "Active time of every stage; time between attempts does not count.",
        (("muted", "planned"), ("series-1", "spent")),
    )


def accuracy(name: str, families: Sequence[str], series: Sequence[tuple[str, dict[str, Interval]]]) -> Picture:
    """Right answers per problem family, all languages together: one dot per mode, with its interval."""
    figure, axes = new_figure(66 + 32 * len(families))
    places = {family: len(families) - 1 - i for i, family in enumerate(families)}
    for i, (_, values) in enumerate(series):
        for family, item in values.items():
            place = places[family] + 0.22 * ((len(series) - 1) / 2 - i)
            if item.low is not None and item.high is not None:
                axes.plot([item.low, item.high], [place, place], color=SERIES[i], linewidth=4, alpha=0.35, solid_capstyle="round")
            axes.plot([item.value], [place], "osD^"[i], color=SERIES[i], markersize=5.5)
    axes.set_yticks(list(places.values()), [family.replace("_", " ") for family in places])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.6, len(families) - 0.4)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    told = (f"{label} " + ", ".join(f"{family} {text.percent(item.value, 0)}" for family, item in values.items()) for label, values in series)
    alt = f"Right answers per family: {'; '.join(told)}."
    return Picture(
        "Right answers by family",
        to_svg(figure, name, alt),
        "Share of test problems answered rightly, all languages together, with 95 % Wilson intervals.",
        tuple((f"series-{i + 1}", label) for i, (label, _) in enumerate(series)),
    )


def _course(axes: Axes, line: Bucketed, colour: str, band: bool = False) -> None:
    if band:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(line.x, line.mean, color=colour, linewidth=1.8, solid_joinstyle="round")


def _last(curve: Curve, share: bool) -> str:
    finite = curve.y[np.isfinite(curve.y)]
    return text.percent(finite[-1]) if share else text.scaled(finite[-1])


def _tokens_axis(axes: Axes) -> None:
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.scaled(value)))
    axes.set_xlabel("tokens", color=MUTED, fontsize=10)


def _time_axis(axes: Axes, longest: float) -> None:
    """Seconds, minutes or hours, whichever gives small numbers."""
    unit, factor = ("hours", 3600) if longest > 3 * 3600 else ("minutes", 60) if longest > 150 else ("seconds", 1)
    spacing = next((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if longest / factor / step <= 6), longest / factor / 5 or 1)
    axes.xaxis.set_major_locator(MultipleLocator(spacing * factor))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / factor:g}"))
    axes.set_xlabel(unit, color=MUTED, fontsize=10)


def _stage_marks(axes: Axes, marks: Sequence[tuple[str, float]]) -> None:
    """The name of each stage above where it begins, with a line between stages."""
    if len(marks) < 2:
        return
    for i, (stage, x) in enumerate(marks):
        if i:
            axes.axvline(x, color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
        axes.annotate(stage, (x, 1), xycoords=("data", "axes fraction"), xytext=(2, 3), textcoords="offset points", color=MUTED, fontsize=9)
