"""A curve of the loss law as SVG, drawn in a few lines of our own: matplotlib takes longer to import than `hagane plan` may take to answer.

Colours are the page's CSS variables, so one picture serves light and dark mode, and text stays text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 400, 250  # as the other figures: small enough to be read on a phone, and two stand side by side on a desk
LEFT, RIGHT, TOP, BOTTOM = 30, 388, 34, 212  # of the axes
LETTER = 6.2  # mean width of a letter at the size of the labels

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400
TIMES = (
    1, 2, 5, 10, 20, 30, *(MINUTE * k for k in (1, 2, 5, 10, 20, 30)), *(HOUR * k for k in (1, 2, 4, 8)),
    *(DAY * k for k in (1, 2, 4, 7, 14, 30, 60, 120, 240)), *(YEAR * k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)  # fmt: skip


class Point(NamedTuple):
    """What an amount of time, money or energy is expected to buy: bits per byte with the 80 % interval."""

    x: float
    value: float
    low: float
    high: float


def decimal_ticks(low: float, high: float, factor: float = 1.0) -> list[float]:
    """1, 2, 5 times powers of ten between two positive numbers; of `factor` where the unit shown is another one."""
    first, last = (math.floor(math.log10(value / factor)) for value in (low, high))
    return [tick for power in range(first, last + 1) for digit in (1, 2, 5) if low <= (tick := digit * 10.0**power * factor) <= high]


def curve(points: Sequence[Point], chosen: int, ticks: Sequence[float], show: Callable[[float], str], what: str, alt: str) -> Markup:
    """Bits per byte over `what` on a logarithmic axis, `points[chosen]` marked. `ticks` are where labels may stand: as many as there is room for do."""
    first, span = math.log(points[0].x), max(1e-9, math.log(points[-1].x / points[0].x))
    heights = _heights(points)
    lowest, highest = heights[0], heights[-1]

    def across(x: float) -> float:
        return round(LEFT + (math.log(x) - first) / span * (RIGHT - LEFT), 1)

    def down(value: float) -> float:
        return round(BOTTOM - (value - lowest) / (highest - lowest) * (BOTTOM - TOP), 1)

    digits = max(1, math.ceil(-math.log10(heights[1] - heights[0]) - 1e-9))
    parts = [_line(LEFT, down(height), RIGHT, down(height)) + _text(LEFT - 5, down(height) + 3.5, f"{height:.{digits}f}", "end") for height in heights]
    parts.append(_text(0, 12, "bits per byte", "start"))
    band = [f"{across(point.x)} {down(point.high)}" for point in points] + [f"{across(point.x)} {down(point.low)}" for point in reversed(points)]
    parts.append(f'<path d="M{" L".join(band)}Z" style="fill:var(--series-1);opacity:.2"/>')
    middle = [f"{across(point.x)} {down(point.value)}" for point in points]
    parts.append(f'<path d="M{" L".join(middle)}" style="fill:none;stroke:var(--series-1);stroke-width:2"/>')
    parts += [_line(place, BOTTOM, place, BOTTOM + 4) + _text(place, BOTTOM + 16, label, anchor) for place, label, anchor in _labels(ticks, across, show)]
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 4, f"{what}, on a scale of doublings", "middle"))
    mark = points[chosen]
    place, height = across(mark.x), down(mark.value)
    parts.append(f'<path d="M{place} {height}V{BOTTOM}" style="stroke:var(--series-2);stroke-dasharray:2 3"/>')
    parts.append(f'<circle cx="{place}" cy="{height}" r="5" style="fill:var(--series-2);stroke:var(--surface);stroke-width:1.5"/>')
    label = f"this plan: {mark.value:.2f} for {show(mark.x)}"
    begin = RIGHT - LETTER * 1.15 * len(label)  # bold; the curve falls, so to the right above its band there is room
    band_top = min(down(one.high) for one, after in zip(points, [*points[1:], points[-1]], strict=True) if across(after.x) >= begin)
    parts.append(_text(RIGHT, max(TOP - 8, round(band_top - 8, 1)), label, "end", "fill:var(--ink);font-weight:600"))
    inside = "\n".join(parts)
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}" style="font-size:11px">\n{inside}\n</svg>')


def _heights(points: Sequence[Point]) -> list[float]:
    """Round values that hold the whole band, four to seven of them."""
    low, high = min(point.low for point in points), max(point.high for point in points)
    span = max(high - low, 0.02)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(digit * power for digit in (0.2, 0.5, 1.0, 2.0) if span / (digit * power) <= 5)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [step * count for count in range(first, last + 1)]


def _labels(ticks: Sequence[float], across: Callable[[float], float], show: Callable[[float], str]) -> list[tuple[float, str, str]]:
    """(place, label, anchor) of the ticks whose labels do not touch, none twice."""
    found: list[tuple[float, str, str]] = []
    taken = -math.inf
    for tick in ticks:
        place, label = across(tick), show(tick)
        half = LETTER * len(label) / 2
        at_end = place + half > WIDTH
        left = place - 2 * half if at_end else place - half
        if left < taken + 8 or left < 0 or label in (known for _, known, _ in found):
            continue
        found.append((place, label, "end" if at_end else "middle"))
        taken = place + half
    return found


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1} {y1}L{x2} {y2}" style="stroke:var(--rule)"/>'


def _text(x: float, y: float, words: str, anchor: str, style: str = "fill:var(--muted)") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" style="{style}">{escape(words)}</text>'
