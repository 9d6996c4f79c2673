"""The chunked head equals plain cross-entropy, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from hagane.model import head as head_module
from hagane.model.sequence import Sequence


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(head_module, "CHUNK", 4)


def plain(model, hidden, targets):
    return F.cross_entropy(model.head.logits(hidden).flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("mode", ["nll_sum", "token_logprobs"])
@pytest.mark.parametrize("rows", [1, 3])
def test_chunks_equal_plain_cross_entropy(tiny, tied, mode, rows):
    """Through the whole model, so that a tied matrix gets both of its gradients; with weights of zero and an odd last chunk."""
    model = tiny(tied=tied)
    tokens, targets = torch.randint(0, 61, (2, rows, 7))
    weight = torch.rand(rows, 7) * (torch.rand(rows, 7) < 0.6)

    def ours(hidden):
        if mode == "nll_sum":
            return model.head.nll_sum(hidden, targets, weight)
        return -(model.head.token_logprobs(hidden, targets) * weight).sum()

    results = []
    for loss_of in (ours, lambda hidden: (plain(model, hidden, targets) * weight).sum()):
        loss = loss_of(model(tokens, Sequence.plain(rows, 7)).hidden_BTD)
        results.append((loss, *torch.autograd.grad(3.0 * loss, list(model.parameters()))))
    for mine, theirs in zip(*results, strict=True):
        assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_without_gradient_the_loss_is_the_same(tiny):
    model = tiny()
    hidden, targets, weight = torch.randn(2, 7, 24), torch.randint(0, 61, (2, 7)), torch.rand(2, 7)
    loss = model.head.nll_sum(hidden, targets, weight)
    with torch.no_grad():
        assert_close(model.head.nll_sum(hidden, targets, weight), loss)
        assert_close(-(model.head.token_logprobs(hidden, targets) * weight).sum(), loss)


def test_all_weights_zero_is_zero(tiny):
    model = tiny()
    hidden = torch.randn(2, 7, 24, requires_grad=True)
    loss = model.head.nll_sum(hidden, torch.randint(0, 61, (2, 7)), torch.zeros(2, 7))
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()
    assert not model.head.weight.grad.any()


def test_logits_are_float32(tiny):
    assert tiny().bfloat16().head.logits(torch.randn(3, 24).bfloat16()).dtype == torch.float32


def test_masked_tokens_cost_nothing(tiny, monkeypatch):
    """Weights of zero, as on prompts in tuning: their logits are not made."""
    model, sizes = tiny(), []
    monkeypatch.setattr(model.head, "loss_and_gradient", lambda logits, *rest: sizes.append(len(logits)) or head_module.loss_and_gradient(logits, *rest))
    weight = torch.zeros(1, 20)
    weight[0, ::5] = 1.0
    model.head.nll_sum(torch.randn(1, 20, 24, requires_grad=True), torch.randint(0, 61, (1, 20)), weight)
    assert sum(sizes) == 4
