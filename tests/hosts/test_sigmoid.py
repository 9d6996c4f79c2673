"""Hosts of sigmoid experts: what each can hold, and what of a config.json is refused, by field."""

import pytest

from hagane.errors import DataError, RecipeError
from hagane.hosts import HOSTS, host_for
from hagane.model.config import AttentionConfig, DenseConfig, ExpertsConfig, LayerConfig, ModelConfig

PLAIN = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, partial_rotary=4)
WINDOWED = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, qk_norm=True, gate="sigmoid", window=5)
WHOLE = WINDOWED.model_copy(update={"window": None, "rope": None})
DENSE = DenseConfig(hidden=64)
SIGMOID = ExpertsConfig(num_experts=8, top_k=2, hidden=16, score="sigmoid", balance="bias", aux_coefficient=0.0, shared_hidden=16)


def glm(*layers):
    return model([LayerConfig(mixer=mixer, ffn=ffn) for mixer, ffn in layers])


def afmoe(*layers, **settings):
    return model([LayerConfig(mixer=mixer, ffn=ffn, post_mixer_norm=True, post_ffn_norm=True) for mixer, ffn in layers], **settings)


def model(layers, **settings):
    return ModelConfig(vocabulary_size=64, width=32, layers=tuple(layers), context=64, **settings)


def changed(config, **change):
    return config.model_copy(update=change)


GLM = glm((PLAIN, DENSE), (PLAIN, SIGMOID), (PLAIN, SIGMOID))
AFMOE = afmoe((WINDOWED, DENSE), (WINDOWED, SIGMOID), (WHOLE, SIGMOID))


@pytest.mark.parametrize(("config", "name"), [(GLM, "glm4_moe"), (AFMOE, "afmoe"), (changed(AFMOE, embedding_scale=32**0.5), "afmoe")])
def test_the_first_host_that_fits_is_chosen(config, name):
    assert host_for(config) == name


@pytest.mark.parametrize(
    ("host", "config", "reason"),
    [
        ("glm4_moe", glm((PLAIN, DENSE)), "has none"),
        ("glm4_moe", glm((PLAIN, changed(SIGMOID, score="softmax"))), "score = 'sigmoid'"),
        ("glm4_moe", glm((PLAIN, changed(SIGMOID, shared_hidden=0))), "shared experts"),
        ("glm4_moe", glm((PLAIN, changed(SIGMOID, shared_hidden=24))), "as wide as"),
        ("glm4_moe", glm((PLAIN, changed(SIGMOID, shared_gate=True))), "no gate on shared experts"),
        ("glm4_moe", glm((PLAIN, changed(SIGMOID, num_experts=1, top_k=1))), "one expert"),
        ("glm4_moe", glm((PLAIN, SIGMOID), (PLAIN, changed(SIGMOID, top_k=1))), "same experts"),
        ("glm4_moe", glm((PLAIN, SIGMOID), (PLAIN, DENSE)), "layer 0 is routed"),
        ("glm4_moe", glm((PLAIN, DENSE), (PLAIN, DenseConfig(hidden=65)), (PLAIN, SIGMOID)), "same width"),
        ("glm4_moe", glm((PLAIN, SIGMOID), (changed(PLAIN, partial_rotary=2), SIGMOID)), "same part"),
        ("glm4_moe", glm((changed(PLAIN, rope=None, partial_rotary=None), SIGMOID)), "turns"),
        ("glm4_moe", glm((changed(PLAIN, window=4), SIGMOID)), "window"),
        ("glm4_moe", glm((changed(PLAIN, gate="sigmoid"), SIGMOID)), "gate"),
        ("glm4_moe", AFMOE, "same part"),
        ("glm4_moe", changed(GLM, embedding_scale=2.0), "does not scale embeddings"),
        ("afmoe", GLM, "norm after"),
        ("afmoe", afmoe((WINDOWED, changed(SIGMOID, normalise=False))), "normalises"),
        ("afmoe", afmoe((WINDOWED, changed(SIGMOID, num_groups=4, top_groups=2))), "groups"),
        ("afmoe", afmoe((changed(WINDOWED, qk_norm=False), SIGMOID)), "QK-norm"),
        ("afmoe", afmoe((changed(WINDOWED, gate="none"), SIGMOID)), "gate"),
        ("afmoe", afmoe((WHOLE, SIGMOID)), "has windowed layers"),
        ("afmoe", afmoe((WINDOWED, SIGMOID), (changed(WINDOWED, window=6), SIGMOID)), "one width"),
        ("afmoe", afmoe((WINDOWED, SIGMOID), (changed(WHOLE, num_heads=2), SIGMOID)), "same heads"),
        ("afmoe", afmoe((changed(WINDOWED, rope=None), SIGMOID)), "windowed layers"),
        ("afmoe", afmoe((changed(WINDOWED, partial_rotary=4), SIGMOID)), "whole heads"),
        ("afmoe", changed(AFMOE, embedding_scale=3.0), "root of the width"),
    ],
)
def test_a_host_says_why_it_cannot_hold_a_model(host, config, reason):
    assert reason in HOSTS[host].reason(config)


