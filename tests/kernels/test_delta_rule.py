"""The gated delta rule: chunks against single steps in both directions, documents against each other, and the published form."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hagane.kernels.delta_rule import chunked, recurrent, scan

NAMES = ("query", "key", "value", "log_decay", "beta", "state")


def draw(rows=2, length=50, key_heads=2, value_heads=4, key_dim=8, value_dim=6, seed=0, decay=1.0):
    """Query, key, value, log decay, beta, state. Heads forget from hardly to at once, some tokens of each head do not."""
    generator = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    query, key = (F.normalize(make(rows, length, key_heads, key_dim), dim=-1) for _ in range(2))
    rate_V = decay * 40.0 ** -torch.arange(value_heads)
    log_decay = -rate_V * F.softplus(4 * make(rows, length, value_heads))
    value, beta = make(rows, length, value_heads, value_dim), make(rows, length, value_heads).sigmoid()
    return [x.requires_grad_() for x in (query, key, value, log_decay, beta, make(rows, value_heads, key_dim, value_dim))]


def begins(rows, length, lengths):
    """Documents of these lengths one after another, from another place in each row."""
    flags = torch.zeros(rows, length, dtype=torch.bool)
    for row in range(rows):
        position = row
        for count in lengths:
            position += count
            flags[row, position - 1 : position] = True
    return flags


def results_and_gradients(form, inputs, begins_BT, **settings):
    *tensors, state = inputs
    mixed, end = form(*tensors, begins_BT, state, **settings)
    upstream = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(7))
    loss = (mixed * upstream).mean() + end.square().mean()
    return (mixed, end), torch.autograd.grad(loss, inputs)


@given(
    rows=st.integers(1, 2), length=st.integers(1, 45), heads=st.sampled_from([(1, 1), (2, 2), (1, 3), (2, 4)]), dims=st.sampled_from([(8, 8), (4, 6), (5, 3)]),
    chunk=st.sampled_from([1, 3, 8, 16, 64]), documents=st.none() | st.lists(st.integers(1, 20), max_size=5), seed=st.integers(0, 99),
    decay=st.sampled_from([0.0, 0.1, 20.0]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_chunks_equal_single_steps(rows, length, heads, dims, chunk, documents, seed, decay):
    inputs = draw(rows, length, *heads, *dims, seed, decay)
    begins_BT = None if documents is None else begins(rows, length, documents)
    slow, slow_gradients = results_and_gradients(recurrent, inputs, begins_BT)
    fast, fast_gradients = results_and_gradients(chunked, inputs, begins_BT, chunk=chunk)
    for name, a, b in zip(("mixed", "state"), fast, slow, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    for name, a, b in zip(NAMES, fast_gradients, slow_gradients, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"gradient of {n}: {m}")


@pytest.mark.parametrize("form", [chunked, recurrent])
def test_packed_documents_equal_separate_ones(form):
    lengths = [1, 70, 3, 64, 22]
    *inputs, _ = draw(1, sum(lengths))
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    begins_BT = torch.zeros(1, sum(lengths), dtype=torch.bool).index_fill(1, starts, True)
    stale = 100 * torch.ones(1, 4, 8, 6)  # what stood there before the first document is forgotten too
    packed, _ = form(*inputs, begins_BT, stale)
    for document, *pieces in zip(packed.split(lengths, dim=1), *(x.split(lengths, dim=1) for x in inputs), strict=True):
        assert_close(document, recurrent(*pieces, None, None)[0], atol=1e-5, rtol=1e-5)


@given(cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_pieces_that_hand_on_the_state_equal_the_whole(cuts, seed):
    *inputs, state = draw(2, 40, seed=seed)
    whole, end = chunked(*inputs, None, state, chunk=16)
    edges = sorted({0, *cuts, 40})
    pieces = []
    for first, last in pairwise(edges):
        mixed, state = chunked(*(x[:, first:last] for x in inputs), None, state, chunk=16)
        pieces.append(mixed)
    assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-5)
    assert_close(state, end, atol=1e-5, rtol=1e-5)


def test_a_token_without_decay_and_beta_changes_nothing():
    query, key, value, log_decay, beta, state = draw(2, 9)
    for form in (recurrent, chunked):
        _, end = form(query, key, value, 0 * log_decay, 0 * beta, None, state)
        assert torch.equal(end, state)


def test_the_same_key_again_and_again_stays_exact():
    """The hardest triangular system: every entry below the diagonal is one, and powers of it would overflow."""
    query, _, value, log_decay, beta, state = draw(1, 64)
    key = F.normalize(torch.ones(1, 64, 2, 8), dim=-1)
    inputs = query, key, value, 0 * log_decay, torch.ones_like(beta), None, state
    mixed, end = chunked(*inputs)
    assert_close(mixed, recurrent(*inputs)[0], atol=1e-5, rtol=1e-5)
    assert_close((key[:, -1, :, None] @ end[:, ::2])[:, :, 0], value[:, -1, ::2], atol=1e-5, rtol=1e-5)  # the last value is what the key reads


@pytest.mark.parametrize("length", [1, 64, 75])
def test_equals_the_published_forms(length):
    """transformers repeats key heads, normalises and scales by itself when asked; here with neither repeated nor normalised."""
    published = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    query, key, value, log_decay, beta, state = (x.detach() for x in draw(2, length))
    ours = chunked(query * 8**-0.5, key, value, log_decay, beta, None, state)
    for form in (published.torch_chunk_gated_delta_rule, published.torch_recurrent_gated_delta_rule):
        theirs = form(query, key, value, g=log_decay, beta=beta, initial_state=state, output_final_state=True)
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_half_precision_inputs_are_computed_in_float32():
    *inputs, state = (x.detach() for x in draw())
    half = [x.bfloat16() for x in inputs[:3]] + inputs[3:]
    mixed, end = chunked(*half, None, state)
    assert mixed.dtype == end.dtype == torch.float32
    assert torch.equal(mixed, chunked(*(x.float() for x in half), None, state)[0])


def test_the_scan_keeps_torchs_rules_for_operators():
    make = lambda *shape: torch.randn(*shape).requires_grad_()  # noqa: E731
    wanted, reading, key, whole, begin = make(3, 1, 2, 4, 5), make(3, 1, 2, 4, 6), make(3, 1, 2, 4, 6), make(3, 1, 2), make(1, 2, 6, 5)
    torch.library.opcheck(scan, (wanted, reading, key, whole, begin))
    torch.autograd.gradcheck(scan, [x.detach().double().requires_grad_() for x in (wanted, reading, key, whole, begin)])
