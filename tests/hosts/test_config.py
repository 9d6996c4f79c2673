"""The config side of the hosts: what each can hold, what each reads, and that none of it needs torch."""

import re
import subprocess
import sys
import tomllib

import pytest

from hagane.errors import DataError, RecipeError
from hagane.hosts import HOSTS, host_for, host_of
from hagane.hosts.llama.weights import weights_from_host
from hagane.model.config import (
    AttentionConfig,
    DeltaConfig,
    DenseConfig,
    ExpertsConfig,
    IndexConfig,
    LatentConfig,
    LayerConfig,
    ModelConfig,
    RopeConfig,
    YarnConfig,
)
from hagane.model.count import mtp_parts, num_active_parameters, num_parameters
from hagane.plan.shapes import shape
from hagane.recipe.schema import PatternSettings, SizeSettings

MIXER = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8)
LATENT = LatentConfig(num_heads=4, query_rank=12, kv_rank=16, nope_dim=8, rope_dim=4, value_dim=8)
QK = MIXER.model_copy(update={"qk_norm": True})
DENSE = DenseConfig(hidden=64)
SIGMOID = ExpertsConfig(num_experts=4, top_k=2, hidden=16, score="sigmoid", shared_hidden=16, balance="bias")
INDEXED = LATENT.model_copy(update={"index": IndexConfig(num_heads=2, head_dim=8, top_k=4)})
EXPERTS = ExpertsConfig(num_experts=4, top_k=2, hidden=16)
SHARED = EXPERTS.model_copy(update={"shared_hidden": 8, "shared_gate": True})
DELTA = DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=8)
GATED = QK.model_copy(update={"gate": "sigmoid", "partial_rotary": 2})


def model(*layers):
    return ModelConfig(vocabulary_size=64, width=32, layers=tuple(LayerConfig(mixer=mixer, ffn=ffn) for mixer, ffn in layers), context=64)


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([(MIXER, DENSE)] * 2, "llama"),
        ([(QK, DENSE)] * 2, "qwen3"),
        ([(QK.model_copy(update={"window": 8}), DENSE), (QK, DENSE)], "qwen3"),
        ([(QK, EXPERTS)] * 2, "qwen3_moe"),
        ([(QK, DENSE), (QK, EXPERTS)], "qwen3_moe"),
        ([(LATENT, DENSE)] * 2, "deepseek_v3"),
        ([(LATENT, DENSE), (LATENT, SIGMOID)], "deepseek_v3"),
        ([(QK, EXPERTS), (QK, EXPERTS.model_copy(update={"aux_coefficient": 0.0}))], "qwen3_moe"),
        ([(DELTA, DENSE)] * 3 + [(GATED, DENSE)], "qwen3_next"),
        ([(GATED, DENSE)], "qwen3_next"),
        ([(DELTA, SHARED), (GATED, DENSE)], "qwen3_next"),
    ],
)
def test_the_first_host_that_fits_is_chosen(layers, name):
    assert host_for(model(*layers)) == name


