"""Patterns of layers: what a recipe asks for is what the model has, at every width."""

import pytest
from pydantic import ValidationError

from hagane.errors import RecipeError
from hagane.hosts import host_for
from hagane.model.config import DenseConfig, ExpertsConfig, IndexConfig
from hagane.model.count import flops_per_token, num_parameters, num_trained_parameters
from hagane.plan.cost import training_flops_per_token, training_memory
from hagane.plan.shapes import LADDER, candidates, expert_counts, finer, granularity_of, published, shape, shape_key
from hagane.plan.workload import workload
from hagane.recipe.schema import ModelSettings, PatternSettings, Recipe, SizeSettings

GLM = {"ffn": "experts", "num_experts": 16, "top_k": 4, "score": "sigmoid", "balance": "bias", "shared_experts": 1, "dense_layers": 1, "rotary_share": 0.5}
AFMOE = {
    **GLM, "rotary_share": 1.0, "window": 64, "full_positions": False, "attention_gate": "sigmoid", "sandwich_norms": True, "scaled_embedding": True,
    "dense_layers": 2,
}  # fmt: skip

V32 = {**GLM, "rotary_share": 1.0, "mixer": "latent", "query_ratio": 0.5, "index_top_k": 64, "index_share": 0.9}


def made(changes, width=256, num_layers=8, **size):
    return shape(PatternSettings(**changes), SizeSettings(**size), width=width, num_layers=num_layers, vocabulary_size=1024, context=128)


K2 = {**V32, "attention_gate": "sigmoid", "gated_norm_rank": 16}


@pytest.mark.parametrize(("changes", "host"), [(GLM, "glm4_moe"), (AFMOE, "afmoe"), (V32, "deepseek_v32"), (K2, "axk2")])
def test_patterns_of_the_hosts_are_held_by_them_at_every_width(changes, host):
    configs = candidates(PatternSettings(**changes), SizeSettings(), vocabulary_size=1024, context=128)
    assert len(configs) == len(LADDER)
    assert {host_for(config) for config in configs} == {host}
    assert len({shape_key(config, 8, 128, "bfloat16") for config in configs}) == len(configs)


def test_layers_are_what_the_pattern_says():
    config = made(AFMOE)
    windows = [layer.mixer.window for layer in config.layers]
    assert windows == [64, 64, 64, None] * 2
    assert all((layer.mixer.rope is None) == (layer.mixer.window is None) for layer in config.layers)
    assert [type(layer.ffn) for layer in config.layers] == [DenseConfig] * 2 + [ExpertsConfig] * 6
    assert all(layer.post_mixer_norm and layer.post_ffn_norm and layer.mixer.gate == "sigmoid" for layer in config.layers)
    assert config.embedding_scale == 16
    routed = config.layers[-1].ffn
    assert (routed.score, routed.balance, routed.shared_hidden) == ("sigmoid", "bias", routed.hidden)
    assert all(layer.mixer.rotary_dim * 2 == layer.mixer.head_dim for layer in made(GLM).layers)


def test_a_gated_shared_expert_between_layers_of_deltas_is_held_by_qwen3_next():
    pattern = {"ffn": "experts", "num_experts": 8, "shared_experts": 1, "shared_gate": True, "deltas": 3, "attention_gate": "sigmoid", "rotary_share": 0.25}
    config = made(pattern)
    assert all(layer.ffn.shared_gate for layer in config.layers)
    assert host_for(config) == "qwen3_next"


def test_groups_scaling_and_one_norm_are_passed_on():
    config = made({**GLM, "num_groups": 4, "top_groups": 2, "scaling": 2.5, "post_experts_norm": True}, dense_hidden=96, ffn_hidden=40)
    routed = config.layers[-1].ffn
    assert (routed.num_groups, routed.top_groups, routed.scaling, routed.hidden, routed.shared_hidden) == (4, 2, 2.5, 40, 40)
    assert config.layers[0].ffn == DenseConfig(hidden=96)
    assert [layer.post_ffn_norm for layer in config.layers] == [False] + [True] * 7
    assert not any(layer.post_mixer_norm for layer in config.layers)


