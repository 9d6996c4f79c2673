"""What a run without steering counts on where its step was timed before, and the steps that only tell batches apart."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.measure import stage
from hagane.measure.stage import ANOTHER_MACHINE, COMPILED_QUICKLY, _Timer, between
from hagane.plan.shapes import shape
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Machine, StepRate
from hagane.train import probe


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


@pytest.fixture
def timing(monkeypatch):
    """A timer without a run folder: steps take a hundredth of a second a row, the profile is a variable, and what was timed is counted."""
    machine = Machine(name="m", device="cpu", num_cores=2, memory_bytes=8 << 30, matmul_flops=4e11, bandwidth=2e10, power_watts=50.0, power_source="a test")
    found = SimpleNamespace(machine=machine, asked=[], left=300.0)

    def add(kept, key, rate, threads):
        found.machine = kept.model_copy(update={"steps": {**kept.steps, key: rate}})

    def time_steps(config, rows, context, **settings):
        found.asked.append((rows, settings["seconds"]))
        return rate(0.01 * rows)

    monkeypatch.setattr(stage, "profile", lambda *_: found.machine)
    monkeypatch.setattr(stage, "add_step", add)
    monkeypatch.setattr(probe, "time_steps", time_steps)

    def timer(*sets):
        recipe = load_recipe("nordic", ["corpus.sources=[]", *sets])[0]
        config = shape(recipe.model.pattern, SizeSettings(), width=64, num_layers=4, vocabulary_size=1024, context=256)
        return _Timer(SimpleNamespace(recipe=recipe, machine=machine, remaining=lambda: found.left, say=lambda text: None)), config

    found.timer = timer
    return found


def test_a_step_that_only_tells_batches_apart_is_timed_once_and_is_no_step_that_a_plan_counts_on(timing):
    timer, config = timing.timer()
    assert timer.quickly(config, 4, 256).step_seconds == timer.quickly(config, 4, 256).step_seconds == pytest.approx(0.04)
    assert timing.asked == [(4, stage.QUICK_SECONDS)]
    timer.step(config, 4, 256)
    assert [rows for rows, _ in timing.asked] == [4, 4]


def test_what_would_have_to_be_compiled_for_it_is_timed_only_where_that_pays(timing):
    timer, config = timing.timer("model.pattern.deltas=3")
    assert timer.quickly(config, 4, 256) is None and not timing.asked
    timing.left = COMPILED_QUICKLY + 1
    assert timer.quickly(config, 4, 256) is not None


def test_a_step_that_was_kept_before_overheads_were_says_what_was_expected_of_it_the_next_time(timing):
    timer, config = timing.timer()
    key = stage.step_key(timer.run.recipe, config, 4, 256)
    timing.machine = timing.machine.model_copy(update={"steps": {key: rate(0.04)}})
    assert timer.step(config, 4, 256).step_seconds == pytest.approx(0.04)
    assert timing.machine.steps[key].expected == stage.expected_of(timer.run.recipe, timing.machine, config, 4, 256)
    eager, config = timing.timer("execution.compile=false")
    assert stage.expected_of(eager.run.recipe, timing.machine, config, 4, 256) is None


def test_a_kept_step_that_leaves_few_steps_is_timed_again_for_it_may_be_of_a_bad_minute(timing):
    timer, config = timing.timer()
    key = stage.step_key(timer.run.recipe, config, 4, 256)
    timing.machine = timing.machine.model_copy(update={"steps": {key: rate(0.4)}})
    timing.left = 1.01 * 0.4 * stage.FEW_STEPS
    assert timer.step(config, 4, 256).step_seconds == pytest.approx(0.4) and not timing.asked
    timing.left = 0.99 * 0.4 * stage.FEW_STEPS
    assert timer.step(config, 4, 256).step_seconds == pytest.approx(0.04)
    assert timing.machine.steps[key].step_seconds == pytest.approx(0.04)