@pytest.mark.parametrize(
    ("host", "layers", "reason"),
    [
        ("llama", [(QK, DENSE)], "QK-norm"),
        ("llama", [(MIXER, EXPERTS)], "experts"),
        ("llama", [(MIXER.model_copy(update={"window": 8}), DENSE)], "window"),
        ("llama", [(MIXER, DENSE), (MIXER, DenseConfig(hidden=65))], "layer 1"),
        ("llama", [(MIXER, DENSE), (MIXER.model_copy(update={"rope": RopeConfig(theta=5.0)}), DENSE)], "layer 1"),
        ("llama", [(AttentionConfig(num_heads=5, num_kv_heads=5, head_dim=8), DENSE)], "multiple of the heads"),
        ("llama", [(LATENT, DENSE)], "grouped-query attention only; layer 0 has a mixer of kind latent"),
        ("qwen3_moe", [(QK, EXPERTS), (LATENT, EXPERTS)], "layer 1 has a mixer of kind latent"),
        ("deepseek_v3", [(LATENT, DENSE), (MIXER, DENSE)], "latent attention only; layer 1 has a mixer of kind attention"),
        ("deepseek_v3", [(LATENT, DENSE), (LATENT.model_copy(update={"kv_rank": 17}), DENSE)], "layer 1"),
        ("deepseek_v3", [(LATENT, DENSE), (LATENT, DenseConfig(hidden=65))], "same width"),
        ("deepseek_v3", [(LATENT, EXPERTS)], "softmax"),
        ("deepseek_v3", [(LATENT, SIGMOID), (LATENT, DENSE)], "layer 0 is routed"),
        ("deepseek_v3", [(LATENT, SIGMOID), (LATENT, SIGMOID.model_copy(update={"top_k": 1}))], "same experts"),
        ("deepseek_v3", [(LATENT, SIGMOID.model_copy(update={"shared_hidden": 24}))], "shared_hidden 24 is not a multiple of 16"),
        ("deepseek_v3", [(LATENT, SIGMOID.model_copy(update={"shared_hidden": 0}))], "shared_hidden 0"),
        ("deepseek_v3", [(LATENT, SIGMOID.model_copy(update={"shared_gate": True}))], "no gate"),
        ("deepseek_v3", [(LATENT, SIGMOID.model_copy(update={"num_experts": 1, "top_k": 1}))], "one expert"),
        ("axk1", [(LATENT, SIGMOID)], "norm after the experts and nowhere else after a mixer or feed-forward; layer 0"),
        ("axk1", [(LATENT.model_copy(update={"query_rank": None}), SIGMOID)], "query_rank"),
        ("axk2", [(LATENT, SIGMOID)], "by an indexer; this model has none"),
        ("axk2", [(INDEXED, SIGMOID)], "an output gate on attention; this model has none"),
        ("axk2", [(INDEXED.model_copy(update={"gate": "sigmoid"}), SIGMOID)], "before mixers and experts, and on no others; layer 0"),
        ("deepseek_v32", [(INDEXED.model_copy(update={"gate": "sigmoid"}), SIGMOID)], "has no output gate on attention"),
        ("qwen3", [(MIXER, DENSE)], "always has QK-norm"),
        ("qwen3", [(QK, EXPERTS)], "experts"),
        ("qwen3", [(QK.model_copy(update={"window": w}), DENSE) for w in (8, 9)], "one width"),
        ("qwen3_moe", [(QK, DENSE)], "has none"),
        ("qwen3_moe", [(QK, EXPERTS.model_copy(update={"balance": "bias"}))], "selection bias"),
        ("qwen3_moe", [(QK, EXPERTS.model_copy(update={"score": "sigmoid"}))], "sigmoid"),
        ("qwen3_moe", [(QK, EXPERTS.model_copy(update={"num_groups": 2}))], "groups"),
        ("qwen3_moe", [(QK, EXPERTS.model_copy(update={"scaling": 2.5}))], "scaling"),
        ("qwen3_moe", [(QK, EXPERTS.model_copy(update={"shared_hidden": 8}))], "shared"),
        ("qwen3", [(QK.model_copy(update={"gate": "sigmoid"}), DENSE)], "gate"),
        ("qwen3", [(QK.model_copy(update={"rope": None}), DENSE)], "whole heads"),
        ("llama", [(MIXER.model_copy(update={"partial_rotary": 4}), DENSE)], "whole heads"),
        ("qwen3_moe", [(QK.model_copy(update={"window": 8}), EXPERTS)], "window"),
        ("qwen3_moe", [(MIXER, EXPERTS)], "QK-norm"),
        ("qwen3_moe", [(QK, EXPERTS), (QK, EXPERTS.model_copy(update={"top_k": 1}))], "same experts"),
        ("qwen3_moe", [(QK, EXPERTS), (QK, DENSE), (QK, DenseConfig(hidden=65))], "same width"),
        ("qwen3", [(QK, DENSE), (DELTA, DENSE)], "layer 1 has a mixer of kind delta"),
        ("qwen3_next", [(DELTA, DENSE)], "has none"),
        ("qwen3_next", [(QK, DENSE)], "output gate"),
        ("qwen3_next", [(GATED.model_copy(update={"qk_norm": False}), DENSE)], "QK-norm"),
        ("qwen3_next", [(GATED.model_copy(update={"window": 8}), DENSE)], "window"),
        ("qwen3_next", [(GATED.model_copy(update={"rope": None, "partial_rotary": None}), DENSE)], "turns none"),
        ("qwen3_next", [(GATED, DENSE), (DELTA, DENSE), (DELTA.model_copy(update={"taps": 3}), DENSE)], "same shape"),
        ("qwen3_next", [(GATED, DENSE), (GATED.model_copy(update={"num_kv_heads": 1}), DENSE)], "same shape"),
        ("qwen3_next", [(GATED, DENSE), (DELTA, DenseConfig(hidden=65))], "same width"),
        ("qwen3_next", [(GATED, EXPERTS)], "gated shared expert"),
        ("qwen3_next", [(GATED, SHARED.model_copy(update={"shared_gate": False}))], "gated shared expert"),
        ("qwen3_next", [(GATED, SHARED.model_copy(update={"balance": "bias"}))], "selection bias"),
        ("qwen3_next", [(GATED, SHARED.model_copy(update={"score": "sigmoid"}))], "softmax alone"),
        ("qwen3_next", [(GATED, SHARED), (DELTA, SHARED.model_copy(update={"shared_hidden": 9}))], "same experts"),
    ],
)
def test_a_host_says_why_it_cannot_hold_a_model(host, layers, reason):
    assert reason in HOSTS[host].can_hold(model(*layers))


