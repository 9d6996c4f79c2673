"""The fictional systems as recipes: the size they are named by, on a host, on the hardware they name, and small."""

import time

import pytest

from hagane.errors import RecipeError
from hagane.hosts import host_for
from hagane.model.count import num_active_parameters, num_parameters
from hagane.model.decoder import Decoder
from hagane.plan.claim import load_claim
from hagane.plan.cluster import plan_on
from hagane.plan.shapes import candidates, published
from hagane.recipe.load import load_recipe, shipped_recipes
from hagane.recipe.schema import SizeSettings

HOST = {"neurosynth-7": "qwen3_moe", "neurosynth-9": "qwen3_next", "amplimind-xl": "deepseek_v32"}


def model_of(name):
    recipe, _ = load_recipe(name)
    return published(recipe.model, recipe.train.context)


@pytest.mark.parametrize("name", HOST)
def test_a_fictional_system_has_the_size_it_is_named_by(name):
    config = model_of(name)
    assert num_parameters(config) == pytest.approx(load_claim(name).parameters, rel=0.01)
    started = time.process_time()
    built = Decoder(config, device="meta")
    assert time.process_time() - started < 5
    assert sum(parameter.numel() for parameter in built.parameters()) == num_parameters(config)
    assert host_for(config) == HOST[name]


@pytest.mark.parametrize("name", HOST)
def test_a_small_one_has_every_mechanism_of_the_pattern(name):
    def kinds(config):
        return {(layer.mixer.kind, layer.ffn.kind, getattr(layer.ffn, "shared_hidden", 0) > 0) for layer in config.layers}

    pattern = load_recipe(name)[0].model.pattern
    for small in candidates(pattern, SizeSettings(), vocabulary_size=4096, context=256)[:3]:
        assert kinds(small) == kinds(model_of(name)) and host_for(small) == HOST[name]


def test_neurosynth_7_keeps_within_what_its_claim_leaves():
    """768 A100 x 42 days at 40 % of the peak allow 18.1B active parameters for 3.2T tokens."""
    claim = load_claim("neurosynth-7")
    assert 6 * num_active_parameters(model_of("neurosynth-7")) * claim.tokens < 0.4 * claim.full_flops()


def test_neurosynth_9_does_not_fit_on_what_it_names():
    """16 bytes of 12.4T parameters are more than 2,048 A100 hold, whatever the layout."""
    recipe, _ = load_recipe("neurosynth-9")
    with pytest.raises(RecipeError, match=r"175\.92 TB of memory .* take 199\.46 TB .*2,580 devices at least are needed, not 2,048"):
        plan_on(recipe.model_copy(update={"budget": "49d"}), "2048xA100")


@pytest.mark.parametrize("machine", ["8xH100", "768xA100", "1024xH200", "4608xB200", "16384xH100", "24576xGB300"])
@pytest.mark.parametrize("name", sorted(name for name in shipped_recipes() if model_of(name) is not None))
def test_any_recipe_is_planned_at_once(name, machine):
    recipe, _ = load_recipe(name)
    started = time.process_time()
    try:
        plan_on(recipe.model_copy(update={"budget": "42d"}), machine)
    except RecipeError as error:
        assert "are needed" in str(error) or "no division" in str(error)
    assert time.process_time() - started < 1.4  # 0.6 s on an idle core; starting takes 0.3
