"""Forgetting and gain: the same documents before and after, whatever the vocabularies."""

import numpy as np
import pytest

from hagane.evaluate.bits_per_byte import Scores
from hagane.evaluate.forgetting import forgetting

BYTES = np.array([100, 300, 50, 150] * 10)


def scores(bits_per_byte, tokens=40):
    return Scores(BYTES * np.asarray(bits_per_byte, dtype=float), BYTES, np.full(len(BYTES), tokens))


def test_change_is_after_minus_before_and_its_interval_is_that_of_pairs():
    """Documents differ much, their changes do not: an interval of two independent figures would hold zero."""
    level = np.linspace(1, 5, len(BYTES))
    before = {"en": scores(level), "is": scores(level), "fo": scores(level), "code-python": scores(level)}
    after = {"en": scores(level + 0.1), "is": scores(level - 0.5, 20), "fo": scores(level - 0.3 + 0.01 * (level - 3)), "code-python": scores(level + 9)}
    found = forgetting(before, after, ("en", "sv"))
    assert found.languages == ("en",) and found.before["en"].value > 2
    assert found.change["en"].value == pytest.approx(0.1) and found.change["en"].low == pytest.approx(0.1)
    assert -0.32 < found.change["fo"].low < found.change["fo"].value < found.change["fo"].high < -0.28
    assert found.known.value == pytest.approx(0.1)
    assert found.new.value == pytest.approx((found.change["is"].value + found.change["fo"].value) / 2), "source code is no language to average over"
    assert found.new.low < found.new.value < found.new.high < 0


def test_without_named_languages_nothing_is_called_forgotten():
    found = forgetting({"en": scores(2.0)}, {"en": scores(1.0)}, ())
    assert found.known is None and found.new is None and found.change["en"].value == pytest.approx(-1)
