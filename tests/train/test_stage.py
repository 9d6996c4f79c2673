"""What training leaves for later plans."""

from types import SimpleNamespace

import pytest

from hagane.plan.cost import expected_step, step_work
from hagane.plan.shapes import shape
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Machine
from hagane.train import stage

MACHINE = Machine(name="m", device="cpu", num_cores=2, memory_bytes=8 << 30, matmul_flops=4e11, bandwidth=2e10, power_watts=50.0, power_source="a test")
ROWS, CONTEXT, SECONDS = 8, 256, 0.4


@pytest.mark.parametrize("steps", [stage.STEPS_TO_REMEMBER - 1, stage.STEPS_TO_REMEMBER])
def test_a_step_is_kept_with_what_was_expected_of_it_for_other_shapes_are_expected_by_that(monkeypatch, tmp_path, steps):
    recipe, kept = load_recipe("nordic")[0], []
    config = shape(recipe.model.pattern, SizeSettings(), width=64, num_layers=4, vocabulary_size=1024, context=CONTEXT)
    plan = SimpleNamespace(model=config, phases={"pretrain": (SimpleNamespace(rows=ROWS, context=CONTEXT),)})
    facts = SimpleNamespace(steps=steps, tokens_per_second=ROWS * CONTEXT / SECONDS, compile_seconds=0.0, peak_memory_bytes=1)
    monkeypatch.setattr(stage, "PlanFacts", SimpleNamespace(model_validate=lambda facts: plan))
    monkeypatch.setattr(stage, "train_phases", lambda *_: facts)
    monkeypatch.setattr(stage, "profile", lambda *_: MACHINE)
    monkeypatch.setattr(stage, "add_step", lambda machine, key, rate, threads: kept.append(rate))
    stage.run_pretrain(SimpleNamespace(recipe=recipe, machine=MACHINE, facts=lambda name: {}), tmp_path)
    if steps < stage.STEPS_TO_REMEMBER:  # the speed of so few is a chance one
        assert not kept
        return
    products, others = expected_step(step_work(config, CONTEXT), ROWS * CONTEXT, MACHINE)
    assert kept[0].step_seconds == pytest.approx(SECONDS) and kept[0].overhead == pytest.approx((SECONDS - products) / others)
