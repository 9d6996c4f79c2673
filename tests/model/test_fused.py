"""A decoder whose kernels do what stands between its matrix products says what it says without them, whatever it is made of."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hagane.kernels import delta_step, elementwise
from hagane.model.config import EntropyClamp
from hagane.model.delta import SINGLE_STEPS, Delta
from hagane.model.initial import to_working
from hagane.model.sequence import Sequence

pytestmark = pytest.mark.skipif(not elementwise.serves(torch.device("cpu"), torch.float32), reason="needs g++")
KINDS = {
    "dense": {}, "window": {"kind": "dense", "window": 3}, "experts": {}, "latent": {}, "indexed": {}, "gated": {}, "delta": {}, "sandwich": {"window": 3},
    "null experts": {"kind": "experts", "top_k": 3, "null_experts": 6, "mean_experts": 2.0, "balance": "bias", "aux_coefficient": 0.0},
    "clamp": {"kind": "experts", "entropy_clamp": EntropyClamp()}, "shared": {"kind": "experts", "shared_hidden": 20, "shared_gate": True},
}  # fmt: skip


def pair(tiny, kind, dtype=torch.float32):
    """The same model, written out and fused."""
    plain = tiny(**{"kind": kind, **KINDS[kind]})
    to_working(plain, dtype)
    plain.eval().requires_grad_(False)
    fused = deepcopy(plain)
    fused.fuse()
    return plain, fused


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_decoding_is_the_same(tiny, kind, data):
    plain, fused = pair(tiny, kind)
    rows = data.draw(st.integers(1, 3))
    steps = data.draw(st.lists(st.lists(st.integers(0, SINGLE_STEPS + 2), min_size=rows, max_size=rows).filter(any), min_size=1, max_size=4))
    caches = [model.new_cache(rows, 48) for model in (plain, fused)]
    for number, counts in enumerate(steps):
        if number == 2:  # the first row is given to another text
            for cache in caches:
                cache.length_B[0] = 0
        tokens = torch.randint(0, 61, (rows, max(counts)), generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            one, other = (model(tokens, cache.sequence(counts), cache).hidden_BTD for model, cache in zip((plain, fused), caches, strict=True))
        real = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        assert_close(other[real], one[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_packed_documents_is_the_same(tiny, kind):
    plain, fused = pair(tiny, kind)
    tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(1))
    documents = torch.tensor([[0] * 9 + [1] * 15, [0] * 24])
    with torch.no_grad():
        one, other = (model(tokens, Sequence(torch.arange(24).expand(2, -1), documents)).hidden_BTD for model in (plain, fused))
    assert_close(other, one, atol=1e-5, rtol=1e-5)


def test_a_recurrent_mixer_decodes_by_its_kernel(tiny, monkeypatch):
    """And in bfloat16 differs by no more than its rounding."""
    plain, fused = pair(tiny, "delta", torch.bfloat16)
    called = []
    original = Delta._few_steps
    monkeypatch.setattr(Delta, "_few_steps", lambda *arguments: called.append(1) or original(*arguments))
    with torch.no_grad():
        caches = [model.new_cache(1, 16) for model in (plain, fused)]
        for token in range(6):
            one, other = (model(torch.tensor([[token]]), cache.sequence([1]), cache).hidden_BTD for model, cache in zip((plain, fused), caches, strict=True))
            assert_close(other, one, atol=0.1, rtol=0.05)
    assert len(called) == 6


@given(
    rows=st.integers(1, 3), steps=st.integers(1, 4), key_heads=st.integers(1, 3), group=st.integers(1, 3), key_dim=st.integers(1, 19),
    value_dim=st.integers(1, 19), taps=st.integers(1, 4), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_part_of_wider_rows_is_read_as_its_copy(rows, steps, key_heads, group, key_dim, value_dim, taps, seed):
    generator = torch.Generator().manual_seed(seed)
    heads = key_heads * group
    channels = 2 * key_heads * key_dim + heads * value_dim
    wide = torch.randn(rows, steps, channels + heads * value_dim, generator=generator)
    given_ = [
        torch.randn(*shape, generator=generator)
        for shape in ((rows, steps + taps - 1, channels), (channels, taps), (rows, steps, 2 * heads), (heads,), (heads,))
    ]
    real, weight = (torch.rand(rows, steps, generator=generator) > 0.3).float(), torch.randn(value_dim, generator=generator)
    states = [torch.randn(rows, heads, key_dim, value_dim, generator=torch.Generator().manual_seed(seed)) for _ in range(2)]
    part = wide[..., channels:]
    outs = [delta_step.delta_steps(*given_, real, weight, z, state, 1e-6, 1e-6) for z, state in zip((part, part.contiguous()), states, strict=True)]
    assert torch.equal(*outs)
    assert torch.equal(*states)
