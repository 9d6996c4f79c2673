"""Steps that were timed on a machine say what those of other shapes take there: what is not matrix products takes so many times what it took elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.measure import machine as profiles
from hagane.measure.machine import add_step, profile
from hagane.plan.cost import MOST_OVERHEAD, expected_step, least_step_seconds, overhead_of, step_seconds, step_work
from hagane.plan.shapes import shape
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Machine, StepRate

CPU = Machine(name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=900e9, bandwidth=2e10, power_watts=31.0, power_source="stated")
GPU = CPU.model_copy(update={"device": "cuda", "matmul_flops": 700e12})


def config_of(width, num_layers, *settings):
    pattern = load_recipe("nordic", [*settings])[0].model.pattern
    return shape(pattern, SizeSettings(), width=width, num_layers=num_layers, vocabulary_size=4096, context=256)


def timed(config, seconds, machine, tokens=4096):
    expected = expected_step(step_work(config, 256), tokens, machine)
    return StepRate(tokens_per_second=tokens / seconds, step_seconds=seconds, compile_seconds=0.0, expected=expected)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HAGANE_CACHE", str(tmp_path))


@given(st.sampled_from([CPU, GPU]), st.sampled_from([(64, 3), (256, 5), (768, 12)]), st.sampled_from(["dense", "experts"]), st.floats(0.1, MOST_OVERHEAD))
def test_a_step_that_was_timed_is_expected_to_take_just_as_long(machine, rung, ffn, overhead):
    config = config_of(*rung, f"model.pattern.ffn={ffn}")
    products, others = expected_step(step_work(config, 256), 4096, machine)
    rate = timed(config, products + overhead * others, machine)
    corrected = machine.model_copy(update={"overhead": overhead_of([rate])})
    assert step_seconds(step_work(config, 256), 4096, corrected) == pytest.approx(rate.step_seconds)


def test_nothing_timed_changes_nothing_and_nothing_timed_badly_changes_much():
    config = config_of(256, 5)
    assert overhead_of([]) == 1.0 == overhead_of([StepRate(tokens_per_second=1.0, step_seconds=1.0, compile_seconds=0.0)])  # kept by an older version
    assert overhead_of([timed(config, 1e-9, CPU)]) == 1 / MOST_OVERHEAD
    assert overhead_of([timed(config, 1e9, CPU)]) == MOST_OVERHEAD
    usual = sum(expected_step(step_work(config, 256), 4096, CPU))
    assert overhead_of([timed(config, usual, CPU), timed(config, usual, CPU), timed(config, 1e9, CPU)]) == pytest.approx(1.0)


def test_wide_shapes_are_corrected_by_less_than_narrow_ones_for_their_products_take_what_they_take():
    slow = CPU.model_copy(update={"overhead": 3.0})
    narrow, wide = (step_work(config_of(*rung, "model.pattern.ffn=dense"), 256) for rung in ((64, 3), (1024, 16)))
    ratios = [step_seconds(work, 4096, slow) / step_seconds(work, 4096, CPU) for work in (narrow, wide)]
    assert 1.5 < ratios[1] < ratios[0] < 3.0


def test_a_budget_is_not_refused_for_the_overhead_of_the_machine():
    config = config_of(256, 5)
    slow, fast = (CPU.model_copy(update={"overhead": overhead}) for overhead in (3.0, 0.5))
    assert least_step_seconds(config, 4096, 256, slow) == least_step_seconds(config, 4096, 256, CPU) > least_step_seconds(config, 4096, 256, fast)


def test_the_profile_keeps_what_its_steps_say(monkeypatch):
    monkeypatch.setattr(profiles, "measure", lambda device, threads: CPU)
    config = config_of(256, 5)
    products, others = expected_step(step_work(config, 256), 4096, CPU)
    for number, overhead in enumerate((2.0, 4.0, 3.0)):
        add_step(profile("cpu"), f"step {number}", timed(config, products + overhead * others, CPU))
    assert profile("cpu").overhead == pytest.approx(3.0) and len(profile("cpu").steps) == 3
    assert profile("cpu", renew=True).overhead == 1.0
