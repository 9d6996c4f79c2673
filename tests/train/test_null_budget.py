"""Training holds what null experts are for: the experts that a token uses on average, at the rate that the recipe gives the selection bias."""

import pytest
from toy_training import phase

from hagane.hosts import host_for
from hagane.plan.shapes import shape
from hagane.recipe.schema import PatternSettings, SizeSettings
from hagane.train.health import RouterSums
from hagane.train.probe import random_step
from hagane.train.stepper import Stepper

PATTERN = {
    "ffn": "experts", "num_experts": 8, "null_experts": 8, "top_k": 4, "score": "sigmoid", "balance": "bias", "shared_experts": 1, "dense_layers": 1,
    "aux_coefficient": 0.0, "qk_norm": False,
}  # fmt: skip


@pytest.mark.parametrize("budget", [1.5, 2.5])
def test_the_mean_of_experts_comes_to_its_budget(budget: float) -> None:
    """0.01 a step; at the default of 0.001 a toy is 30 to 80 % away after as many steps (docs/notebook.md, "Null experts")."""
    pattern = PatternSettings(**PATTERN, mean_experts=budget, bias_rate=0.01)
    config = shape(pattern, SizeSettings(), width=64, num_layers=3, vocabulary_size=97, context=16)
    assert host_for(config) == "glm4_moe", "a pattern that can be released"
    stepper, sums = Stepper(config, device="cpu", dtype="float32", compiled=False, seed=0), RouterSums()
    for index in range(150):
        result = stepper.step(random_step(97, 8, 16, seed=index % 8), phase(), 3e-3)
        if index >= 110:
            sums.add(result.stats)
    health = sums.health()
    assert health is not None and health.mean_experts == pytest.approx(budget, rel=0.15)
    assert health.dead_share == 0.0
