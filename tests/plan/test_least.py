"""A budget too small for a pattern is refused by arithmetic, before anything is read; one that the plan could use is not."""

import re

import pytest

from hagane.errors import RecipeError
from hagane.plan.choose import Known
from hagane.plan.cost import least_step_seconds, step_work, tokens_per_second, training_flops_per_token
from hagane.plan.fitted import fitted
from hagane.plan.law import GENERAL
from hagane.plan.least import KIND_SECONDS, expected_steps, refuse_few_steps
from hagane.plan.shapes import shape, shape_key
from hagane.plan.sketch import MINIMUM_STEPS, PLAN_SECONDS, START_SECONDS, sketch, smallest_seconds
from hagane.plan.stage import make_plan
from hagane.recipe.load import load_recipe, shipped_recipes
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Budget, Machine, StepRate

# the two cores on which the refusals after a minute of compiling were seen
MACHINE = Machine(name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=827e9, bandwidth=72e9, power_watts=31.0, power_source="stated")
ANY = SizeSettings()


def refusal(name, budget, machine=MACHINE, *settings):
    recipe = fitted(load_recipe(name, [f"budget={budget}", *settings])[0], (), machine)
    try:
        refuse_few_steps(recipe, ANY, machine, GENERAL)
    except RecipeError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("name", "seconds"), [("amplimind-xl", 120), ("neurosynth-9", 120), ("ax-k1", 100)])
def test_patterns_that_need_minutes_are_refused_with_a_budget_that_is_taken(name, seconds):
    said = refusal(name, f"{seconds}s")
    least = re.search(r"smallest useful budget is about ([\dminhs ]+);", said)[1].replace(" ", "")
    assert seconds < Budget.parse(least).amount < 300
    assert refusal(name, least) is None
    assert "model.pattern.num_experts" in said and said.count(". ") == 1


@pytest.mark.parametrize("name", shipped_recipes())
def test_twenty_minutes_are_enough_for_every_shipped_recipe(name):
    assert refusal(name, "20min") is None


@pytest.mark.parametrize("name", ["nordic", "quickstart"])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_small_patterns_are_taken_at_the_smallest_budget_of_the_sketch_on_half_the_machine_too(name, share):
    machine = MACHINE.model_copy(update={"matmul_flops": share * MACHINE.matmul_flops})
    assert refusal(name, f"{smallest_seconds() + 1:.0f}s", machine) is None


@pytest.mark.parametrize("name", ["amplimind-xl", "neurosynth-9", "llm-jp-4-32b-a3b", "llm-jp-4-8b"])
def test_what_is_refused_the_plan_would_have_refused_though_each_step_took_the_least_it_can(name):
    """The plan itself is the judge: told that compiling took what it takes from cold at least, and steps the least they can."""
    taken = 0
    for seconds in (75, 90, 110, 130, 150, 180, 220, 300, 480):
        recipe = load_recipe(name, [f"budget={seconds}s"])[0]
        sizes = recipe.tokenizer.candidates
        known = Known(
            shard_bytes={"a": 40_000_000}, shard_source={"a": "corpus"}, shard_language={"a": "en"}, held_out_bytes={"a": 50_000},
            bytes_per_token={size: {"en": 0.3 * size**0.3} for size in sizes},
        )  # fmt: skip

        def time_step(config, rows, context):
            step = least_step_seconds(config, rows * context, context, MACHINE)
            return StepRate(tokens_per_second=rows * context / step, step_seconds=step, compile_seconds=0.0)

        cold = PLAN_SECONDS + (2 * KIND_SECONDS if name in ("amplimind-xl", "neurosynth-9") else 0.0)
        left = seconds - START_SECONDS - cold - 2.0
        try:
            rough = sketch(recipe, ANY, MACHINE)
        except RecipeError:  # told before steps are counted
            continue
        refused = refusal(name, f"{seconds}s") is not None
        try:
            make_plan(recipe, ANY, MACHINE, known, rough, lambda left=left: left, time_step, {})
        except RecipeError as error:
            assert f"at least {MINIMUM_STEPS} are needed" in str(error)
            continue
        taken += 1
        assert not refused, f"{name} at {seconds} s has a plan"
    assert taken, "some of these budgets are enough"


def test_a_step_takes_more_than_its_products_and_every_expert_adds():
    few, many = (
        shape(load_recipe("nordic", [f"model.pattern.num_experts={count}"])[0].model.pattern, ANY, width=96, num_layers=4, vocabulary_size=4096, context=256)
        for count in (8, 512)
    )
    for config in (few, many):
        assert least_step_seconds(config, 4096, 256, MACHINE) == pytest.approx(4096 / tokens_per_second(config, 256, MACHINE))
        assert least_step_seconds(config, 4096, 256, MACHINE) > 4096 * training_flops_per_token(config, 256) / MACHINE.matmul_flops
        assert 2 * least_step_seconds(config, 2048, 256, MACHINE) > least_step_seconds(config, 4096, 256, MACHINE)
    on_gpu = MACHINE.model_copy(update={"device": "cuda"})
    assert least_step_seconds(many, 65_536, 256, on_gpu) == pytest.approx(65_536 / tokens_per_second(many, 256, on_gpu))
    for config in (few, many):  # Muon's iterations are counted there too: with many experts they are most of a small step
        each = (least_step_seconds(config, 65_536, 256, on_gpu) - least_step_seconds(config, 4096, 256, on_gpu)) / (65_536 - 4096)
        assert 20 * config.width * step_work(config, 256).body / on_gpu.matmul_flops < least_step_seconds(config, 4096, 256, on_gpu) - 4096 * each
    assert least_step_seconds(many, 4096, 256, MACHINE) - least_step_seconds(few, 4096, 256, MACHINE) > 0.4  # 2,016 experts more


def test_what_was_compiled_here_before_needs_no_seconds_for_it():
    recipe = load_recipe("amplimind-xl", ["budget=200s"])[0]
    cold, _ = expected_steps(recipe, ANY, MACHINE, GENERAL, 200)
    rate = StepRate(tokens_per_second=1.0, step_seconds=1.0, compile_seconds=0.0)
    keys = [
        shape_key(shape(recipe.model.pattern, ANY, width=width, num_layers=layers, vocabulary_size=size, context=4096), 1, 4096, "bfloat16")
        for size in recipe.tokenizer.candidates
        for width, layers in ((64, 3), (96, 4), (128, 4), (192, 3), (256, 5))
    ]
    warm, _ = expected_steps(recipe, ANY, MACHINE.model_copy(update={"steps": dict.fromkeys(keys, rate)}), GENERAL, 200)
    assert warm > 1.1 * cold


def test_budgets_of_energy_and_money_are_refused_in_their_own_unit():
    assert re.search(r"smallest useful budget is about \S+ ?k?Wh", refusal("neurosynth-9", "1Wh"))
    assert re.search(r"smallest useful budget is about \S+ ?USD", refusal("neurosynth-9", "0.1USD", MACHINE, "execution.price_per_hour=3"))
    assert refusal("neurosynth-9", "5Mtokens") is None
