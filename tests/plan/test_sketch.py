"""What is decided before anything is read: the shape that a law and a time ask for, and the memory that its run will take."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.model.config import ExpertsConfig
from hagane.plan.cost import run_memory, training_memory
from hagane.plan.law import GENERAL
from hagane.plan.shapes import candidates, experts_of
from hagane.plan.sketch import ALIKE, EXPERTS_ALIKE, affordable, best_shape, body_parameters, lowest_shape
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Machine

CPU = Machine(name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=430e9, bandwidth=20e9, power_watts=31.0, power_source="stated")
RECIPE = load_recipe("nordic", ["corpus.sources=[]"])[0]


@settings(deadline=None, max_examples=25)
@given(st.floats(30, 400_000), st.sampled_from([1024, 4096, 16384]))
def test_of_shapes_that_are_alike_the_largest_is_taken_with_as_many_experts_as_are_alike(seconds, vocabulary):
    losses = [(one.config, one.loss(seconds, CPU, GENERAL)) for one in affordable(RECIPE, SizeSettings(), CPU, vocabulary)]
    chosen = best_shape(RECIPE, SizeSettings(), CPU, vocabulary, seconds, GENERAL)
    shape = (chosen.width, chosen.num_layers)
    own = {config: loss for config, loss in losses if (config.width, config.num_layers) == shape}
    lowest = min(loss for _, loss in losses)
    most = min(lowest * (1 + ALIKE), min(own.values()) * (1 + EXPERTS_ALIKE))
    assert own[chosen] <= most and lowest_shape(RECIPE, SizeSettings(), CPU, vocabulary, seconds, GENERAL) in [c for c, loss in losses if loss == lowest]
    assert not [config for config, loss in own.items() if loss <= most and experts_of(config) > experts_of(chosen)]
    largest = max((config for config, loss in losses if loss <= lowest * (1 + ALIKE)), key=body_parameters)
    assert (largest.width, largest.num_layers) == shape


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
