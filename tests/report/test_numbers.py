"""How numbers are written and thinned out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.report import text
from hagane.report.figures import MAX_POINTS, Curve, Interval, bucketed, intervals
from hagane.report.quality import _taken_apart
from hagane.report.record import dig, number
from hagane.report.tables import Count


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (999.7, "1 k"),
        (1234567, "1.23 M"),
        (8_590_200_832, "8.59 B"),
        (12.4e12, "12.4 T"),
        (None, "–"),
        (math.nan, "–"),
        (-2500, "-2.5 k"),
        (0.1, "0.1"),
    ],
)
def test_scaled(value: float | None, shown: str) -> None:
    assert text.scaled(value) == shown


def test_units() -> None:
    assert text.size(4.1e9) == "4.1 GB"
    assert text.energy(9072) == "2.52 Wh"
    assert text.seconds(9.4) == "9.4 s" and text.seconds(298) == "4 min 58 s"
    assert [text.seconds(value) for value in (7200.6, 86400, 226_800, 1e9)] == ["2 h", "1 day", "2 days 15 h", "31.7 years"]
    assert text.percent(0.4567) == "45.7 %"
    assert text.small(3.1e-6) == "3.1e-6" and text.small(0) == "0.0"


def test_languages_have_names_and_codes_nobody_knows_stay_codes() -> None:
    shown = {"chr": "Cherokee", "ee": "Ewe", "gv": "Manx", "sma": "Southern Sami", "smn": "Inari Sami", "zu": "Zulu", "nb": "Norwegian Bokmål", "xx-x": "xx-x"}
    assert {tag: text.language(tag) for tag in shown} == shown
    assert text.language("pt-BR") == "Brazilian Portuguese" and text.language("sv-FI") == "Swedish (sv-FI)" and text.language("") == ""


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=3000))
def test_thinning_keeps_mean_range_and_order(values: list[float]) -> None:
    curve = Curve.of(list(range(len(values))), values)
    line = bucketed(curve) if values else None
    if line is None:
        return
    assert len(line.x) == min(len(values), MAX_POINTS) and bool((np.diff(line.x) > 0).all())
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        assert np.nanmin(line.low) == min(finite) and np.nanmax(line.high) == max(finite)
    else:
        assert not curve.drawable


@given(st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_interval_holds_the_share(count: tuple[int, int]) -> None:
    interval = Count(*count).interval
    assert interval is not None
    assert 0 <= interval[0] <= count[0] / count[1] + 1e-9 and count[0] / count[1] - 1e-9 <= interval[1] <= 1


def test_wilson_known_value() -> None:
    assert Count(95, 100).interval == pytest.approx((0.8882, 0.9785), abs=1e-4)


def test_names_are_never_read_as_formulas() -> None:
    """A $ in a name is a dollar, not the begin of a formula; a script that matplotlib cannot draw is the browser's business."""
    picture = intervals("p", "Names", [Interval("$\\frac{", 1.0, 0.9, 1.1), Interval("言語<b>", 2.0, None, None)], caption="")
    assert "$\\frac{" in picture.svg and "言語&lt;b&gt;" in picture.svg


def test_accessors_tolerate_anything() -> None:
    assert dig({"a": [{"b": 1}]}, "a", 0, "b") == 1
    assert dig({"a": None}, "a", "b", 3) is None and dig([1], 5) is None
    assert number(True) is None and number("1") is None and number(10**400) is None and number(2) == 2.0


@pytest.mark.parametrize(
    ("output", "thinking", "parts"),
    [
        ("2 + 2 = 4\n</think>\n\n4<|im_end|>", True, ("2 + 2 = 4", "4")),
        ("<think>\n2 + 2\n</think>\n\n4", False, ("2 + 2", "4")),
        ("2 + 2 = 4 and", True, ("2 + 2 = 4 and", "")),
        ("4<|im_end|>", False, ("", "4")),
        ("4 </think> 5", False, ("", "4 </think> 5")),
    ],
)
def test_samples_show_all_that_was_written(output: str, thinking: bool, parts: tuple[str, str]) -> None:
    thought, answer = _taken_apart(output, thinking)
    assert (thought.strip(), answer.strip()) == parts