def test_what_balances_experts_is_passed_on_and_refused_where_nothing_would_use_it():
    routed = made({**GLM, "bias_rate": 0.01, "aux_coefficient": 1e-4, "z_coefficient": 0.0}).layers[-1].ffn
    assert (routed.balance, routed.bias_rate, routed.aux_coefficient, routed.z_coefficient) == ("bias", 0.01, 1e-4, 0.0)
    assert made(GLM).layers[-1].ffn.bias_rate == ExpertsConfig(num_experts=2, top_k=1, hidden=1).bias_rate, "one default for both"
    with pytest.raises(ValidationError, match=r"bias_rate = 0\.01 is of balance = 'bias', but balance = 'loss'"):
        PatternSettings(**{**GLM, "balance": "loss", "bias_rate": 0.01})


def test_an_indexer_is_as_wide_as_what_turns_and_makes_attention_cheap():
    config = made(V32)
    indexers = {layer.mixer.index for layer in config.layers}
    assert indexers == {IndexConfig(num_heads=4, head_dim=32, top_k=64, share=0.9)}
    assert made({**V32, "index_head_dim": 8}).layers[0].mixer.index.head_dim == config.layers[0].mixer.rope_dim == 32
    assert made({**V32, "index_share": 0.0}).layers[0].mixer.index.share is None
    dense, sparse = (workload(made({**V32, "index_share": 0.0, "index_top_k": keys}), 4096) for keys in (4096, 64))
    assert sparse.attention_flops < 0.3 * dense.attention_flops
    assert sparse.num_parameters == dense.num_parameters


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"index_top_k": 8}, "index_top_k = 8 is of latent attention"),
        ({"index_top_k": 8, "mixer": "latent"}, "give a query_ratio"),
        ({"index_share": 0.5}, "index_top_k = 0 asks for none"),
    ],
)
def test_an_indexer_that_cannot_be_is_refused(changes, named):
    with pytest.raises(ValidationError, match=named):
        PatternSettings(**changes)


def test_modules_for_further_tokens_have_the_last_layer_that_sees_the_whole_document():
    assert made({**GLM, "mtp_layers": 2}).mtp_layers == (made(GLM).layers[-1],) * 2
    windowed = made({**AFMOE, "mtp_layers": 1}, num_layers=7)
    assert windowed.layers[-1].mixer.window == 64 and windowed.mtp_layers == (windowed.layers[3],)
    deltas = made({"deltas": 3, "mtp_layers": 1}, num_layers=6)
    assert deltas.layers[-1].mixer.kind == "delta" and deltas.mtp_layers == (deltas.layers[3],)
    assert len({shape_key(made({**GLM, "mtp_layers": count}), 8, 128, "bfloat16") for count in (0, 1, 2)}) == 3


@pytest.mark.parametrize("changes", [GLM, AFMOE, {"deltas": 3}], ids=["glm4_moe", "afmoe", "deltas"])
def test_a_module_counts_as_one_more_layer_in_training_and_not_in_the_model(changes):
    plain, further = made(changes), made({**changes, "mtp_layers": 1})
    assert num_parameters(further) == num_parameters(plain)
    longer = plain.model_copy(update={"layers": (*plain.layers, *further.mtp_layers)})
    extra = 3 * 256 + 2 * 256**2  # norms and projection
    assert num_trained_parameters(further) == num_parameters(longer) + extra
    step, one_more = workload(further, 128), workload(longer, 128)
    assert step.num_parameters == one_more.num_parameters + extra
    assert step.forward_flops == one_more.forward_flops + 2 * (2 * 256**2 + 1024 * 256)
    assert step.forward_flops == pytest.approx(flops_per_token(further, 128, mtp=True))
    assert training_flops_per_token(further, 128) == 3 * flops_per_token(further, 128, mtp=True)
    assert training_memory(further, 8, 128) - training_memory(longer, 8, 128) == 20 * extra


