"""What a run without steering counts on where its step was timed before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.measure.stage import ANOTHER_MACHINE, between
from hagane.recipe.types import StepRate


def rate(step_seconds, memory=1):
    return StepRate(tokens_per_second=1000 / step_seconds, step_seconds=step_seconds, compile_seconds=0.0, peak_memory_bytes=memory)


def test_the_middle_of_today_and_before():
    counted = between(rate(0.2, memory=7), rate(0.25, memory=3))
    assert counted.step_seconds == pytest.approx(0.05**0.5)
    assert counted.tokens_per_second == pytest.approx(1000 / 0.05**0.5)
    assert counted.peak_memory_bytes == 7


@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_it_lies_between_them_or_the_machine_has_changed(now, before):
    counted = between(rate(now), rate(before)).step_seconds
    if 1 / ANOTHER_MACHINE * 1.001 < before / now < ANOTHER_MACHINE * 0.999:
        assert min(now, before) * (1 - 1e-9) <= counted <= max(now, before) * (1 + 1e-9)
    elif not 1 / ANOTHER_MACHINE * 0.999 < before / now < ANOTHER_MACHINE * 1.001:
        assert counted == now
