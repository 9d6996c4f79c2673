import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hagane.engine.sampling import Sampling, uniform


def steps(count, prompt=0):
    return np.full(count, prompt, dtype=np.int64), np.arange(count, dtype=np.int64)


def test_draws_are_uniform_and_differ_between_prompts_steps_and_seeds():
    draws = uniform(7, *steps(200_000))
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.004
    assert np.abs(np.histogram(draws, 20, (0, 1))[0] / 10_000 - 1).max() < 0.05
    for other in (uniform(8, *steps(200_000)), uniform(7, *steps(200_000, prompt=1))):
        assert abs(np.corrcoef(draws, other)[0, 1]) < 0.01


def test_frequencies_are_the_probabilities_of_the_model():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    count = 40_000
    for temperature in (0.5, 1.0, 2.0):
        tokens = Sampling(temperature, seed=3).choose(logits.expand(count, 4), *steps(count))
        expected = (logits / temperature).softmax(-1)
        assert torch.allclose(tokens.bincount(minlength=4) / count, expected, atol=0.01)


def test_the_nucleus_is_the_smallest_set_with_enough_probability():
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    count = 20_000
    tokens = Sampling(1.0, top_p=0.7, seed=1).choose(logits.expand(count, 4), *steps(count))
    assert torch.allclose(tokens.bincount(minlength=4) / count, torch.tensor([0, 2 / 3, 0, 1 / 3]), atol=0.015)
    assert (Sampling(1.0, top_p=0.01).choose(logits.expand(50, 4), *steps(50)) == 1).all()


@given(st.lists(st.floats(-80, 80), min_size=2, max_size=40), st.floats(0.05, 4), st.floats(0.01, 1), st.integers(0, 2**64 - 1))
def test_what_is_drawn_is_never_impossible(values, temperature, top_p, seed):
    logits = torch.tensor(values)
    logits[len(values) // 2] = -float("inf")
    tokens = Sampling(temperature, top_p, seed).choose(logits.expand(16, -1), *steps(16))
    assert (tokens >= 0).all() and (tokens < len(values)).all()
    assert (logits[tokens] > -float("inf")).all()


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="temperature"):
        Sampling(-1.0)
    with pytest.raises(ValueError, match="top_p"):
        Sampling(1.0, top_p=0.0)
