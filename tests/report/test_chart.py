"""The curves of the plan: drawn without matplotlib, labelled in people's words, and nothing runs into anything else."""

import re
import subprocess
import sys
from html import unescape

import pytest

from hagane.report import text
from hagane.report.chart import BOTTOM, LEFT, LETTER, RIGHT, TIMES, TOP, WIDTH, Point, curve, decimal_ticks

SHOWN = {"time": (text.seconds, 1.0, TIMES), "cost": (text.dollars, 1.0, None), "energy": (text.energy, 3600.0, None)}


def drawn(first, kind="time", values=(2.4, 2.2, 2.05, 1.9, 1.8, 1.7, 1.65)):
    show, unit, known = SHOWN[kind]
    points = [Point(first * 2**k, value, value * 0.9, value * 1.1) for k, value in enumerate(values)]
    ticks = known or decimal_ticks(points[0].x, points[-1].x, unit)
    return curve(points, len(points) // 2, [tick for tick in ticks if points[0].x <= tick <= points[-1].x], show, kind, "a picture")


def labels(svg):
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)"[^>]*>([^<]*)</text>', svg)
    return [(float(x), float(y), anchor, unescape(words)) for x, y, anchor, words in found]


def ticks_of(svg):
    return [(x, anchor, words) for x, y, anchor, words in labels(svg) if y == BOTTOM + 16]


def test_a_plan_page_imports_no_matplotlib():
    code = "import sys, hagane.report.plan_page; print([name for name in ('matplotlib', 'numpy', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("first", "kind", "shown"),
    [
        (60, "time", ["1 min", "2 min", "5 min", "10 min", "20 min", "1 h"]),
        (3 * 3600, "time", ["4 h", "8 h", "1 day", "2 days", "4 days", "7 days"]),
        (20 * 86400, "time", ["30 days", "60 days", "120 days", "240 days", "2 years"]),
        (0.00013, "cost", ["less than 0.001 USD", "0.001 USD", "0.005 USD"]),
        (0.013, "cost", ["0.02 USD", "0.05 USD", "0.10 USD", "0.20 USD", "0.50 USD"]),
        (15_000, "cost", ["20,000 USD", "50,000 USD", "200,000 USD", "500,000 USD"]),
        (7000, "energy", ["2 Wh", "5 Wh", "10 Wh", "20 Wh", "50 Wh", "100 Wh"]),
        (9e8, "energy", ["500 kWh", "1 MWh", "2 MWh", "5 MWh", "10 MWh"]),
    ],
)
def test_ticks_are_round_and_in_the_units_of_their_size(first, kind, shown):
    assert [words for _, _, words in ticks_of(drawn(first, kind))] == shown


@pytest.mark.parametrize("kind", SHOWN)
@pytest.mark.parametrize("first", [0.03, 1.0, 17.0, 999.0, 31_000.0, 4.4e6, 2.9e9])
def test_labels_stay_inside_and_apart(first, kind):
    taken = -1.0
    for x, anchor, words in ticks_of(drawn(first, kind)):
        width = LETTER * len(words)
        left = x - width / 2 if anchor == "middle" else x - width
        assert left > taken and left + width <= WIDTH + 1
        taken = left + width


def test_the_chosen_point_is_marked_on_the_line_and_labelled_above_the_band():
    svg = drawn(60)
    line = re.search(r'<path d="M([^"]*)" style="fill:none', svg)[1].split(" L")
    x, y = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg).groups()
    assert line[3] == f"{x} {y}" and float(x) == pytest.approx((LEFT + RIGHT) / 2)
    ((_, height, _, words),) = [item for item in labels(svg) if item[3].startswith("this plan")]
    assert words == "this plan: 1.90 for 8 min" and height < float(y)
    upper = [float(place.split()[1]) for place in re.search(r'<path d="M([^"]*)Z"', svg)[1].split(" L")][:7]
    assert height < min(upper[3:]) or height == TOP - 8


@pytest.mark.parametrize("values", [(1.0, 1.0, 1.0), (8.0, 0.01), (0.664, 0.663, 0.662)])
def test_curves_of_any_height_fit(values):
    svg = drawn(60, values=values)
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", svg)]
    assert min(heights) >= TOP - 0.1 and max(heights) <= BOTTOM + 4
    marks = [words for x, _, anchor, words in labels(svg) if anchor == "end" and x < LEFT]
    assert len(set(marks)) == len(marks) >= 3 and max(map(len, marks)) <= 5


def test_words_of_the_user_stay_text():
    svg = curve([Point(1, 2, 1, 3), Point(2, 1, 0.5, 2)], 1, [1], lambda _: "<b>", "\"&", "<script>")
    assert "<b>" not in svg and "<script>" not in svg and "&lt;b&gt;" in svg