@pytest.mark.parametrize(("host", "mixer", "ffn"), [("llama", MIXER, DENSE), ("qwen3", QK, DENSE), ("qwen3_moe", QK, EXPERTS)])
@pytest.mark.parametrize("norm", ["post_mixer_norm", "post_ffn_norm"])
def test_norms_after_mixer_and_feed_forward_are_refused_by_plain_hosts(host, mixer, ffn, norm):
    plain = model((mixer, ffn))
    changed = plain.model_copy(update={"layers": (plain.layers[0].model_copy(update={norm: True}),)})
    assert HOSTS[host].can_hold(plain) is None
    assert "no norm after" in HOSTS[host].can_hold(changed)


BIASED = EXPERTS.model_copy(update={"balance": "bias"})


@pytest.mark.parametrize(
    ("layers", "reason", "changes"),
    [
        ([(QK, BIASED)], "qwen3_moe has no selection bias", ["balance = 'loss'"]),
        ([(MIXER, BIASED)], "qwen3_moe has no selection bias", ["balance = 'loss'", "qk_norm = true"]),
        ([(DELTA, EXPERTS)] * 3 + [(QK, EXPERTS)], "qwen3_next", ["shared_experts = 1", "shared_gate = true", "attention_gate = 'sigmoid'"]),
        ([(GATED.model_copy(update={"window": 8}), DENSE)] * 2, "qwen3_next has no sliding window", ["window = 0"]),
        ([(LATENT, SIGMOID.model_copy(update={"shared_hidden": 0}))], "deepseek_v3 has shared experts", ["shared_experts = 1"]),
        ([(DELTA, DENSE)] * 3 + [(LATENT, SIGMOID)], "deepseek_v3 has latent attention only; layer 0 has a mixer of kind delta", []),
    ],
)
def test_of_a_model_nobody_can_hold_the_nearest_host_and_the_way_to_it_are_said(layers, reason, changes):
    with pytest.raises(RecipeError) as refused:
        host_for(model(*layers))
    sentence = str(refused.value)
    assert f"Nearest: {reason}" in sentence and len(sentence) < 320 and "\n" not in sentence
    assert sentence.count("model.pattern.") == len(changes) and all(f"model.pattern.{change}" in sentence for change in changes)
    assert len(refused.value.__notes__) == len(HOSTS) and all(note.startswith(name) for note, name in zip(refused.value.__notes__, HOSTS))


