"""Gated DeltaNet against the published module; its cache, its initial weights, and what each parameter is kept in."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.testing import assert_close

from hagane.hosts.qwen3_next.delta import delta_to_host
from hagane.model.config import DeltaConfig, DenseConfig, LayerConfig, ModelConfig
from hagane.model.count import cache_bytes, flops_per_token
from hagane.model.decoder import Decoder
from hagane.model.initial import to_working
from hagane.model.sequence import Sequence, View
from hagane.train import muon
from hagane.train.optimizer import decays

WIDTH = 24


def model_of(mixer, num_layers=1):
    return ModelConfig(vocabulary_size=61, width=WIDTH, layers=(LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=8)),) * num_layers, context=64, init_std=0.2)


def built(mixer, num_layers=1, seed=0):
    """Values of order one and memories of a few to many tokens: the norm of what is read divides by its size, and blows up rounding where that is small."""
    model = Decoder(model_of(mixer, num_layers))
    model.init_weights(seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):
                parameter.copy_(torch.linspace(-5, 0, len(parameter)))
            elif parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape)
            elif name.endswith(".conv"):
                parameter *= 5
    return model


def mix(mixer, hidden_BTD, first_BT=None):
    rows, length, _ = hidden_BTD.shape
    first_BT = torch.zeros(rows, length, dtype=torch.int32) if first_BT is None else first_BT
    return mixer(hidden_BTD, View(None, None, torch.ones(rows, length), first_BT, None))[0]


@pytest.mark.parametrize("heads", [(2, 2), (2, 4), (1, 3)])
@pytest.mark.parametrize(("length", "taps"), [(1, 4), (3, 4), (70, 4), (70, 2)])
def test_equals_the_published_module(heads, length, taps):
    published = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    settings = published.Qwen3NextConfig(
        hidden_size=WIDTH, num_hidden_layers=1, layer_types=["linear_attention"], linear_num_key_heads=heads[0], linear_num_value_heads=heads[1],
        linear_key_head_dim=8, linear_value_head_dim=6, linear_conv_kernel_dim=taps,
    )  # fmt: skip
    theirs = published.Qwen3NextGatedDeltaNet(settings, 0)
    mixer = DeltaConfig(num_key_heads=heads[0], num_value_heads=heads[1], key_dim=8, value_dim=6, taps=taps)
    model = built(mixer)
    tensors = {name.removeprefix("model.layers.0.linear_attn."): tensor for name, tensor in delta_to_host(dict(model.state_dict()), mixer, 0)}
    theirs.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("model.")})
    ours = model.layers[0].mixer
    hidden = torch.randn(2, length, WIDTH, requires_grad=True)
    results = mix(ours, hidden), theirs(hidden)
    assert_close(*results, atol=1e-5, rtol=1e-5)
    upstream = torch.randn(results[0].shape)
    assert_close(*(torch.autograd.grad((result * upstream).mean(), hidden)[0] for result in results), atol=1e-5, rtol=1e-5)


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_neither_state_nor_convolution_reaches_over_a_document_start(lengths, seed):
    mixer = built(DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=6), seed=seed).layers[0].mixer
    hidden = torch.randn(1, sum(lengths), WIDTH)
    starts = [sum(lengths[:index]) for index, length in enumerate(lengths) for _ in range(length)]
    packed = mix(mixer, hidden, torch.tensor([starts], dtype=torch.int32))
    for piece, whole in zip(hidden.split(lengths, dim=1), packed.split(lengths, dim=1), strict=True):
        assert_close(whole, mix(mixer, piece), atol=1e-5, rtol=1e-5)


def test_the_cache_is_the_same_for_any_length(tiny, config):
    mixer = config("delta").layers[0].mixer
    held = model_of(mixer, 2)
    model = built(mixer, 2)
    values = 3 * (2 * 2 * 8 + 4 * 6) + 4 * 8 * 6
    for length in (4, 1000):
        assert model.new_cache(3, length).nbytes == 3 * cache_bytes(held, length) == 3 * 2 * 4 * values
        assert model.new_cache(3, length, torch.bfloat16).nbytes == 3 * cache_bytes(held, length)


@pytest.mark.parametrize("piece", [1, 7, 8, 9, 64, 100])
def test_prefill_in_pieces_equals_the_whole(piece):
    """Pieces on both sides of where single steps give way to chunks; one token at a time is decoding."""
    model = built(DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=16, value_dim=16))
    token_BT = torch.randint(0, 61, (2, 150))
    cache = model.new_cache(2, 150)
    with torch.no_grad():
        whole = model(token_BT, Sequence.plain(2, 150)).hidden_BTD
        pieces = [model(part, cache.sequence([part.shape[1]] * 2), cache).hidden_BTD for part in token_BT.split(piece, dim=1)]
    assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_the_decay_begins_as_published():
    model = Decoder(model_of(DeltaConfig(num_key_heads=1, num_value_heads=400, key_dim=2, value_dim=2)))
    model.init_weights(0)
    mixer = model.layers[0].mixer
    rates = mixer.A_log.exp()
    assert 0.01 <= rates.min() < 0.5 and 15.5 < rates.max() <= 16 and rates.mean().item() == pytest.approx(8, rel=0.1)
    assert (mixer.dt_bias == 1).all() and (mixer.output_norm.weight == 1).all()
    assert mixer.conv.std().item() == pytest.approx(0.2, rel=0.1)


def test_vectors_and_convolution_stay_float32_and_go_to_adamw_without_decay(tiny):
    model = tiny("delta")
    names = dict(model.layers[0].mixer.named_parameters(prefix="layers.0.mixer"))
    small = {"layers.0.mixer." + name for name in ("conv", "A_log", "dt_bias", "output_norm.weight")}
    assert {name for name, parameter in names.items() if not decays(name, parameter)} == small
    assert {name for name, parameter in names.items() if not muon.takes(name, parameter)} == small
    to_working(model, torch.bfloat16)
    assert {name for name, parameter in model.layers[0].mixer.named_parameters(prefix="layers.0.mixer") if parameter.dtype == torch.float32} == small


def test_flops_do_not_grow_with_the_context_and_are_counted_by_hand():
    config = model_of(DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=6))
    matrices = WIDTH * (16 + 16 + 24 + 24 + 4 + 4) + 24 * WIDTH + 3 * WIDTH * 8 + 61 * WIDTH
    convolution = 4 * (16 + 16 + 24)
    grams = 8 * (16 + 16)  # a token meets 8.5, counted as 8, of its chunk of 16
    per_head = 8 * (8 + 6) + 8 * 6 + 3 * 8 * 6  # the triangular system, what was written, the state three times
    assert flops_per_token(config, 64) == flops_per_token(config, 1 << 20) == 2 * (matrices + convolution + grams + 4 * per_head)


@pytest.mark.parametrize(("key_dim", "chunk"), [(8, 16), (32, 16), (64, 32), (128, 64), (256, 64)])
def test_chunks_go_with_the_width_of_a_head(key_dim, chunk):
    assert DeltaConfig(num_key_heads=1, num_value_heads=1, key_dim=key_dim, value_dim=8).chunk == chunk


@pytest.mark.slow
def test_compiled_equals_eager(tiny):
    """As `Decoder.compile_parts` does it: the whole graph, static shapes. Slow: the compiler takes half a minute for it."""
    model = tiny("delta", num_layers=2)
    token_BT = torch.randint(0, 61, (1, 20))
    sequence = Sequence(torch.arange(20)[None] % 12, (torch.arange(20)[None] // 12).int())

    def run():
        hidden = model(token_BT, sequence).hidden_BTD
        return hidden, torch.autograd.grad(hidden.square().mean(), list(model.layers.parameters()))

    eager, eager_gradients = run()
    model.layers[0].compile(dynamic=False, fullgraph=True)
    compiled, gradients = run()
    assert_close(compiled, eager, atol=1e-5, rtol=1e-5)
    for a, b in zip(gradients, eager_gradients, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", [{"num_value_heads": 3}, {"taps": 1}, {"key_dim": 0}])
def test_impossible_heads_are_refused(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        DeltaConfig(**{"num_key_heads": 2, "num_value_heads": 4, "key_dim": 8, "value_dim": 6} | change)


def test_a_state_of_another_row_length_is_forgotten(tiny):
    """A row that is reset begins with an empty state, whatever its cache still holds."""
    model = tiny("delta")
    token_BT = torch.randint(0, 61, (1, 5))
    cache = model.new_cache(1, 40)
    with torch.no_grad():
        fresh = model(token_BT, cache.sequence([5]), cache).hidden_BTD
        for _ in range(3):
            cache.reset([0])
            assert_close(model(token_BT, cache.sequence([5]), cache).hidden_BTD, fresh, atol=0, rtol=0)
    assert math.isfinite(fresh.sum().item())
