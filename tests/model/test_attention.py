"""Attention against a written-out reference; packed documents, windows and padding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hagane.model.attention import attend
from hagane.model.sequence import PADDING, Sequence, document_mask, slot_mask


def brute_mask(documents, window):
    count = len(documents)
    return [
        [documents[t] == documents[s] and s <= t and (window is None or t - s < window) for s in range(count)] for t in range(count)
    ]  # fmt: skip


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12), st.none() | st.integers(1, 13))
def test_mask_is_causal_within_documents_and_window(documents, window):
    sequence = Sequence(torch.arange(len(documents))[None], torch.tensor([documents], dtype=torch.int32))
    assert document_mask(sequence, window)[0].tolist() == brute_mask(documents, window)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(1, 4), st.none() | st.integers(1, 8))
def test_slot_mask_is_causal_within_the_window(starts, num_tokens, window):
    span = max(starts) + num_tokens
    mask = slot_mask(torch.tensor(starts), num_tokens, span, window)
    for row, start in enumerate(starts):
        for t in range(num_tokens):
            seen = [s <= start + t and (window is None or s > start + t - window) for s in range(span)]
            assert mask[row, t].tolist() == seen


def test_attend_equals_the_formula():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 5, 6), torch.randn(2, 2, 7, 6), torch.randn(2, 2, 7, 6)
    mask = torch.rand(2, 5, 7) < 0.6
    mask[:, :, 0] = True
    result = attend(query, key, value, mask)
    for b in range(2):
        for n in range(4):
            for t in range(5):
                seen = mask[b, t].nonzero()[:, 0]
                score = key[b, n // 2, seen] @ query[b, n, t] / math.sqrt(6)
                assert_close(result[b, n, t], score.softmax(0) @ value[b, n // 2, seen])


def pack(documents, padding):
    tokens = torch.cat([*documents, torch.zeros(padding, dtype=torch.int64)])[None]
    ids = [index for index, document in enumerate(documents) for _ in document] + [PADDING] * padding
    positions = torch.cat([torch.arange(len(document)) for document in documents] + [torch.arange(padding)])
    return tokens, Sequence(positions[None], torch.tensor([ids], dtype=torch.int32))


@pytest.mark.parametrize(
    ("kind", "head_dim"),
    [("dense", 8), ("dense", 6), *((kind, 8) for kind in ("experts", "latent", "indexed", "gated", "delta", "sandwich"))],  # heads of 6 go without the kernel
)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), padding=st.integers(0, 3), window=st.sampled_from([None, 1, 3]), seed=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_packed_documents_equal_separate_ones(tiny, kind, head_dim, lengths, padding, window, seed):
    model = tiny(kind, window=window, head_dim=head_dim)
    torch.manual_seed(seed)
    documents = [torch.randint(0, 61, (length,)) for length in lengths]
    tokens, sequence = pack(documents, padding)
    with torch.no_grad():
        packed = model(tokens, sequence).hidden_BTD[0].split([*lengths, padding])
        for document, hidden in zip(documents, packed, strict=False):
            alone = model(document[None], Sequence.plain(1, len(document))).hidden_BTD[0]
            assert_close(hidden, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["experts", "latent", "indexed", "gated", "delta"])
def test_a_later_token_changes_nothing_before_it(tiny, kind):
    model = tiny(kind)
    tokens = torch.randint(0, 61, (1, 9))
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 61
    with torch.no_grad():
        a, b = (model(x, Sequence.plain(1, 9)).hidden_BTD for x in (tokens, changed))
    assert_close(a[:, :6], b[:, :6], atol=1e-6, rtol=1e-6)
    assert (a[:, 6:] - b[:, 6:]).abs().max() > 1e-2


def test_a_window_forgets(tiny):
    """One windowed layer: a token beyond the window changes nothing, one inside does."""
    model = tiny(window=3, num_layers=1)
    tokens = torch.randint(0, 61, (1, 8))
    outside, inside = tokens.clone(), tokens.clone()
    outside[0, 4] = (outside[0, 4] + 1) % 61
    inside[0, 5] = (inside[0, 5] + 1) % 61
    with torch.no_grad():
        last = [model(x, Sequence.plain(1, 8)).hidden_BTD[0, 7] for x in (tokens, outside, inside)]
    assert torch.equal(last[0], last[1])
    assert not torch.equal(last[0], last[2])


@pytest.mark.parametrize("kind", ["dense", "latent"])
def test_only_relative_positions_matter(tiny, kind):
    model = tiny(kind)
    tokens = torch.randint(0, 61, (1, 8))
    plain = Sequence.plain(1, 8)
    with torch.no_grad():
        a = model(tokens, plain).hidden_BTD
        b = model(tokens, Sequence(plain.position_BT + 100, plain.document_BT)).hidden_BTD
        c = model(tokens, Sequence(plain.position_BT * 2, plain.document_BT)).hidden_BTD
    assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert (a - c).abs().max() > 1e-2
