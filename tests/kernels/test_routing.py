"""The way of tokens to experts and back against the written-out form of `model.experts`."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hagane.kernels import routing
from hagane.model import experts as module
from hagane.model.config import ExpertsConfig
from hagane.model.experts import fused_dispatch, local_dispatch
from hagane.model.router import Choice, Router

pytestmark = pytest.mark.skipif(not routing.serves(torch.device("cpu"), torch.float32), reason="needs g++")


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def choice_of(num_tokens, num_experts, num_null, top_k, seed):
    generator = torch.Generator().manual_seed(seed)
    expert_NK = torch.rand(num_tokens, num_experts + num_null, generator=generator).topk(top_k).indices
    return Choice(expert_NK, torch.rand(num_tokens, top_k, generator=generator), expert_NK < num_experts if num_null else None)


def run(dispatch, hidden, choice, num_experts):
    """A result, what its experts were given, and the gradients of tokens, weights and experts: each expert multiplies with a vector of its own."""
    hidden, weight = hidden.clone().requires_grad_(), choice.weight_NK.clone().requires_grad_()
    factor_ED = draw(num_experts, hidden.shape[1], seed=3).requires_grad_()
    seen = {}

    def compute(rows_MD, end_E):
        seen["end"] = end_E
        expert_M = torch.bucketize(torch.arange(len(rows_MD)), end_E, right=True)
        used = expert_M < num_experts
        return torch.where(used[:, None], rows_MD * factor_ED[expert_M.clamp(max=num_experts - 1)].to(rows_MD), 0.0)

    result = dispatch(hidden, choice._replace(weight_NK=weight), num_experts, compute)
    gradients = torch.autograd.grad(result, [hidden, weight, factor_ED], draw(*result.shape, seed=4, dtype=result.dtype))
    return [result.detach(), seen["end"], *gradients]


@given(
    num_tokens=st.integers(1, 60), num_experts=st.integers(1, 6), num_null=st.integers(0, 3), top_k=st.integers(1, 4), filled_to=st.sampled_from([None, 2, 8]),
    width=st.sampled_from([1, 5, 16, 24]), seed=st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_equals_the_written_out_form(num_tokens, num_experts, num_null, top_k, filled_to, width, seed):
    choice = choice_of(num_tokens, num_experts, num_null, min(top_k, num_experts + num_null), seed)
    hidden = draw(num_tokens, width, seed=1)
    with mock.patch.multiple(module, FILLED_FROM=0, SHAPE_STEP=filled_to) if filled_to else mock.patch.multiple(module, FILLED_FROM=10**6):
        ours, theirs = (run(dispatch, hidden, choice, num_experts) for dispatch in (fused_dispatch, local_dispatch))
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_threads_change_nothing():
    choice, hidden = choice_of(300, 8, 2, 3, 0), draw(300, 24, dtype=torch.bfloat16)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(run(fused_dispatch, hidden, choice, 8))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@given(
    num_tokens=st.integers(1, 150), num_experts=st.integers(1, 20), score=st.sampled_from(["softmax", "sigmoid"]), normalise=st.booleans(),
    scaling=st.sampled_from([1.0, 2.5]), seed=st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_choices_weights_and_statistics(num_tokens, num_experts, score, normalise, scaling, seed):
    top_k = 1 + seed % min(4, num_experts)
    config = ExpertsConfig(num_experts=num_experts, top_k=top_k, hidden=4, score=score, normalise=normalise, scaling=scaling, balance="bias")
    results = []
    for fused in (True, False):
        router = Router(12, config)
        router.weight.data = draw(num_experts, 12, seed=seed)
        router.bias_E.copy_(0.3 * draw(num_experts, seed=seed + 1))
        router.fused = fused
        hidden = draw(num_tokens, 12, seed=seed + 2).requires_grad_()
        real_N = (draw(num_tokens, seed=seed + 3) > -1).float()
        choice, stats = router(hidden, real_N)
        loss = (choice.weight_NK * draw(num_tokens, top_k, seed=seed + 4)).sum() + (stats.probability_E * draw(num_experts, seed=seed + 5)).sum() + stats.z_sum
        gradients = torch.autograd.grad(loss, [hidden, router.weight])
        results.append([*choice[:2], *stats[:5], *gradients])
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours.detach(), theirs.detach(), atol=1e-4, rtol=1e-4)
