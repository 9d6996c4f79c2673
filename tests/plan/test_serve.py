"""A budget that also pays for serving: the best shape of all that can be trained in what serving leaves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.errors import RecipeError
from hagane.model.count import num_active_parameters
from hagane.plan.cost import MEMORY_SHARE, tokens_per_second, training_memory
from hagane.plan.law import GENERAL, usual_bytes_per_token
from hagane.plan.serve import parse_tokens, serving_options, size_settings
from hagane.plan.shapes import candidates, finer, published, top_k_of
from hagane.plan.sketch import ALIKE, best_shape, point_of
from hagane.preview import preview
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Machine

MACHINE = Machine(
    name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=400e9, bandwidth=20e9, power_watts=31.0, power_source="stated in a test"
)
RECIPE, _ = load_recipe("nordic")


def options(seconds, tokens, size=None):
    return serving_options(RECIPE, size or SizeSettings(), MACHINE, 4096, seconds, GENERAL, tokens)


@settings(max_examples=20, deadline=None)
@given(st.floats(300, 1e6), st.floats(0.001, 0.9))
def test_the_best_is_the_best_of_all_that_leave_time_to_train(seconds, share):
    smallest = min(candidates(RECIPE.model.pattern, SizeSettings(), vocabulary_size=4096, context=256), key=num_active_parameters)
    tokens = share * seconds * 3 * tokens_per_second(smallest, 256, MACHINE)
    best = options(seconds, tokens)[0]
    losses = []
    for config in candidates(RECIPE.model.pattern, SizeSettings(), vocabulary_size=4096, context=256):
        speed = tokens_per_second(config, 256, MACHINE)
        left = seconds - tokens / (3 * speed)
        if left >= 25:
            losses.append(GENERAL.constants.loss(point_of(config, left * speed * usual_bytes_per_token(4096))))
    assert best.loss <= min(losses) * (1 + ALIKE) and min(item.loss for item in options(seconds, tokens)) == min(losses)
    assert best.training_seconds + best.serving_seconds == pytest.approx(seconds)


def test_the_more_is_served_the_smaller_the_model():
    sizes = [num_active_parameters(options(36_000, tokens)[0].config) for tokens in (1.0, 1e7, 1e8, 1e9)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    assert options(36_000, 1.0)[0].config == best_shape(RECIPE, SizeSettings(), MACHINE, 4096, 36_000, GENERAL), "serving nothing changes nothing"


def test_a_served_token_costs_a_third_of_a_trained_one():
    best = options(3600, 1e7)[0]
    assert best.serving_seconds == pytest.approx(1e7 / tokens_per_second(best.config, 256, MACHINE) / 3)


def test_a_model_that_does_not_fit_into_memory_is_not_served():
    small = MACHINE.model_copy(update={"memory_bytes": 64 << 20})
    free = serving_options(RECIPE, SizeSettings(), MACHINE, 4096, 1e5, GENERAL, 1e6)
    bound = serving_options(RECIPE, SizeSettings(), small, 4096, 1e5, GENERAL, 1e6)
    assert {one.config for one in bound} < {one.config for one in free}
    assert all(training_memory(one.config, 1, 256) <= MEMORY_SHARE * small.memory_bytes for one in bound)


def test_settings_of_a_shape_make_it_again():
    """Finer experts among them: where top_k is given, nothing but the ratio narrows them."""
    ladder, given = ((192, 3), (1280, 20), (2048, 32)), {"vocabulary_size": 16384, "context": 256}
    dense = load_recipe("nordic", ["model.pattern.ffn=dense"])[0].model.pattern
    shapes = [config for pattern in (RECIPE.model.pattern, dense) for config in candidates(pattern, SizeSettings(), ladder=ladder, **given)]
    shapes += finer(RECIPE.model.pattern, SizeSettings(), ladder, **given)
    assert {top_k_of(config) for config in shapes} == {0, 2, 4, 8}
    for config in shapes:
        kind = ["model.pattern.ffn=dense"] * (top_k_of(config) == 0)
        assert published(load_recipe("nordic", [*kind, *size_settings(config)])[0].model, 256) == config


def test_what_cannot_be_is_one_sentence():
    with pytest.raises(RecipeError, match=r"serving 1e\+15 tokens takes .* Give a larger --budget or fewer --serve-tokens"):
        options(3600, 1e15)
    with pytest.raises(RecipeError, match="--serve-tokens many is not a number of tokens"):
        parse_tokens("many")
    with pytest.raises(RecipeError, match="Give --budget as time, energy or money"):
        preview(RECIPE.model_copy(update={"budget": "5Mtokens"}), (), 1e6)
    assert [parse_tokens(text) for text in ("5e9", "200M", "1T", "3Gtokens")] == [5e9, 200e6, 1e12, 3e9]
