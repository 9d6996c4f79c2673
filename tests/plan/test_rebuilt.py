"""The rebuilt systems as recipes: the fictional ones at the size they are named by, on a host, on the hardware they name; all of them small."""

import re
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
SYSTEMS = {"llm-jp-4-8b": "llama", "llm-jp-4-32b-a3b": "qwen3_moe", "ax-k1": "axk1", **HOST}


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


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_rebuilt_recipe_has_a_layout_and_says_where_its_numbers_are_from(name):
    recipe, text = load_recipe(name)
    assert recipe.published.layout.model_dump(exclude_none=True), "the division of its devices"
    head = text.split("\nname = ")[0]
    silent = [line for line in text.splitlines() if re.match(r"\w+ *= *[\d\[{]", line) and "#" not in line]
    assert not silent or re.search(r"[Nn]umbers? without (a|another) source", head), silent


WIDTHS = {
    "num_heads", "num_kv_heads", "head_dim", "partial_rotary", "num_key_heads", "num_value_heads", "key_dim", "value_dim", "query_rank", "kv_rank", "nope_dim",
    "rope_dim", "hidden", "shared_hidden",
}  # fmt: skip
"""What of a layer goes with the size of the model. Whether it is there at all does not, nor do the numbers of an indexer and a router."""


def mechanism(part):
    """Everything else that a mixer or a feed-forward is told, and the ratios of these widths to each other."""
    values = {name: bool(value) if name in WIDTHS else value for name, value in part.model_dump().items()}
    match part.kind:
        case "attention":
            values["partial_rotary"] = part.rotary_dim / part.head_dim
        case "latent":
            values["rope_dim"] = part.rope_dim / part.nope_dim
        case "delta":
            values["num_value_heads"] = part.num_value_heads / part.num_key_heads
        case "experts":
            values["shared_hidden"] = part.shared_hidden / part.hidden
    return values


def layer_mechanism(layer):
    return {**layer.model_dump(), "mixer": mechanism(layer.mixer), "ffn": mechanism(layer.ffn)}


def mechanisms(config):
    """Everything of a model but its size: each kind of layer in the order in which they first come, modules for further tokens, the rest."""
    kinds = []
    for layer in map(layer_mechanism, config.layers):
        kinds += [layer] if layer not in kinds else []
    rest = config.model_dump(exclude={"vocabulary_size", "width", "layers", "mtp_layers"})
    return {**rest, "embedding_scale": config.embedding_scale != 1.0, "layers": kinds, "mtp_layers": [*map(layer_mechanism, config.mtp_layers)]}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_size_that_a_budget_may_choose_has_every_mechanism_of_the_full_one(name):
    recipe, _ = load_recipe(name)
    full, num_dense = model_of(name), recipe.model.pattern.dense_layers
    for small in candidates(recipe.model.pattern, SizeSettings(), vocabulary_size=4096, context=recipe.train.context):
        assert mechanisms(small) == mechanisms(full) and host_for(small) == SYSTEMS[name], small.width
        assert [layer.ffn for layer in small.layers].index(small.layers[-1].ffn) == num_dense, "as many dense layers before the others"


def test_neurosynth_7_keeps_within_what_its_claim_leaves():
    """768 A100 x 42 days at 40 % of the peak allow 18.1B active parameters for 3.2T tokens."""
    claim = load_claim("neurosynth-7")
    assert 6 * num_active_parameters(model_of("neurosynth-7")) * claim.tokens < 0.4 * claim.full_flops()


def test_neurosynth_9_does_not_fit_on_what_it_names():
    """16 bytes of 12.4T parameters are more than 2,048 A100 hold, whatever the layout."""
    recipe, _ = load_recipe("neurosynth-9")
    with pytest.raises(RecipeError, match=r"175\.92 TB of memory .* take 199\.46 TB .*take 2,816 devices, not 2,048"):
        plan_on(recipe.model_copy(update={"budget": "49d"}), "2048xA100")


@pytest.mark.usefixtures("planned_at_once")
@pytest.mark.parametrize("machine", ["8xH100", "768xA100", "1024xH200", "4608xB200", "16384xH100", "24576xGB300"])
@pytest.mark.parametrize("name", sorted(name for name in shipped_recipes() if model_of(name) is not None))
def test_any_recipe_is_planned_at_once(name, machine):
    recipe, _ = load_recipe(name)
    try:
        plan_on(recipe.model_copy(update={"budget": "42d"}), machine)
    except RecipeError as error:
        assert " devices, not " in str(error) or "no division" in str(error)