def test_a_model_that_is_near_to_no_host_is_said_to_be():
    latent = LatentConfig.model_validate({**LATENT.model_dump(), "gate": "sigmoid"})
    layers = tuple(LayerConfig(mixer=mixer, ffn=BIASED, post_mixer_norm=True, mixer_norm_rank=4) for mixer in (DELTA, latent))
    with pytest.raises(RecipeError, match=r"None is near; begin with a shipped recipe \(`hagane recipe list`\)\."):
        host_for(model((QK, DENSE)).model_copy(update={"layers": layers}))


def test_settings_that_are_said_to_help_do():
    pattern = {"ffn": "experts", "balance": "bias", "score": "sigmoid", "sandwich_norms": True, "rotary_share": 0.5}
    with pytest.raises(RecipeError, match="It could with") as refused:
        host_for(made(pattern))
    changes = re.findall(r"model\.pattern\.(\w+) = (\S+?)(?:\.$|\s)", str(refused.value))
    assert changes
    host_for(made({**pattern, **{name: tomllib.loads(f"x = {value}")["x"] for name, value in changes}}))


def made(pattern):
    return shape(PatternSettings(**pattern), SizeSettings(), width=256, num_layers=4, vocabulary_size=1024, context=128)


QWEN3_30B_A3B = {
    "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643, "decoder_sparse_step": 1,
    "eos_token_id": 151643, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 6144,
    "max_position_embeddings": 32768, "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768,
    "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
    "num_key_value_heads": 4, "output_router_logits": False, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001, "sliding_window": None, "tie_word_embeddings": False, "use_cache": True, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip


def test_a_published_config_in_the_older_form_is_read():
    config = host_of(QWEN3_30B_A3B).config_from_host(QWEN3_30B_A3B)
    assert config.layers[0].mixer.rope.theta == 1e6
    assert num_parameters(config) == 30_532_122_624  # its model card: 30.5B, 3.3B activated
    assert num_active_parameters(config) == 3_353_032_704
    again = HOSTS["qwen3_moe"].config_to_host(config, {"eos_token_id": 151643})
    assert host_of(again).config_from_host(again) == config


DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1,
    "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8,
    "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "topk_group": 4, "topk_method": "noaux_tc", "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn",
    },
    "rope_theta": 10000, "tie_word_embeddings": False, "v_head_dim": 128, "vocab_size": 129280,
}  # fmt: skip


def test_deepseek_v3_as_published_is_read_and_written_back():
    config = host_of(DEEPSEEK_V3).config_from_host(DEEPSEEK_V3)
    rope = RopeConfig(theta=10000, yarn=YarnConfig(factor=40, original_context=4096, mscale=1.0, mscale_all_dim=1.0))
    assert config.layers[60].mixer == LatentConfig(num_heads=128, query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128, rope=rope)
    assert round(num_parameters(config) / 1e8) == 6710  # its model card: 671B, 37B activated
    assert round(num_active_parameters(config) / 1e8) == 376  # 37.6B with embedding and head
    longer = config.model_copy(update={"layers": config.layers + config.layers[-1:]})
    assert config.mtp_layers == config.layers[-1:]
    assert sum(mtp_parts(config).values()) == num_parameters(longer) - num_parameters(config) + 2 * 7168**2 + 3 * 7168
    again = HOSTS["deepseek_v3"].config_to_host(config, {})
    assert host_of(again).config_from_host(again) == config
    assert again["rope_scaling"] == {**DEEPSEEK_V3["rope_scaling"], "rope_type": "yarn"}