def test_settings_of_modules_that_are_not_there_are_refused():
    assert Recipe(name="x", model={"pattern": {"mtp_layers": 1}}, train={"mtp_coefficient": 0.1}).train.mtp_coefficient == 0.1
    with pytest.raises(ValidationError, match=r"train\.mtp_coefficient = 0\.1 is of multi-token prediction, but model\.pattern\.mtp_layers = 0"):
        Recipe(name="x", train={"mtp_coefficient": 0.1})


def too_few(changes):
    return shape(PatternSettings(**changes), SizeSettings(num_layers=3), width=256, num_layers=8, vocabulary_size=1024, context=128)


def test_a_depth_too_small_for_the_pattern_is_refused_and_a_derived_one_grows():
    assert made(AFMOE, num_layers=2).num_layers == 4
    assert made({**GLM, "dense_layers": 3}, num_layers=2).num_layers == 4
    with pytest.raises(RecipeError, match=r"num_layers = 3 is too few for model\.pattern\.full_every = 4"):
        too_few(AFMOE)
    with pytest.raises(RecipeError, match=r"dense_layers = 3"):
        too_few({**GLM, "dense_layers": 3})


@pytest.mark.parametrize("width", range(33, 128, 5))
def test_heads_of_any_width_can_turn(width):
    for share in (0.01, 0.33, 0.99, 1.0):
        mixer = made({"rotary_share": share}, width=width).layers[0].mixer
        assert mixer.head_dim % 2 == 0 and 2 <= mixer.rotary_dim <= mixer.head_dim
    latent = made({"mixer": "latent", "head_dim": 9, "rope_ratio": 0.9}, width=width).layers[0].mixer
    assert latent.rope_dim % 2 == 0, "the part of a head that does not turn may be odd"


def test_what_a_model_cannot_be_and_a_pattern_does_not_tell_is_one_sentence():
    for field, value, message in (("head_dim", 9, "head_dim 9 must be even"), ("rope_theta", 0.0, "theta: Input should be greater than 0")):
        with pytest.raises(RecipeError, match=f"^model.pattern and model.size contradict each other: {message}") as refused:
            shape(PatternSettings().model_copy(update={field: value}), SizeSettings(), width=256, num_layers=2, vocabulary_size=1024, context=128)
        assert "\n" not in str(refused.value)


def test_a_window_makes_the_cache_of_long_contexts_small_and_attention_cheap():
    whole, windowed = (workload(made({**GLM, "window": window}), 4096) for window in (0, 64))
    assert windowed.cache_bytes == pytest.approx(whole.cache_bytes * (2 + 6 * 64 / 4096) / 8)
    assert windowed.attention_flops < 0.3 * whole.attention_flops
    assert windowed.dense_parameters == whole.dense_parameters


def test_the_key_of_a_plain_shape_is_what_profiles_already_hold():
    config = made({}, width=256, num_layers=2)
    assert shape_key(config, 8, 128, "bfloat16") == "w256l2h4-2x64f672v1024-8x128-bfloat16"
    mixed = shape_key(made(GLM, num_layers=3), 8, 128, "bfloat16")
    assert mixed == "w256l3h4-2x64f672*1+h4-2x64e16k4f352s352*2v1024-8x128-bfloat16"


