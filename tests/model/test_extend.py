"""Interpolated positions are those of transformers and of the papers' closed forms, and change nothing where nothing is far."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hagane.errors import RecipeError
from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, LatentConfig, LayerConfig, ModelConfig, RopeConfig
from hagane.model.extend import extended
from hagane.model.rope import frequencies, rotation

CONTEXT = 64


def model(*mixers):
    return ModelConfig(vocabulary_size=31, width=16, layers=tuple(LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=16)) for mixer in mixers), context=CONTEXT)


def attention(head_dim=16, theta=1e4, **settings):
    return AttentionConfig(num_heads=2, num_kv_heads=1, head_dim=head_dim, rope=RopeConfig(theta=theta), **settings)


def rope_of(config, layer=0):
    return config.layers[layer].mixer.rope


@pytest.mark.parametrize(("method", "factor"), [("linear", 8.0), ("linear", 2.5), ("ntk", 8.0), ("ntk", 3.0), ("yarn", 8.0), ("yarn", 2.0), ("yarn", 32.0)])
@pytest.mark.parametrize(("head_dim", "theta"), [(16, 1e4), (64, 5e5)])
def test_frequencies_are_those_of_transformers(method, factor, head_dim, theta):
    rope_utils, transformers = pytest.importorskip("transformers.modeling_rope_utils"), pytest.importorskip("transformers")
    rope = rope_of(extended(model(attention(head_dim, theta)), factor, method))
    settings = {"rope_type": {"ntk": "dynamic"}.get(method, method), "rope_theta": theta, "factor": factor}
    settings |= {"original_max_position_embeddings": CONTEXT} if method == "yarn" else {}
    heads = {"hidden_size": 2 * head_dim, "num_attention_heads": 2, "head_dim": head_dim}
    theirs = transformers.LlamaConfig(**heads, max_position_embeddings=CONTEXT, rope_parameters=settings)
    # dynamic stretches the base by factor * L / context - (factor - 1): by `factor` at this length L, and by another number at every other one
    length = torch.tensor(CONTEXT * (2 * factor - 1) / factor) if method == "ntk" else None
    wanted_R, scale = rope_utils.ROPE_INIT_FUNCTIONS[settings["rope_type"]](theirs, seq_len=length)
    assert_close(frequencies(head_dim, rope), wanted_R, rtol=2e-6, atol=0)
    cosine, sine = rotation(torch.tensor([[0, 5]]), head_dim, rope)
    assert_close(cosine[0, 0], torch.full((head_dim // 2,), scale))
    assert_close(sine[0, 1], (5 * wanted_R).sin() * scale, rtol=1e-4, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([8, 16, 64, 128]), st.floats(1e3, 1e6), st.floats(1.5, 64))
def test_the_slowest_pair_turns_slower_by_the_factor_and_ntk_leaves_the_fastest(head_dim, theta, factor):
    plain_R = frequencies(head_dim, RopeConfig(theta=theta))
    for method in ("linear", "ntk", "yarn"):
        scaled_R = frequencies(head_dim, rope_of(extended(model(attention(head_dim, theta)), factor, method)))
        assert bool((scaled_R <= plain_R * (1 + 1e-6)).all()) and bool((scaled_R >= plain_R / factor * (1 - 1e-4)).all())
        if method != "yarn":
            assert scaled_R[-1] == pytest.approx(float(plain_R[-1]) / factor, rel=1e-4)
        if method == "ntk":
            assert scaled_R[0] == plain_R[0]


def test_extending_twice_is_extending_by_the_product():
    for method in ("linear", "ntk", "yarn"):
        once, twice = extended(model(attention()), 8.0, method), extended(extended(model(attention()), 4.0, method), 2.0, method)
        assert once.context == twice.context == 8 * CONTEXT
        assert_close(frequencies(16, rope_of(once)), frequencies(16, rope_of(twice)))
    with pytest.raises(RecipeError, match=r"extend\.method = 'linear', but .* by 'yarn'"):
        extended(extended(model(attention()), 4.0, "yarn"), 2.0, "linear")
    with pytest.raises(RecipeError, match="2 dimensions are one pair"):
        extended(model(attention(head_dim=16, partial_rotary=2)), 4.0, "ntk")


def test_latent_attention_sharpens_whole_scores():
    mixer = LatentConfig(num_heads=2, kv_rank=8, nope_dim=8, rope_dim=4, value_dim=8)
    yarn = rope_of(extended(model(mixer), 8.0, "yarn")).yarn
    assert yarn.rotation_factor == 1 and yarn.score_factor == pytest.approx((0.1 * math.log(8) + 1) ** 2)


def test_layers_without_far_positions_stay_as_they_are():
    delta = DeltaConfig(num_key_heads=2, num_value_heads=2, key_dim=8, value_dim=8)
    near, silent = attention(window=CONTEXT), attention().model_copy(update={"rope": None})
    config = extended(model(near, silent, delta), 8.0, "yarn")
    assert config.layers == model(near, silent, delta).layers and config.context == 8 * CONTEXT
    mixed = extended(model(near, attention(), delta), 8.0, "yarn")
    assert rope_of(mixed, 0) == rope_of(mixed, 1) != rope_of(config, 0) and rope_of(mixed, 2) is None


def test_modules_that_predict_further_tokens_turn_as_the_layers_do():
    config = model(attention())
    config = extended(config.model_copy(update={"mtp_layers": config.layers}), 8.0, "linear")
    assert config.mtp_layers == config.layers and rope_of(config).linear == 8


def test_positions_are_interpolated_in_one_way():
    with pytest.raises(ValueError, match="in one way"):
        RopeConfig(linear=2.0, yarn=rope_of(extended(model(attention()), 8.0, "yarn")).yarn)