def test_deepseek_v32_is_deepseek_v3_with_an_indexer():
    index = {"index_head_dim": 128, "index_n_heads": 64, "index_topk": 2048}
    published = {**DEEPSEEK_V3, "model_type": "deepseek_v32", "architectures": ["DeepseekV32ForCausalLM"], **index}
    config, dense = host_of(published).config_from_host(published), host_of(DEEPSEEK_V3).config_from_host(DEEPSEEK_V3)
    indexer = 1536 * 64 * 128 + 7168 * (128 + 64) + 2 * 128
    assert num_parameters(config) - num_parameters(dense) == 61 * indexer
    again = HOSTS["deepseek_v32"].config_to_host(config, {})
    assert host_of(again).config_from_host(again) == config
    assert again["mlp_layer_types"] == ["dense"] * 3 + ["sparse"] * 58
    assert HOSTS["deepseek_v3"].reason(config) == "deepseek_v3 has no indexer that chooses keys"
    assert HOSTS["deepseek_v32"].reason(dense) == "deepseek_v32 chooses the keys of every query by an indexer; this model has none"
    for change, named in (({"index_topk": None}, "index_topk"), ({"index_head_dim": 32}, "head_dim 32"), ({"layer_types": ["full_attention"]}, "layer_types")):
        with pytest.raises(RecipeError, match=named):
            host_of(published).config_from_host({**published, **change})


QWEN3_NEXT_80B_A3B = {
    "architectures": ["Qwen3NextForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643, "decoder_sparse_step": 1,
    "eos_token_id": 151645, "full_attention_interval": 4, "head_dim": 256, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 5120, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
    "linear_value_head_dim": 128, "max_position_embeddings": 262144, "mlp_only_layers": [], "model_type": "qwen3_next", "moe_intermediate_size": 512,
    "norm_topk_prob": True, "num_attention_heads": 16, "num_experts": 512, "num_experts_per_tok": 10, "num_hidden_layers": 48, "num_key_value_heads": 2,
    "output_router_logits": False, "partial_rotary_factor": 0.25, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000000,
    "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 512, "tie_word_embeddings": False, "use_cache": True, "vocab_size": 151936,
}  # fmt: skip


def test_the_published_qwen3_next_is_read_and_counted():
    config = host_of(QWEN3_NEXT_80B_A3B).config_from_host(QWEN3_NEXT_80B_A3B)
    assert [layer.mixer.kind for layer in config.layers[:5]] == ["delta", "delta", "delta", "attention", "delta"]
    assert (config.layers[3].mixer.rotary_dim, config.layers[3].mixer.gate) == (64, "sigmoid")
    assert num_parameters(config) == 79_674_391_296  # of transformers' model built on the meta device; its name says 80B, 3B activated
    assert num_active_parameters(config) == 3_874_929_408  # embedding and head, 0.6B, included
    again = HOSTS["qwen3_next"].config_to_host(config, {"eos_token_id": 151645})
    assert {name: again[name] for name in QWEN3_NEXT_80B_A3B if name not in ("intermediate_size", "rope_scaling", "bos_token_id")}.items() <= (
        QWEN3_NEXT_80B_A3B.items()
    )
    assert host_of(again).config_from_host(again) == config


def test_the_order_of_layers_is_given_both_ways_where_it_is_regular():
    regular, other = (model(*[(DELTA if letter == "d" else GATED, DENSE) for letter in order]) for order in ("dddadddad", "daad"))
    written = [HOSTS["qwen3_next"].config_to_host(config, {}) for config in (regular, other)]
    assert written[0]["full_attention_interval"] == 4 and "full_attention_interval" not in written[1]
    for config, host_json in zip((regular, other), written, strict=True):
        assert host_of(host_json).config_from_host(host_json) == config
    older = {name: value for name, value in written[0].items() if name not in ("layer_types", "rope_parameters")}  # as it was before transformers 5
    assert host_of(older).config_from_host(older) == regular


@pytest.mark.parametrize("head_dim", range(2, 130, 2))
def test_the_share_of_a_head_that_turns_comes_back_exactly(head_dim):
    for rotary_dim in range(2, head_dim + 1, 2):
        mixer = GATED.model_copy(update={"head_dim": head_dim, "partial_rotary": rotary_dim})
        host_json = HOSTS["qwen3_next"].config_to_host(model((mixer, DENSE)), {})
        assert host_of(host_json).config_from_host(host_json).layers[0].mixer.rotary_dim == rotary_dim


@pytest.mark.parametrize(
    ("change", "named"),
    [({"rope_interleave": False}, "rope_interleave"), ({"kv_lora_rank": None}, "kv_lora_rank"), ({"num_key_value_heads": 8}, "num_key_value_heads"),
     ({"scoring_func": "softmax"}, "scoring_func"), ({"moe_layer_freq": 2}, "moe_layer_freq"), ({"n_shared_experts": None}, "n_shared_experts")],
)
def test_a_deepseek_v3_we_cannot_compute_is_refused_by_field(change, named):
    with pytest.raises(RecipeError, match=named):
        HOSTS["deepseek_v3"].config_from_host({**DEEPSEEK_V3, **change})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layer_types": ["linear_attention"]}, "layer_types"),
        ({"layer_types": ["mamba"] * 4}, "layer_types"),
        ({"linear_num_key_heads": None}, "linear_num_key"),
    ],
)
def test_a_qwen3_next_we_cannot_compute_is_refused_by_field(change, named):
    host_json = HOSTS["qwen3_next"].config_to_host(model(*[(DELTA, DENSE)] * 3, (GATED, DENSE)), {}) | change
    with pytest.raises(RecipeError, match=named):
        host_of(host_json).config_from_host(host_json)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "llama3"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 1.5}}, "attention_factor"),
        ({"rope_scaling": {"type": "yarn"}}, "factor"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"moe_intermediate_size": None}, "moe_intermediate_size"),
    ],
)
def test_a_config_we_cannot_compute_is_refused_by_field(change, named):
    host_json = {**QWEN3_30B_A3B, **change}
    with pytest.raises(RecipeError, match=named):
        host_of(host_json).config_from_host(host_json)


