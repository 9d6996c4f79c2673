"""The kernels between matrix products against their written-out forms, in both directions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hagane.kernels import elementwise
from hagane.model.attention import Attention
from hagane.model.config import AttentionConfig, RopeConfig
from hagane.model.dense import swiglu
from hagane.model.head import loss_and_gradient
from hagane.model.norm import RMSNorm
from hagane.model.rope import rotation
from hagane.model.sequence import View

EPSILON = 1e-6
pytestmark = pytest.mark.skipif(not elementwise.serves(torch.device("cpu"), torch.float32), reason="needs g++")


def draw(*shape, seed=0, scale=1.0, dtype=torch.float32):
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def norm_of(weight_D):
    norm = RMSNorm(len(weight_D), EPSILON)
    norm.weight.data = weight_D
    return norm


def attention_of(heads, kv_heads, head_dim, qk_norm):
    config = AttentionConfig(num_heads=heads, num_kv_heads=kv_heads, head_dim=head_dim, qk_norm=qk_norm, rope=RopeConfig(theta=10_000.0))
    attention = Attention(8, config, EPSILON)
    for seed, norm in enumerate((attention.query_norm, attention.key_norm)):
        if norm is not None:
            norm.weight.data = 1 + draw(head_dim, seed=seed, scale=0.3)
    return attention


def form(name, fused, shape, dtype):
    """A function, and what it is given, for each kernel: the fused form or the written-out one."""
    rows, width = shape
    if name == "norm":
        weight = 1 + draw(width, seed=5, scale=0.3)
        return (lambda x: elementwise.rms_norm(x, weight, EPSILON)) if fused else norm_of(weight), [draw(rows, 3, width, dtype=dtype)]
    if name == "sum and norm":
        norm = norm_of(1 + draw(width, seed=5, scale=0.3))
        norm.fused = fused
        return norm.after_adding, [draw(rows, width, dtype=dtype), draw(rows, width, seed=1, dtype=dtype)]
    if name == "swiglu":
        return (lambda x: swiglu(x, fused)), [draw(rows, 2 * width, scale=4.0, dtype=dtype)]
    heads, kv_heads, qk_norm, partial = {"heads": (4, 2, True, 1), "plain heads": (3, 1, False, 1), "heads turned in part": (2, 2, True, 2)}[name]
    attention = attention_of(heads, kv_heads, 8 * width, qk_norm)
    attention.fused = fused
    cosine, sine = rotation(torch.arange(rows)[None], 8 * width // partial, RopeConfig(theta=10_000.0))
    view = View(cosine, sine, None, None, None)
    return (lambda x: attention._heads(x, view)), [draw(1, rows, (heads + 2 * kv_heads) * 8 * width, dtype=dtype)]


KINDS = ["norm", "sum and norm", "swiglu", "heads", "plain heads", "heads turned in part"]


def run(name, fused, shape, dtype):
    """Results, and the gradients of everything that goes in, of a sum with random weights."""
    function, inputs = form(name, fused, shape, dtype)
    inputs = [x.requires_grad_() for x in inputs]
    results = function(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    upstream = [draw(*x.shape, seed=10 + index, dtype=dtype) for index, x in enumerate(results)]
    return [*(x.detach() for x in results), *torch.autograd.grad(results, inputs, upstream)]


@pytest.mark.parametrize("name", KINDS)
@given(rows=st.integers(1, 150), width=st.integers(1, 5) | st.sampled_from([16, 40]))
@settings(max_examples=25, deadline=None)
def test_equals_the_written_out_form(name, rows, width):
    for ours, theirs in zip(run(name, True, (rows, width), torch.float32), run(name, False, (rows, width), torch.float32), strict=True):
        assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_is_as_near_to_the_truth_as_the_written_out_form(name):
    exact, kernel, plain = (run(name, fused, (130, 24), dtype) for fused, dtype in ((False, torch.float32), (True, torch.bfloat16), (False, torch.bfloat16)))
    for truth, ours, theirs in zip(exact, kernel, plain, strict=True):
        assert (ours.float() - truth).norm() < 1.1 * (theirs.float() - truth).norm() + 1e-6


@pytest.mark.parametrize("norms", [True, False])
def test_gradients_of_the_weights_of_norms(norms):
    results = []
    for fused in (True, False):
        attention, norm = attention_of(4, 2, 24, True), norm_of(1 + draw(24 * 8, seed=7, scale=0.3))
        attention.fused = norm.fused = fused
        cosine, sine = rotation(torch.arange(150)[None], 24, RopeConfig(theta=10_000.0))
        query, key, _ = attention._heads(draw(1, 150, 8 * 24), View(cosine, sine, None, None, None))
        _, normed = norm.after_adding(draw(150, 24 * 8), draw(150, 24 * 8, seed=1))
        loss = (query.square() * draw(*query.shape, seed=2)).sum() + (key * draw(*key.shape, seed=3)).sum() + (normed * draw(*normed.shape, seed=4)).sum()
        results.append(torch.autograd.grad(loss, [attention.query_norm.weight, attention.key_norm.weight, norm.weight]))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@given(rows=st.integers(1, 40), vocabulary=st.integers(1, 300), scale=st.sampled_from([0.1, 3.0, 60.0]))
@settings(max_examples=60, deadline=None)
def test_the_loss_and_its_gradient(rows, vocabulary, scale):
    logits = draw(rows, vocabulary, scale=scale)
    target = torch.randint(0, vocabulary, (rows,), generator=torch.Generator().manual_seed(1))
    weight = draw(rows, seed=2).relu()  # about half of them zero
    expected = loss_and_gradient(logits.clone(), target, weight)
    loss, gradient = elementwise.nll_gradient(logits, target, weight)
    assert gradient.data_ptr() == logits.data_ptr()
    assert_close(loss, expected[0], atol=1e-4, rtol=1e-5)
    assert_close(gradient, expected[1], atol=1e-5, rtol=1e-5)


def test_the_loss_of_bfloat16_logits():
    logits = draw(64, 1000, scale=3.0).bfloat16()
    target, weight = torch.arange(64) * 7, torch.ones(64)
    exact = loss_and_gradient(logits.float(), target, weight)
    loss, gradient = elementwise.nll_gradient(logits, target, weight)
    assert_close(loss, exact[0], rtol=1e-6, atol=0)
    assert_close(gradient.float(), exact[1], rtol=2**-8, atol=1e-30)


@pytest.mark.parametrize("name", KINDS)
def test_threads_change_nothing(name):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(run(name, True, (333, 24), torch.bfloat16))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
