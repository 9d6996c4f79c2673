"""The probe times real steps."""

import pytest
from toy_training import model

from hagane.train.probe import random_step, time_steps


@pytest.mark.parametrize("kind", ["dense", "routed"])
def test_a_step_is_timed(kind: str) -> None:
    rate = time_steps(model(kind), rows=2, context=16, accumulation=2, steps=3, threads=1, compile=False)
    assert rate.tokens_per_second == pytest.approx(64 / rate.step_seconds)
    assert 0 < rate.step_seconds < 5
    assert rate.compile_seconds >= 0 and rate.peak_memory_bytes > 1e7


def test_random_data_has_the_shape_of_a_step() -> None:
    step = random_step(50, rows=3, context=8, accumulation=2)
    assert len(step.batches) == 2 and step.weight_sum == 48.0 and step.num_tokens == 48
    assert step.batches[0].tokens_BT.shape == (3, 8)
    assert int(step.batches[0].tokens_BT.max()) < 50
