"""What is decided before anything is read: the shape that a law and a time ask for, and the memory that its run will take."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.errors import RecipeError
from hagane.model.config import ExpertsConfig
from hagane.plan.cost import run_memory, training_memory
from hagane.plan.law import FINER_FROM, GENERAL, effective_bytes
from hagane.plan.shapes import candidates, experts_of, top_k_of
from hagane.plan.sketch import (
    ALIKE,
    EXPERTS_ALIKE,
    PARAMETERS_PER_BYTE,
    Worth,
    affordable,
    best_alike,
    best_shape,
    body_parameters,
    lowest_shape,
    sketch,
    target_seconds,
    with_finer_experts,
)
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Budget, Machine

CPU = Machine(name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=430e9, bandwidth=20e9, power_watts=31.0, power_source="stated")
RECIPE = load_recipe("nordic", ["corpus.sources=[]"])[0]


@settings(deadline=None, max_examples=25)
@given(st.floats(30, 40_000_000), st.sampled_from([1024, 4096, 16384]))
def test_of_shapes_that_are_alike_the_largest_is_taken_with_as_many_experts_as_are_alike_and_no_finer_than_they_must_be(seconds, vocabulary):
    expected = [one.expected(seconds, CPU, GENERAL) for one in affordable(RECIPE, SizeSettings(), CPU, vocabulary)]
    losses = [(item.loss, item.one) for item in expected]
    chosen = best_shape(RECIPE, SizeSettings(), CPU, vocabulary, seconds, GENERAL)
    shape, lowest = (chosen.width, chosen.num_layers), min(loss for loss, _ in losses)
    largest = max((one.config for loss, one in losses if loss <= lowest * (1 + ALIKE)), key=body_parameters)
    assert (largest.width, largest.num_layers) == shape
    assert lowest_shape(RECIPE, SizeSettings(), CPU, vocabulary, seconds, GENERAL) in [one.config for loss, one in losses if loss == lowest]
    coarse = [(loss, one) for loss, one in losses if (one.config.width, one.config.num_layers) == shape]
    taken = best_alike(expected)
    more = [(one.expected(seconds, CPU, GENERAL).loss, one) for one in with_finer_experts(RECIPE, SizeSettings(), CPU, taken)]
    assert bool(more) == (taken.point.active >= FINER_FROM), "where a law knows nothing of them"
    own = {one.config: loss for loss, one in (*coarse, *more)}
    least = min(own.values())
    most = least * (1 + EXPERTS_ALIKE)
    assert own[chosen] <= most
    assert not [config for config, loss in own.items() if loss <= most and top_k_of(config) < top_k_of(chosen)]
    alike = [config for config, loss in own.items() if loss <= most and top_k_of(config) == top_k_of(chosen)]
    assert not [config for config in alike if experts_of(config) > experts_of(chosen)]


def test_the_process_counts_on_a_cpu_and_experts_more_than_their_activations():
    dense, routed = (
        candidates(load_recipe("nordic", ["corpus.sources=[]", f"model.pattern.ffn={kind}"])[0].model.pattern, SizeSettings(width=128, num_layers=4),
                   vocabulary_size=2048, context=256)[0] for kind in ("dense", "experts")
    )  # fmt: skip
    assert isinstance(routed.layers[0].ffn, ExpertsConfig)
    for config in (dense, routed):
        assert run_memory(config, 8, 256, "cuda") == training_memory(config, 8, 256)
    beside = run_memory(dense, 8, 256, "cpu") - training_memory(dense, 8, 256)
    assert beside == pytest.approx(run_memory(dense, 32, 256, "cpu") - training_memory(dense, 32, 256)), "the same, however many rows"
    more = [run_memory(routed, rows, 256, "cpu") - training_memory(routed, rows, 256) for rows in (8, 32)]
    assert beside < more[0] < more[1]


@pytest.mark.parametrize("text", ["8h", "1e17FLOP", "30Mtokens", "1kWh"])
def test_a_target_of_any_kind_is_the_time_of_a_run_that_trains_as_long(text):
    recipe, seconds = RECIPE.model_copy(update={"budget": text}), target_seconds(RECIPE, SizeSettings(), CPU, Budget.parse(text))
    same = RECIPE.model_copy(update={"budget": f"{seconds}s"})
    one, other = (sketch(asked, SizeSettings(), CPU).training_seconds for asked in (recipe, same))
    assert one == pytest.approx(other, rel=1e-6)


def test_a_target_that_teaches_nothing_is_refused_by_its_own_name():
    with pytest.raises(RecipeError, match=r"300 training tokens are too few .* \(--target 204800tokens\)"):
        target_seconds(RECIPE, SizeSettings(), CPU, Budget.parse("300tokens"))


@settings(deadline=None, max_examples=25)
@given(st.floats(1e5, 1e8), st.floats(1e5, 1e9))
def test_no_shape_has_too_many_parameters_for_the_bytes_of_different_text_that_it_reads(seconds, unique):
    worth = Worth(lambda num_bytes: effective_bytes(unique, num_bytes), unique, 4 * unique)
    assert worth(1e18) == worth(4 * unique) < 4 * unique
    every = [one.expected(seconds, CPU, GENERAL, worth) for one in affordable(RECIPE, SizeSettings(), CPU, 4096)]
    fitting = [item for item in every if not item.too_large]
    assert all(item.one.point.total <= PARAMETERS_PER_BYTE * unique for item in fitting)
    taken = best_alike(every)
    if not fitting:
        assert body_parameters(taken.config) == min(body_parameters(item.one.config) for item in every)
        return
    alike = [item.one.config for item in fitting if item.loss <= min(one.loss for one in fitting) * (1 + ALIKE)]
    largest = max(alike, key=body_parameters)
    assert (taken.config.width, taken.config.num_layers) == (largest.width, largest.num_layers) and taken.point.total <= PARAMETERS_PER_BYTE * unique