def test_axk1_reads_either_way_of_saying_which_layers_are_dense():
    published = {**DEEPSEEK_V3, "model_type": "axk1", "first_k_dense_replace": 1}
    config = HOSTS["axk1"].config_from_host(published)
    assert [isinstance(layer.ffn, DenseConfig) for layer in config.layers] == [True] + [False] * 60
    assert [layer.post_ffn_norm for layer in config.layers] == [False] + [True] * 60
    kinds = ["dense"] + ["sparse"] * 60
    assert HOSTS["axk1"].config_from_host({**published, "first_k_dense_replace": None, "mlp_layer_types": kinds}) == config
    with pytest.raises(RecipeError, match="mlp_layer_types"):
        HOSTS["axk1"].config_from_host({**published, "mlp_layer_types": kinds[::-1]})
    with pytest.raises(RecipeError, match="q_lora_rank"):
        HOSTS["axk1"].config_from_host({**published, "q_lora_rank": None})


def test_gates_on_norms_are_held_by_axk2_alone():
    layers = tuple(LayerConfig(mixer=QK, ffn=ffn, mixer_norm_rank=4, ffn_norm_rank=rank) for ffn, rank in ((DENSE, None), (EXPERTS, 4)))
    config = model((QK, DENSE)).model_copy(update={"layers": layers})
    with pytest.raises(RecipeError, match=r"Nearest: qwen3_moe has no gates on its norms\. It could with model\.pattern\.gated_norm_rank = 0\."):
        host_for(config)
    gated = tuple(layer.model_copy(update={"mixer": INDEXED.model_copy(update={"gate": "sigmoid"})}) for layer in layers)
    sigmoid = gated[1].model_copy(update={"ffn": SIGMOID})
    held = config.model_copy(update={"layers": (gated[0], sigmoid)})
    assert host_for(held) == "axk2"
    host_json = HOSTS["axk2"].config_to_host(held, {})
    assert HOSTS["axk2"].config_from_host(host_json) == held
    with pytest.raises(RecipeError, match="gated_norm_rank"):
        HOSTS["axk2"].config_from_host({**host_json, "gated_norm_rank": None})
    uneven = held.model_copy(update={"layers": (gated[0], sigmoid.model_copy(update={"ffn_norm_rank": 5}))})
    assert "layer 1" in HOSTS["axk2"].reason(uneven)


def test_a_missing_tensor_is_named():
    with pytest.raises(DataError, match="embed_tokens"):
        dict(weights_from_host({}, model((MIXER, DENSE))))


def test_the_config_side_needs_no_torch():
    code = "import hagane.hosts, hagane.model.count, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
