"""The optimizer is torch's AdamW on float32 masters; accumulation and clipping change nothing else."""

import pytest
import torch
from toy_training import model

from hagane.errors import TrainingError
from hagane.model.decoder import Decoder
from hagane.recipe.types import Phase
from hagane.train.optimizer import MasterOptimizer, decays

PHASE = Phase(name="one", collection="text", context=8, rows=1, num_steps=3, mixture={}, learning_rate=0.01, weight_decay=0.1)


def decoder(kind: str = "routed") -> Decoder:
    made = Decoder(model(kind))
    made.init_weights(0)
    return made


def set_gradients(target: Decoder, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in target.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


@pytest.mark.parametrize(("clip", "embedding", "head"), [(0.0, 1.0, 1.0), (1.0, 4.0, 0.5), (1e6, 1.0, 1.0)])
def test_a_step_in_float32_is_torchs_adamw(clip: float, embedding: float, head: float) -> None:
    ours, theirs = decoder(), decoder()
    optimizer, phase = MasterOptimizer(ours, torch.float32), PHASE.model_copy(update={"embedding_ratio": embedding, "head_ratio": head})
    rates = {"embedding.weight": 0.01 * embedding, "head.weight": 0.01 * head}
    settings = [{"params": p, "lr": rates.get(n, 0.01), "weight_decay": 0.1 if decays(n, p) else 0.0} for n, p in theirs.named_parameters()]
    assert rates.keys() <= {name for name, _ in theirs.named_parameters()}
    reference = torch.optim.AdamW(settings, betas=(0.9, 0.95), fused=False)
    for seed in range(3):
        set_gradients(ours, seed)
        set_gradients(theirs, seed)
        optimizer.collect()
        norm = optimizer.clip(clip)
        optimizer.step(0.01, phase)
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip or 1e30)
        reference.step()
        assert float(norm) == pytest.approx(float(expected))
    for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(parameter, other, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        assert parameter.grad is None


def test_the_working_copy_is_the_rounded_master() -> None:
    ours = decoder()
    exact = {name: parameter.detach().clone() for name, parameter in ours.named_parameters()}
    optimizer = MasterOptimizer(ours, torch.bfloat16)
    assert all(torch.equal(optimizer.masters[name], value) for name, value in exact.items())
    set_gradients(ours, 0)
    optimizer.collect()
    optimizer.clip(1.0)
    optimizer.step(1e-5, PHASE)
    for name, parameter in ours.named_parameters():
        master = optimizer.masters[name]
        assert master.dtype == torch.float32
        assert not torch.equal(master, exact[name]), name  # a step too small for bf16 is not lost
        assert torch.equal(parameter, master.to(parameter.dtype)), name
        is_matrix = parameter.ndim >= 2 and "router" not in name
        assert parameter.dtype == (torch.bfloat16 if is_matrix else torch.float32), name


def test_gradients_add_up_in_float32() -> None:
    ours = decoder()
    optimizer = MasterOptimizer(ours, torch.bfloat16)
    for _ in range(256):
        for parameter in ours.parameters():
            gradient = torch.full_like(parameter, 1 / 256)
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        optimizer.collect()
    optimizer.clip(0.0)
    for name, master in optimizer.masters.items():
        assert torch.equal(master.grad, torch.ones_like(master)), name  # in bf16 the sum would stop at 1 - 1/256 or so


def test_norms_and_the_embedding_do_not_decay() -> None:
    names = {name: decays(name, parameter) for name, parameter in decoder().named_parameters()}
    assert {name for name, decay in names.items() if not decay} == {name for name in names if "norm" in name} | {"embedding.weight"}


def test_weights_that_do_not_fit_are_named() -> None:
    optimizer = MasterOptimizer(decoder(), torch.bfloat16)
    weights = dict(optimizer.masters)
    with pytest.raises(TrainingError, match=r"norm\.weight is on one side only"):
        optimizer.load({name: value for name, value in weights.items() if name != "norm.weight"})
    with pytest.raises(TrainingError, match=r"norm\.weight is \(3,\) where the model has \(32,\)"):
        optimizer.load({**weights, "norm.weight": torch.zeros(3)})
