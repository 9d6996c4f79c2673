"""Counts agree with the model that is built."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

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
)
from hagane.model.count import batch_flops, cache_bytes, flops_per_token, mean_seen, mixer_counts, num_active_parameters, num_parameters, parts
from hagane.model.decoder import Decoder
from hagane.model.sequence import Sequence


def shape(num_heads, num_kv_heads, head_dim, width, ffn, num_layers, qk_norm):
    mixer = AttentionConfig(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, qk_norm=qk_norm, rope=RopeConfig(theta=5e5))
    layers = (LayerConfig(mixer=mixer, ffn=ffn),) * num_layers
    return ModelConfig(vocabulary_size=196_608, width=width, layers=layers, context=65_536)


LLM_JP_4_8B = shape(32, 8, 128, 4096, DenseConfig(hidden=14_336), 32, False)
LLM_JP_4_32B_A3B = shape(40, 4, 128, 2560, ExpertsConfig(num_experts=128, top_k=8, hidden=960), 32, True)


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [(LLM_JP_4_8B, 8_590_200_832, 8_590_200_832), (LLM_JP_4_32B_A3B, 32_139_028_992, 3_827_476_992)],
    ids=["llm-jp-4-8b", "llm-jp-4-32b-a3b"],
)
def test_published_models_are_counted_exactly(config, total, active):
    assert num_parameters(config) == total
    assert num_active_parameters(config) == active
    built = Decoder(config, device="meta")
    assert sum(parameter.numel() for parameter in built.parameters()) == total


dense = st.builds(DenseConfig, hidden=st.integers(1, 30))
experts = st.integers(1, 8).flatmap(lambda count: st.builds(ExpertsConfig, num_experts=st.just(count), top_k=st.integers(1, count), hidden=st.integers(1, 12)))
shared = st.sampled_from([{}, {"shared_hidden": 7}, {"shared_hidden": 7, "shared_gate": True}])
experts = st.builds(lambda ffn, change: ffn.model_copy(update=change), experts, shared)
mixers = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.booleans(), st.none() | st.integers(1, 9)).map(
    lambda t: AttentionConfig(num_heads=t[0] * t[1], num_kv_heads=t[0], head_dim=2 * t[2], qk_norm=t[3], window=t[4])
)
changes = st.sampled_from([{}, {"gate": "sigmoid"}, {"partial_rotary": 2}, {"rope": None}])
mixers = st.builds(lambda mixer, change: mixer.model_copy(update=change), mixers, changes)
latents = st.builds(
    LatentConfig,
    num_heads=st.integers(1, 3),
    query_rank=st.none() | st.integers(1, 9),
    kv_rank=st.integers(1, 9),
    nope_dim=st.integers(1, 5),
    rope_dim=st.sampled_from([2, 4]),
    value_dim=st.integers(1, 5),
)
indexers = st.builds(IndexConfig, num_heads=st.integers(1, 3), head_dim=st.integers(4, 7), top_k=st.integers(1, 9), share=st.none() | st.just(0.5))
indexed = st.builds(
    lambda mixer, index, gate: mixer.model_copy(update={"query_rank": 6, "index": index, "gate": gate}),
    latents, st.none() | indexers, st.sampled_from(["none", "sigmoid"]),
)  # fmt: skip
deltas = st.tuples(*[st.integers(1, 3)] * 5).map(
    lambda t: DeltaConfig(num_key_heads=t[0], num_value_heads=t[0] * t[1], key_dim=t[2], value_dim=t[3], taps=1 + t[4])
)
ranks = st.none() | st.integers(1, 4)
layers = st.builds(
    LayerConfig, mixer=mixers | latents | indexed | deltas, ffn=dense | experts, post_mixer_norm=st.booleans(), post_ffn_norm=st.booleans(),
    mixer_norm_rank=ranks, ffn_norm_rank=ranks,
)  # fmt: skip
configs = st.builds(
    ModelConfig,
    vocabulary_size=st.integers(1, 50),
    width=st.integers(1, 20),
    layers=st.lists(layers, min_size=1, max_size=3).map(tuple),
    tied=st.booleans(),
    context=st.just(16),
)


@given(configs)
@settings(max_examples=60, deadline=None)
def test_counts_equal_the_built_model(config):
    model = Decoder(config, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters(config)
    assert sum(parts(config).values()) == num_parameters(config)
    cache = Decoder(config).new_cache(rows=3, length=5, dtype=torch.bfloat16)
    assert cache.nbytes == 3 * cache_bytes(config, 5)
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


@given(st.integers(1, 40), st.none() | st.integers(1, 50))
def test_mean_seen_is_the_mean_over_the_document(context, window):
    assert mean_seen(context, window) == pytest.approx(sum(min(i, window or context) for i in range(1, context + 1)) / context)


def test_flops_are_two_per_weight_and_seen_key():
    config = shape(2, 1, 4, 8, DenseConfig(hidden=16), 1, False).model_copy(update={"vocabulary_size": 10})
    matrices = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + 10 * 8
    assert flops_per_token(config, 1) == 2 * matrices + 2 * 2 * 8 * 1
    assert flops_per_token(config, 9) == 2 * matrices + 2 * 2 * 8 * 5


@given(configs, st.integers(1, 9), st.integers(1, 12))
def test_a_batch_of_whole_rows_needs_what_its_tokens_do(config, rows, context):
    needed = batch_flops(config, rows * context, rows * context, lambda window: rows * sum(min(i, window or context) for i in range(1, context + 1)))
    assert needed == pytest.approx(rows * context * flops_per_token(config, context))


@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), [(3, 2, 4), (2, 2, 3), (0, 1, 4)])
def test_impossible_attention_is_refused(num_heads, num_kv_heads, head_dim):
    with pytest.raises(ValidationError):
        AttentionConfig(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)


@pytest.mark.parametrize("change", [{"partial_rotary": 3}, {"partial_rotary": 6}, {"partial_rotary": 2, "rope": None}])
def test_impossible_rotation_is_refused(change):
    with pytest.raises(ValidationError, match="partial_rotary"):
        AttentionConfig(num_heads=2, num_kv_heads=1, head_dim=4, **change)


def test_a_gate_is_one_more_projection_of_the_queries_width():
    plain = shape(4, 2, 8, 24, DenseConfig(hidden=16), 2, True)
    layer = plain.layers[0].model_copy(update={"mixer": plain.layers[0].mixer.model_copy(update={"gate": "sigmoid"})})
    gated = plain.model_copy(update={"layers": (layer,) * 2})
    assert num_parameters(gated) - num_parameters(plain) == 2 * 24 * 32
    assert flops_per_token(gated, 5) - flops_per_token(plain, 5) == 2 * 2 * 24 * 32


def test_latent_attention_is_counted_by_hand():
    """A.X K1's: 64 heads of 128 + 64, queries from 1,536 and keys and values from 512."""
    axk1 = LatentConfig(num_heads=64, query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
    counts = mixer_counts(7168, axk1)
    assert counts.matrices == 7168 * 1536 + 1536 * 64 * 192 + 7168 * (512 + 64) + 512 * 64 * 256 + 64 * 128 * 7168
    assert counts.vectors == 1536 + 512
    assert counts.pair_flops == 2 * 64 * (192 + 128)
    assert counts.cached == 576  # 57 times less than keys and values of 64 heads of 128 + 128
    uncompressed = mixer_counts(7168, axk1.model_copy(update={"query_rank": None}))
    assert uncompressed.matrices - counts.matrices == 7168 * 64 * 192 - 7168 * 1536 - 1536 * 64 * 192


V32 = LatentConfig(
    num_heads=128, query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128, index=IndexConfig(num_heads=64, head_dim=128, top_k=2048)
)


def test_an_indexer_is_counted_by_hand():
    """DeepSeek-V3.2's: 64 heads of 128 that choose 2,048 keys."""
    counts, dense = mixer_counts(7168, V32), mixer_counts(7168, V32.model_copy(update={"index": None}))
    assert counts.matrices - dense.matrices == 1536 * 64 * 128 + 7168 * (128 + 64)
    assert counts.vectors - dense.vectors == 2 * 128  # scale and bias of the norm
    assert counts.cached - dense.cached == 128
    assert (counts.pair_flops, counts.reads, counts.index_flops) == (dense.pair_flops, 2048, 2 * 64 * 129)
    model = ModelConfig(vocabulary_size=8, width=7168, layers=(LayerConfig(mixer=V32, ffn=DenseConfig(hidden=8)),), context=131_072)
    plain = model.model_copy(update={"layers": (LayerConfig(mixer=V32.model_copy(update={"index": None}), ffn=DenseConfig(hidden=8)),)})
    read, seen = mean_seen(131_072, 2048), mean_seen(131_072, None)
    more = 2 * (counts.matrices - dense.matrices) + counts.pair_flops * (read - seen) + counts.index_flops * seen
    assert flops_per_token(model, 131_072) - flops_per_token(plain, 131_072) == pytest.approx(more)


def test_flops_of_sparse_attention_are_those_that_torch_counts():
    """In the written-out form, which meets every pair of a row: per token what is counted, per pair too, the unread ones included."""
    mixer = LatentConfig(
        num_heads=3, query_rank=10, kv_rank=12, nope_dim=6, rope_dim=4, value_dim=7, index=IndexConfig(num_heads=5, head_dim=8, top_k=4)
    )
    config = ModelConfig(vocabulary_size=11, width=24, layers=(LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=16)),), context=32)
    model, rows, length = Decoder(config).to(torch.float64), 2, 19  # the kernel, which torch cannot count, does not take these
    model.init_weights(0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(rows, length, dtype=torch.int64), Sequence.plain(rows, length))
    pairs = {4: rows * length * length, None: rows * length * length}
    assert counter.get_total_flops() == batch_flops(config, rows * length, 0, lambda limit: pairs[limit])


def test_flops_of_gates_are_those_that_torch_counts():
    """An output gate on latent attention, and gates on both norms."""
    mixer = LatentConfig(num_heads=3, query_rank=10, kv_rank=12, nope_dim=6, rope_dim=4, value_dim=7, gate="sigmoid")
    layer = LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=16), mixer_norm_rank=3, ffn_norm_rank=5)
    config = ModelConfig(vocabulary_size=11, width=24, layers=(layer,), context=32)
    model, rows, length = Decoder(config).to(torch.float64), 2, 19  # the kernel, which torch cannot count, does not take these
    model.init_weights(0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(rows, length, dtype=torch.int64), Sequence.plain(rows, length))
    assert counter.get_total_flops() == batch_flops(config, rows * length, 0, lambda limit: rows * length * length)


def test_more_choices_than_experts_are_refused():
    with pytest.raises(ValidationError, match="top_k"):
        ExpertsConfig(num_experts=2, top_k=3, hidden=4)
