"""Muon does what the paper and torch's own say, in batches, and takes only the matrices inside the layers."""

import pytest
import torch
from torch.testing import assert_close
from toy_training import model

from hagane.model.decoder import Decoder
from hagane.train.muon import COEFFICIENTS, Muon, orthogonalise, takes
from hagane.train.optimizer import MasterOptimizer


@pytest.mark.parametrize("shape", [(64, 64), (48, 160), (160, 48)])
def test_singular_values_move_near_one_and_vectors_stay(shape):
    matrix = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrix).float()
    values = torch.linalg.svdvals(result)
    # a square random matrix has a few singular values near zero, which no few iterations bring up; rounding to bfloat16 throws a few beyond 1.3
    assert 0.8 < values.median() < 1.2 and values.quantile(0.95) < 1.35 and values.max() < 1.7 and (shape[0] == shape[1] or values.min() > 0.5)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ vh
    cosine = (result * nearest).sum((-2, -1)) / (result.norm(dim=(-2, -1)) * nearest.norm(dim=(-2, -1)))
    assert (cosine > 0.95).all()


def test_the_constants_bring_everything_between_a_hundredth_and_one_near_one():
    value = torch.logspace(-2, 0, 10_000, dtype=torch.float64)
    for a, b, c in COEFFICIENTS:
        value = a * value + b * value**3 + c * value**5
    assert value.min() > 0.72 and value.max() < 1.28


def test_updates_go_where_torch_optim_muon_goes():
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(48, 96, generator=generator)
    theirs = torch.nn.Parameter(start.clone())
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw")
    ours = start.clone()
    muon = Muon({"layers.0.x": ours}, {"layers.0.x": torch.zeros_like(ours)})
    for _ in range(3):
        gradient = torch.randn(48, 96, generator=generator)
        theirs.grad = gradient.clone()
        reference.step()
        muon.step({"layers.0.x": gradient.clone()}, 0.01, 0.1)
    # torch iterates five times from the Frobenius norm: the singular values end elsewhere between 0.7 and 1.2, the directions are the same
    ours, theirs = ours - start, theirs.detach() - start
    assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.95
    assert 0.9 < ours.norm() / theirs.norm() < 1.1


def test_a_batch_of_experts_is_as_many_matrices():
    generator = torch.Generator().manual_seed(2)
    stacked, gradient = torch.randn(4, 32, 48, generator=generator), torch.randn(4, 32, 48, generator=generator)
    together, momentum = stacked.clone(), torch.zeros_like(stacked)
    Muon({"layers.0.e": together}, {"layers.0.e": momentum}).step({"layers.0.e": gradient.clone()}, 0.02, 0.0)
    for expert in range(4):
        alone = stacked[expert].clone()
        Muon({"layers.0.e": alone}, {"layers.0.e": torch.zeros(32, 48)}).step({"layers.0.e": gradient[expert].clone()}, 0.02, 0.0)
        assert_close(together[expert], alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["dense", "experts", "latent"])
def test_muon_takes_the_matrices_inside_the_layers(kind):
    decoder = Decoder(model(kind))
    taken = {name for name, parameter in decoder.named_parameters() if takes(name, parameter)}
    assert taken and all(name.startswith("layers.") for name in taken)
    assert not any("norm" in name or "router" in name for name in taken)
    if kind == "latent":
        for mixer, matrices in (("0.mixer", {"down", "query", "kv_up", "output"}), ("1.mixer", {"down", "query_up", "kv_up", "output"})):
            assert {name for name in taken if mixer in name} == {f"layers.{mixer}.{matrix}.weight" for matrix in matrices}
    optimizer = MasterOptimizer(decoder, torch.bfloat16, "muon")
    assert {name.removesuffix(".mean") for name in optimizer.moments if name.endswith(".mean")} == set(optimizer.masters)
    assert {name.removesuffix(".square") for name in optimizer.moments if name.endswith(".square")} == set(optimizer.masters) - taken
