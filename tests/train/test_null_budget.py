"""Training holds what null experts are for: the experts that a token uses on average, at the rate that the plan gives the selection bias. Else it says so."""

from dataclasses import replace
from pathlib import Path

import pytest
import toy_training
from toy_training import phase

from hagane.hosts import host_for
from hagane.plan.null_experts import with_bias_rate
from hagane.plan.shapes import shape
from hagane.recipe.schema import PatternSettings, SizeSettings
from hagane.train.callbacks import ProgressDisplay
from hagane.train.facts import RouterHealth
from hagane.train.health import RouterSums, off_budget
from hagane.train.loop import train
from hagane.train.probe import random_step
from hagane.train.stepper import Stepper

PATTERN = {
    "ffn": "experts", "num_experts": 8, "null_experts": 8, "top_k": 4, "score": "sigmoid", "balance": "bias", "shared_experts": 1, "dense_layers": 1,
    "aux_coefficient": 0.0, "qk_norm": False,
}  # fmt: skip


@pytest.mark.parametrize("budget", [1.5, 2.5])
def test_the_mean_of_experts_comes_to_its_budget(budget: float) -> None:
    """At the published rate a toy is 30 to 80 % away after as many steps (docs/notebook.md, "Null experts")."""
    pattern = PatternSettings(**PATTERN, mean_experts=budget)
    config = with_bias_rate(shape(pattern, SizeSettings(), width=64, num_layers=3, vocabulary_size=97, context=16), pattern, [phase(num_steps=150)])
    assert host_for(config) == "glm4_moe", "a pattern that can be released"
    stepper, sums = Stepper(config, device="cpu", dtype="float32", compiled=False, seed=0), RouterSums()
    for index in range(150):
        result = stepper.step(random_step(97, 8, 16, seed=index % 8), phase(), 3e-3)
        if index >= 110:
            sums.add(result.stats)
    health = sums.health()
    assert health is not None and health.mean_experts == pytest.approx(budget, rel=0.15)
    assert health.dead_share == 0.0


def test_a_budget_that_is_not_held_is_said_at_the_end_of_a_stage(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty steps at the published rate, a quarter of the choices wanted null where most are."""
    config = toy_training.model("null")
    ffn = config.layers[1].ffn.model_copy(update={"top_k": 4, "mean_experts": 3.0, "entropy_clamp": None})
    model = config.model_copy(update={"layers": (config.layers[0], config.layers[1].model_copy(update={"ffn": ffn}))})
    settings = replace(toy_training.settings(tmp_path, data), model=model)
    used = train(settings, callbacks=[ProgressDisplay("pretrain")]).router.mean_experts
    (event,) = toy_training.events(tmp_path, "off_budget")
    assert event["message"] == (
        f"tokens use {used:.3g} experts on average where the plan counts FLOPs with 3 ({used / 3 - 1:+.0%}). Train for more steps, or raise "
        "model.pattern.bias_rate (now 0.001)."
    )
    assert f"off budget: {event['message']}" in capsys.readouterr().err


@pytest.mark.parametrize(("used", "said"), [(1.79, True), (1.81, False), (2.19, False), (2.21, True)])
def test_a_tenth_of_the_budget_is_let_pass(used: float, said: bool) -> None:
    config = shape(PatternSettings(**PATTERN, mean_experts=2.0), SizeSettings(), width=64, num_layers=3, vocabulary_size=97, context=16)
    health = RouterHealth(max_violation=0, dead_share=0, effective_experts=8, conditional_entropy=1, marginal_entropy=1, mean_experts=used)
    assert (off_budget(config, health) is not None) == said
    assert off_budget(toy_training.model("routed"), health) is None
