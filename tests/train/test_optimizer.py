"""The optimizer is torch's AdamW on float32 masters, with kernels and without; accumulation and clipping change nothing else."""

import pytest
import torch
from toy_training import model

from hagane.errors import TrainingError
from hagane.kernels import updates
from hagane.model.decoder import Decoder
from hagane.recipe.types import Phase
from hagane.train.optimizer import MasterOptimizer, decays

PHASE = Phase(name="one", collection="text", context=8, rows=1, num_steps=3, mixture={}, learning_rate=0.01, weight_decay=0.1)


@pytest.fixture(params=["kernels", "torch"])
def by_both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test with the kernels that a CPU has, and with the operations of torch that do without them."""
    if request.param == "torch":
        monkeypatch.setattr(updates, "serves", lambda *_: False)


def decoder(kind: str = "routed") -> Decoder:
    made = Decoder(model(kind))
    made.init_weights(0)
    return made


def set_gradients(target: Decoder, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in target.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


@pytest.mark.usefixtures("by_both")
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


@pytest.mark.usefixtures("by_both")
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


@pytest.mark.usefixtures("by_both")
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
        assert torch.equal(optimizer._gradients[name], torch.ones_like(master)), name  # in bf16 the sum would stop at 1 - 1/256 or so


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


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_micro_steps", [1, 2])
def test_kernels_do_what_torch_does(kind: str, dtype: torch.dtype, num_micro_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(*, kernels: bool) -> MasterOptimizer:
        with monkeypatch.context() as patch:
            if not kernels:
                patch.setattr(updates, "serves", lambda *_: False)
            made = decoder()
            optimizer = MasterOptimizer(made, dtype, kind)
        for step in range(4):
            optimizer.freeze(["head.weight", "layers.0.mixer.output.weight"] if step == 2 else [])
            for micro in range(num_micro_steps):
                set_gradients(made, 10 * step + micro)
                for name in optimizer._frozen:
                    optimizer.working[name].grad = None
                optimizer.collect(alone=num_micro_steps == 1)
            norms.append(float(optimizer.clip(5.0 if step % 2 else 0.0)))
            optimizer.step(0.01, PHASE)
        return optimizer

    if not updates.serves(torch.device("cpu"), dtype):
        pytest.skip("no compiler here")
    norms: list[float] = []
    start = {name: parameter.detach().clone() for name, parameter in decoder().named_parameters()}
    ours, theirs = trained(kernels=True), trained(kernels=False)
    assert ours._adamw is None and theirs._adamw is not None
    assert norms[:4] == pytest.approx(norms[4:], rel=1e-5)
    for name, master in ours.masters.items():
        if kind == "muon" and f"{name}.square" not in ours.moments:  # it iterates numbers rounded to bfloat16: updates may differ by that
            moved, apart = (master - start[name]).norm(), (master - theirs.masters[name]).norm()
            assert moved > 0 and apart < 0.03 * moved, name
        else:
            torch.testing.assert_close(master, theirs.masters[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        assert torch.equal(ours.working[name], master.to(ours.working[name].dtype)), name
    for name, moment in ours.moments.items():
        torch.testing.assert_close(moment, theirs.moments[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_the_norm_of_many_gradients_does_not_depend_on_threads() -> None:
    if not updates.serves(torch.device("cpu"), torch.float32):
        pytest.skip("no compiler here")
    tensors = [torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in (1, 17, 4096, 100_003)]
    expected = torch.cat(tensors).double().norm()
    threads = torch.get_num_threads()
    found = set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.add(updates.norm([*tensors, tensors[2].bfloat16() * 0]))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1 and found.pop() == pytest.approx(float(expected), rel=1e-6)