@pytest.mark.parametrize("host", ["llama", "qwen3", "qwen3_moe", "deepseek_v3", "glm4_moe"])
def test_a_scale_of_embeddings_is_refused_by_all_others(host):
    assert "does not scale embeddings" in HOSTS[host].reason(changed(GLM, embedding_scale=2.0))


@pytest.mark.parametrize(
    ("config", "change", "named"),
    [
        (GLM, {"hidden_act": "gelu"}, "hidden_act"),
        (GLM, {"attention_bias": True}, "attention_bias"),
        (GLM, {"n_routed_experts": None}, "n_routed_experts"),
        (GLM, {"n_shared_experts": None}, "n_shared_experts"),
        (GLM, {"num_experts_per_tok": 9}, "top_k 9 is more than num_experts 8"),
        (GLM, {"n_group": 3}, "num_groups 3"),
        (GLM, {"intermediate_size": None}, "intermediate_size"),
        (AFMOE, {"score_func": "softmax"}, "score_func"),
        (AFMOE, {"route_norm": False}, "route_norm"),
        (AFMOE, {"n_group": 2}, "n_group"),
        (AFMOE, {"sliding_window": None}, "sliding_window"),
        (AFMOE, {"layer_types": ["sliding_attention", "linear_attention", "full_attention"]}, "layer_types"),
        (AFMOE, {"layer_types": ["sliding_attention"]}, "layer_types"),
        (AFMOE, {"num_experts": None}, "num_experts"),
    ],
)
def test_a_config_we_cannot_compute_is_one_sentence_that_names_the_field(config, change, named):
    host = HOSTS[host_for(config)]
    with pytest.raises(RecipeError, match=named) as error:
        host.config_from_host({**host.config_to_host(config, {}), **change})
    assert "\n" not in str(error.value)


def test_published_files_leave_out_what_is_usual():
    """layer_types by the interval, and half of each head turned."""
    short = HOSTS["afmoe"].config_to_host(afmoe((WINDOWED, DENSE), (WINDOWED, SIGMOID), (WHOLE, SIGMOID)), {})
    del short["layer_types"]
    assert short["global_attn_every_n_layers"] == 3
    assert HOSTS["afmoe"].config_from_host(short) == AFMOE
    short = HOSTS["glm4_moe"].config_to_host(GLM, {})
    del short["partial_rotary_factor"], short["rope_parameters"]["partial_rotary_factor"]
    assert HOSTS["glm4_moe"].config_from_host(short) == GLM


@pytest.mark.parametrize(("config", "missing"), [(GLM, "e_score_correction_bias"), (AFMOE, "expert_bias")])
def test_a_missing_tensor_is_named(config, missing):
    torch = pytest.importorskip("torch")
    from hagane.model.decoder import Decoder

    weights = HOSTS[host_for(config)].weights
    model = Decoder(config)
    model.init_weights(0)
    tensors = {name: tensor for name, tensor in weights.weights_to_host(model.state_dict(), config) if missing not in name}
    with pytest.raises(DataError, match=missing), torch.no_grad():
        dict(weights.weights_from_host(tensors, config))


@pytest.mark.parametrize("config", [GLM, AFMOE], ids=["glm4_moe", "afmoe"])
def test_sigmoid_experts_balanced_by_a_loss_go_out_with_a_bias_of_zero(config):
    from hagane.model.decoder import Decoder

    layers = tuple(changed(layer, ffn=changed(layer.ffn, balance="loss")) if layer.ffn.kind == "experts" else layer for layer in config.layers)
    model = Decoder(changed(config, layers=layers))
    model.init_weights(0)
    assert not model.selection_biases()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    tensors = dict(HOSTS[host_for(model.config)].weights.weights_to_host(parameters, model.config))
    biases = [tensor for name, tensor in tensors.items() if name.endswith("bias")]
    assert len(biases) == 2 and not any(bias.any() for bias in biases)
