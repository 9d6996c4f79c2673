"""Every field of a config.json with every wrong value: it is read, or refused in one sentence that names the file and the field."""

import json

import pytest

from hagane.errors import HaganeError
from hagane.hosts import HOSTS
from hagane.hosts.published import read_config
from toy_hosts import CONFIGS

WRONG_KINDS = ("x", -1, [], {}, [None], [[3]])  # no number, truth, text or table of a config.json is one of these
VALUES = (*WRONG_KINDS, None, 0, 3, 0.5, True, 10**9, 1e9, float("inf"), ["x"] * 3)
OLDER = {  # forms of published files that ours are not written in
    "qwen3": {"max_window_layers": 1, "sliding_window": 64, "use_sliding_window": True, "layer_types": None},
    "qwen3_moe": {"num_local_experts": 4, "mlp_only_layers": [1]},
    "qwen3_next": {"layer_types": None},
    "afmoe": {"layer_types": None},
    "glm4_moe": {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": None},
}


def described(host):
    return HOSTS[host].config_to_host(CONFIGS[host], {"eos_token_id": 5, "bos_token_id": 5})


def refused(folder, description):
    """The sentence with which it is refused; None where it is read."""
    path = folder / "config.json"
    path.write_text(json.dumps(description))
    try:
        read_config(folder)
    except HaganeError as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 300 + len(str(path)), str(error)
        return str(error)
    return None


@pytest.mark.parametrize("form", ["written", "older"])
@pytest.mark.parametrize("host", CONFIGS)
def test_a_field_is_read_or_refused_by_name(tmp_path, host, form):
    good = described(host) | (OLDER.get(host, {}) if form == "older" else {})
    assert refused(tmp_path, good) is None
    for field in good:
        for value in VALUES:
            sentence = refused(tmp_path, {**good, field: value})
            if sentence is not None and value in WRONG_KINDS:
                assert field in sentence, (field, value, sentence)
        refused(tmp_path, {name: value for name, value in good.items() if name != field})


@pytest.mark.parametrize("host", CONFIGS)
def test_a_setting_of_positions_is_read_or_refused_by_name(tmp_path, host):
    good = described(host)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0}
    linear = {"rope_type": "linear", "factor": 4.0}
    for settings in (yarn, linear, {**good["rope_parameters"]}):
        for field in settings:
            for value in VALUES:
                sentence = refused(tmp_path, {**good, "rope_parameters": {**settings, field: value}, "rope_scaling": None})
                if sentence is not None and value in WRONG_KINDS:
                    assert field in sentence or "positions of kind" in sentence, (field, value, sentence)


@pytest.mark.parametrize(
    ("host", "change", "message"),
    [
        ("deepseek_v3", {"first_k_dense_replace": None}, "first_k_dense_replace"),
        ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step = 0, and it should be greater than or equal to 1"),
        ("afmoe", {"num_dense_layers": None}, "num_dense_layers = null, and it should be a valid integer"),
        ("llama", {"num_hidden_layers": -1}, "num_hidden_layers = -1, and it should be greater than or equal to 1"),
        ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000, and it should be less than or equal to 2000"),
        ("qwen3", {"layer_types": 3}, "layer_types = 3, and it should be a valid list"),
        ("qwen3", {"layer_types": ["full_attention", "chunked_attention"]}, "layer_types names 'chunked_attention'"),
        ("axk1", {"mlp_layer_types": ["dense", "sprase", "sparse"]}, "mlp_layer_types names 'sprase', which is not supported; it must name dense or sparse"),
        ("qwen3_moe", {"mlp_only_layers": [0, "x"]}, r"mlp_only_layers\[1\] = \"x\""),
        ("llama", {"model_type": []}, "model_type \\[\\] is not supported"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": "x"}}, r"rope_parameters\.factor = \"x\""),
        ("llama", {"rms_norm_eps": "1e-5"}, "rms_norm_eps"),
        ("llama", {"bos_token_id": 320}, "bos_token_id = 320 is beyond vocab_size = 320"),
        ("llama", {"eos_token_id": [5, 400]}, "eos_token_id = 400 is beyond vocab_size"),
        ("afmoe", {"num_experts_per_tok": 0}, "top_k: Input should be greater than 0"),
        ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings"),
    ],
)
def test_the_field_and_what_it_should_be_are_said(tmp_path, host, change, message):
    sentence = refused(tmp_path, described(host) | change)
    with pytest.raises(HaganeError, match=message):
        raise HaganeError(sentence)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"llama"', "{", "", "[" * 100_000], ids=range(7))
def test_what_is_no_table_of_fields_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(HaganeError, match=r"config\.json (is not a table of fields|cannot be read)"):
        read_config(tmp_path)


def test_an_absurd_count_costs_no_memory(tmp_path):
    for host in CONFIGS:
        good = described(host)
        for field in ("num_hidden_layers", "num_nextn_predict_layers", "num_experts", "n_routed_experts"):
            assert field not in good or "less than or equal to" in refused(tmp_path, {**good, field: 10**9})