def test_null_experts_and_bands_are_what_the_pattern_says():
    changes = {"ffn": "experts", "top_k": 4, "null_experts": 6, "mean_experts": 1.5, "entropy_clamp": True, "conditional_entropy_high": 0.8}
    config = made(changes)
    ffn = config.layers[0].ffn
    assert (ffn.num_outputs, ffn.mean_used, ffn.entropy_clamp.conditional_high) == (14, 1.5, 0.8)
    assert host_for(config) == "qwen3_moe"
    assert shape_key(config, 8, 128, "bfloat16") != shape_key(made({**changes, "mean_experts": 2.0}), 8, 128, "bfloat16")
    counted, plain = workload(config, 128), workload(made({"ffn": "experts", "top_k": 2}), 128)
    assert counted.expert_flops == 0.75 * plain.expert_flops and counted.expert_parameters == plain.expert_parameters
    with pytest.raises(RecipeError, match=r"Nearest: qwen3_moe weighs experts by their softmax .* model\.pattern\.score = 'softmax'\."):
        host_for(made({**changes, "score": "sigmoid"}))


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, (4, 8, 16, 32, 64, 128)),
        ({"top_k": 8}, (16, 32, 64, 128, 256, 512)),
        ({"num_groups": 4, "top_groups": 2, "top_k": 4}, (8, 16, 32, 64, 128, 256)),
        ({"num_groups": 4, "top_groups": 1, "top_k": 4}, (16, 32, 64, 128, 256)),
        ({"num_groups": 3, "top_groups": 1, "top_k": 1}, (6,)),  # no power of two is a multiple of three
        ({"num_experts": 12}, (12,)),
    ],
)
def test_a_pattern_that_leaves_the_number_of_experts_open_has_every_possible_one(changes, counts):
    pattern = PatternSettings(ffn="experts", **changes)
    assert expert_counts(pattern) == counts
    configs = candidates(pattern, SizeSettings(), vocabulary_size=1024, context=128)
    assert {config.layers[0].ffn.num_experts for config in configs} == set(counts)
    assert len(configs) == len(LADDER) * len(counts) == len(set(configs))
    assert made({"ffn": "experts", **changes}).layers[0].ffn.num_experts == (8 if 8 in counts else counts[0])


def test_finer_experts_are_as_much_narrower_as_a_token_uses_more_of_them():
    ladder, given = ((768, 12), (1024, 16)), {"vocabulary_size": 1024, "context": 128}
    found = finer(PatternSettings(ffn="experts"), SizeSettings(), ladder, **given)
    assert {(config.width, config.layers[0].ffn.num_experts, config.layers[0].ffn.top_k) for config in found} == {
        (width, top_k * ratio, top_k) for width, _ in ladder for top_k in (4, 8) for ratio in (2, 4, 8, 16, 32, 64)
    }
    for config in found:
        ffn = config.layers[0].ffn
        assert ffn.top_k * ffn.hidden == pytest.approx(8 / 3 * config.width, rel=0.13)  # rounded to 32, from width 1,024 on to 128
        assert granularity_of(config) == pytest.approx(ffn.top_k, rel=0.13)
    assert granularity_of(made({})) == 0
    for given_already in ({"top_k": 2}, {"top_k": 8}, {"null_experts": 2, "mean_experts": 1.0}, {"num_experts": 4}, {"num_experts": 8, "num_groups": 4}):
        assert finer(PatternSettings(ffn="experts", **given_already), SizeSettings(), ladder, **given) == []
    of_eight = finer(PatternSettings(ffn="experts", num_experts=8), SizeSettings(), ladder, **given)
    assert {(config.layers[0].ffn.num_experts, config.layers[0].ffn.top_k) for config in of_eight} == {(8, 4)}


def test_a_size_without_a_number_of_experts_is_not_published():
    sizes = {"width": 256, "num_layers": 4, "vocabulary_size": 1024}
    assert published(ModelSettings(pattern=PatternSettings(ffn="experts"), size=SizeSettings(**sizes)), 128) is None
    assert published(ModelSettings(pattern=PatternSettings(ffn="experts", num_experts=16), size=SizeSettings(**sizes)), 128) is not None
    assert published(ModelSettings(size=SizeSettings(**sizes)), 128) is not None
