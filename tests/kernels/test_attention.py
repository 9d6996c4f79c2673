"""The packed-attention kernel against the written-out form, in both directions."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hagane.kernels import build
from hagane.kernels.attention import attend_packed, serves
from hagane.model.attention import attend
from hagane.model.sequence import PADDING, Sequence, document_mask, first_visible
from toy_models import toy_decoder


def packed(lengths, padding, window):
    ids = [index for index, length in enumerate(lengths) for _ in range(length)] + [PADDING] * padding
    sequence = Sequence(torch.arange(len(ids))[None], torch.tensor([ids], dtype=torch.int32))
    return first_visible(sequence, window), document_mask(sequence, window)


def draw(rows, length, heads, kv_heads, head_dim, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    return make(rows, length, heads, head_dim), make(rows, length, kv_heads, head_dim), make(rows, length, kv_heads, head_dim)


def written_out(query, key, value, mask):
    return attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), mask).transpose(1, 2)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), padding=st.integers(0, 5), window=st.none() | st.integers(1, 20),
    head_dim=st.sampled_from([8, 16, 24, 64, 72]), heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]), rows=st.integers(1, 2),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_equals_the_written_out_form(lengths, padding, window, head_dim, heads, rows):
    first, mask = (x.expand(rows, *x.shape[1:]) for x in packed(lengths, padding, window))
    query, key, value = (x.requires_grad_() for x in draw(rows, first.shape[1], *heads, head_dim, torch.float32))
    upstream = torch.randn(query.shape, generator=torch.Generator().manual_seed(1))
    expected = written_out(query, key, value, mask)
    given, _ = attend_packed(query, key, value, first)
    assert_close(given, expected, atol=1e-5, rtol=1e-5)
    gradients = (torch.autograd.grad(result, (query, key, value), upstream) for result in (given, expected))
    for ours, theirs in zip(*gradients, strict=True):
        assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("head_dim", [24, 32])
def test_bfloat16_is_as_near_to_the_truth_as_the_written_out_form(head_dim):
    first, mask = packed([33, 7, 50], 3, None)
    inputs = draw(1, 93, 4, 2, head_dim, torch.bfloat16)
    upstream = torch.randn(inputs[0].shape).bfloat16()

    def run(function, dtype):
        tensors = [x.detach().to(dtype).requires_grad_() for x in inputs]
        result = function(*tensors)
        return [result, *torch.autograd.grad(result, tensors, upstream.to(dtype))]

    truth = run(lambda *x: written_out(*x, mask), torch.float64)
    kernel = run(lambda *x: attend_packed(*x, first)[0], torch.bfloat16)
    plain = run(lambda *x: written_out(*x, mask), torch.bfloat16)
    for name, exact, ours, theirs in zip(("output", "query", "key", "value"), truth, kernel, plain, strict=True):
        assert (ours - exact).norm() < 1.5 * (theirs - exact).norm() + 1e-6, name


def test_the_log_of_the_sum_of_exponentials():
    query, key, value = draw(1, 9, 2, 1, 16, torch.float32)
    _, log_sum = attend_packed(query, key, value, torch.zeros(1, 9, dtype=torch.int32))
    score = torch.einsum("bth,bsh->bts", query[:, :, 1], key[:, :, 0]) / 4
    score = score.masked_fill(torch.ones(9, 9).triu(1).bool(), float("-inf"))
    assert_close(log_sum[:, :, 1], score.logsumexp(-1))


def test_large_scores_do_not_overflow():
    query, key, value = draw(1, 20, 1, 1, 16, torch.float32)
    result, _ = attend_packed(100 * query, 100 * key, value, torch.zeros(1, 20, dtype=torch.int32))
    assert_close(result, written_out(100 * query, 100 * key, value, torch.ones(1, 20, 20).tril().bool()))


def test_values_may_be_a_slice_and_threads_change_nothing():
    first, _ = packed([30, 31], 0, None)
    heads = torch.randn(1, 61, 8, 24).bfloat16()
    query, key, value = heads.split([4, 2, 2], dim=2)
    whole = [x.contiguous() for x in (query, key, value)]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results += [attend_packed(query, key, value, first)[0], attend_packed(*whole, first)[0]]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], result) for result in results)


def test_keeps_torchs_rules_for_operators():
    first, _ = packed([5, 6], 1, None)
    inputs = [x.requires_grad_() for x in draw(1, 12, 2, 1, 8, torch.float32)]
    torch.library.opcheck(attend_packed, (*inputs, first))


def test_without_a_compiler_the_model_goes_on_with_one_warning(monkeypatch):
    model = toy_decoder()
    tokens = torch.randint(0, 61, (2, 10))
    with torch.no_grad():
        fast = model(tokens, Sequence.plain(2, 10)).hidden_BTD
        try:
            build._load.cache_clear()
            monkeypatch.setenv("CXX", "no-such-compiler")
            with pytest.warns(UserWarning, match="Install g\\+\\+"):
                slow = model(tokens, Sequence.plain(2, 10)).hidden_BTD
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert not serves(torch.device("cpu"), torch.float32, 8)
        finally:
            build._load.cache_clear()
    assert_close(fast, slow, atol=1e-5, rtol=1e-5)


def test_a_source_that_does_not_compile_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("HAGANE_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "FLAGS", ("--no-such-flag",))
    try:
        build._load.cache_clear()
        with pytest.warns(UserWarning, match="could not be compiled"):
            assert build.load("attention") is None
    finally:
        build._load.cache_clear()
    assert list((tmp_path / "kernels").iterdir()) == []
