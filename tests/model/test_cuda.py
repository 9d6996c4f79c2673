"""The CUDA forms of every mixer, norm and feed-forward agree with the CPU ones."""

import copy

import pytest
import torch
from torch.testing import assert_close

from hagane.model.indexer import is_indexers
from hagane.model.initial import to_working
from hagane.model.sequence import PADDING, Sequence

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
WIDE = {"hidden": 24, "shared_hidden": 24}  # multiples of 8, as torch's grouped product wants them
SIGMOID = {"score": "sigmoid", "balance": "bias", "scaling": 1.5, **WIDE}
KINDS = {
    "dense": ("dense", {}),
    "window": ("dense", {"window": 5}),
    "experts": ("experts", {"hidden": 24}),
    "latent": ("latent", {}),
    "indexed": ("indexed", {}),
    "gated": ("gated", {}),
    "delta": ("delta", {}),
    "sandwich": ("sandwich", {"window": 5, **WIDE}),
    "shared": ("experts", SIGMOID),
    "null": ("experts", {**SIGMOID, "null_experts": 3, "mean_experts": 1.2}),
}
"""Name -> what `tiny` is asked for."""
CHOOSING = ("experts", "indexed", "sandwich", "shared", "null")  # one choice that rounding changes moves a gradient by half


def far(kind, name):
    """How far a gradient in bf16 may be from the one in float32, over its norm."""
    return 1.0 if is_indexers(name) else 0.5 if kind in CHOOSING else 0.1


def loss_and_gradients(model):
    generator, device = torch.Generator().manual_seed(0), model.embedding.weight.device
    tokens, targets = torch.randint(0, 61, (2, 2, 32), generator=generator).to(device)
    document = torch.tensor([[0] * 12 + [1] * 20, [0] * 25 + [PADDING] * 7], dtype=torch.int32)
    position = torch.tensor([[*range(12), *range(20)], [*range(25), *range(7)]])
    outputs = model(tokens, Sequence(position, document).to(device))
    loss = model.head.nll_sum(outputs.hidden_BTD, targets, (document >= 0).float().to(device)) + model.auxiliary_loss_sum(outputs.stats)
    return loss, torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_float32_equals_the_cpu(tiny, kind):
    model = tiny(KINDS[kind][0], tied=True, **KINDS[kind][1])
    results = [loss_and_gradients(copy.deepcopy(model).to(device)) for device in ("cpu", "cuda")]
    assert_close(results[0][0], results[1][0].cpu(), atol=1e-3, rtol=1e-5)
    for (name, _), a, b in zip(model.named_parameters(), results[0][1], results[1][1], strict=True):
        assert (a - b.cpu()).norm() <= 1e-4 * a.norm(), name


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_bf16_is_close_and_the_same_every_time(tiny, kind):
    torch._dynamo.reset()
    model = tiny(KINDS[kind][0], tied=True, **KINDS[kind][1])
    wide_loss, wide = loss_and_gradients(model)
    half = copy.deepcopy(model).cuda()
    to_working(half, torch.bfloat16)
    half.compile_parts()
    loss, gradients = loss_and_gradients(half)
    again_loss, again = loss_and_gradients(half)
    assert torch.equal(loss, again_loss)
    assert all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))
    assert loss.item() == pytest.approx(wide_loss.item(), rel=0.03)
    for (name, _), a, b in zip(model.named_parameters(), wide, gradients, strict=True):
        assert (a - b.float().cpu()).norm() < far(kind, name) * a.norm(), name


@pytest.mark.parametrize("kind", KINDS)
def test_cached_generation_equals_uncached(tiny, kind):
    model = tiny(KINDS[kind][0], **KINDS[kind][1]).cuda()
    texts = [torch.randint(0, 61, (count,), device="cuda") for count in (9, 6)]
    cache = model.new_cache(2, 12)
    with torch.no_grad():
        for start, count in ((0, 4), (4, 1), (5, 1)):
            tokens = torch.stack([text[start : start + count] for text in texts])
            hidden = model(tokens, cache.sequence([count, count]), cache).hidden_BTD
        for row, text in enumerate(texts):
            whole = model(text[None, :6], Sequence.plain(1, 6, "cuda")).hidden_BTD
            assert_close(hidden[row, -1], whole[0, -1], atol=1e-4, rtol=1e-4)
