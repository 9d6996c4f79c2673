"""One optimizer step: micro-batches do not change it, padding does not count, and it can be repeated bit for bit."""

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_training import CONTEXT, model, phase

from hagane.data.batch import Batch
from hagane.data.source import BatchSource, StepData
from hagane.errors import TrainingError
from hagane.model.sequence import Sequence
from hagane.train.stepper import Stepper, compiles, torch_set_up


def stepper(kind: str, dtype: str = "float32", compiled: bool = False) -> Stepper:
    return Stepper(model(kind), device="cpu", dtype=dtype, compiled=compiled, seed=0)


def read(data, collection: str, rows: int, accumulation: int, steps: int) -> list[StepData]:
    mixture = {"talk.en": 1.0} if collection == "tune" else {"first.en": 0.7, "second.sv": 0.3}
    source = BatchSource([data], phase(collection=collection, mixture=mixture, rows=rows, accumulation=accumulation), seed=0)
    read = [source.read(step * rows * accumulation) for step in range(steps)]
    source.close()
    return read


@pytest.mark.parametrize("kind", ["dense", "routed", "bias", "null", "latent", "indexed", "delta", "mtp"])
@pytest.mark.parametrize("collection", ["text", "tune"])
def test_micro_steps_equal_one_big_batch(data, kind: str, collection: str) -> None:
    whole, parts = stepper(kind), stepper(kind)
    # at a step of the size of epsilon Adam turns any rounding into a sign; the gradients themselves are compared
    for one, four in zip(read(data, collection, 8, 1, 2), read(data, collection, 2, 4, 2)):
        first, second = whole.step(one, phase(epsilon=1e-2), 1e-2), parts.step(four, phase(epsilon=1e-2), 1e-2)
        assert float(first.loss) == pytest.approx(float(second.loss), rel=1e-6)
        assert float(first.auxiliary_loss) == pytest.approx(float(second.auxiliary_loss), rel=1e-5, abs=1e-9)
        assert float(first.gradient_norm) == pytest.approx(float(second.gradient_norm), rel=1e-5)
    for name, master in whole.optimizer.masters.items():
        torch.testing.assert_close(master, parts.optimizer.masters[name], rtol=1e-5, atol=1e-6)
    for name, state in whole.decoder.router_state().items():
        torch.testing.assert_close(state, parts.decoder.router_state()[name])


def padded(batch: Batch) -> Batch:
    """The same rows with eight more positions of padding."""
    wide = {}
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor) and value.ndim == 2:
            filler = -1 if name == "document_BT" else 0
            wide[name] = torch.cat([value, torch.full((len(value), 8), filler, dtype=value.dtype)], dim=1)
    return dataclasses.replace(batch, **wide)


@pytest.mark.parametrize("kind", ["dense", "routed", "null", "latent", "indexed", "delta", "mtp"])
def test_padding_counts_nothing(data, kind: str) -> None:
    plain, wide = stepper(kind), stepper(kind)
    for one in read(data, "tune", 4, 1, 2):
        other = StepData(one.counter, tuple(padded(batch) for batch in one.batches), one.weight_sum, one.num_tokens)
        first, second = plain.step(one, phase(epsilon=1e-2), 1e-2), wide.step(other, phase(epsilon=1e-2), 1e-2)
        assert float(first.loss) == pytest.approx(float(second.loss), rel=1e-5)
        assert float(first.gradient_norm) == pytest.approx(float(second.gradient_norm), rel=1e-4)
    if kind == "routed":
        assert torch.equal(first.stats.layers[1].count_E, second.stats.layers[1].count_E)
        assert float(first.stats.layers[1].num_tokens) == one.num_tokens


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["dense", "routed", "latent", "delta", "mtp"])
def test_steps_repeat_bit_for_bit_and_learn(data, kind: str, dtype: str) -> None:
    steps = read(data, "text", 4, 1, 12)
    runs = []
    for _ in range(2):
        with torch_set_up(threads=1, compiled=False):
            made = stepper(kind, dtype)
            losses = [float(made.step(step, phase(), 1e-2).loss) for step in steps]
        runs.append((losses, {name: value.clone() for name, value in made.optimizer.masters.items()}))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(value, runs[1][1][name]) for name, value in runs[0][1].items())
    assert runs[0][0][-1] < runs[0][0][0] - 0.3


def test_the_loss_of_further_tokens_is_that_of_their_own_targets(data) -> None:
    """By hand, token by token: module k at place i is asked for the token after the next k, in the same document only."""
    made = stepper("mtp")
    (step,) = read(data, "tune", 4, 1, 1)
    (batch,) = step.batches
    outputs = made.decoder(batch.tokens_BT, Sequence(batch.position_BT, batch.document_BT), further=True)
    means = []
    for k, hidden_BTD in enumerate(outputs.further, start=1):
        logprob_BTV = made.decoder.head.logits(hidden_BTD.detach()).log_softmax(-1).detach()
        total, weight = 0.0, 0.0
        for b, i in itertools.product(range(4), range(CONTEXT - k)):
            if batch.document_BT[b, i] == batch.document_BT[b, i + k] >= 0:
                assert k == 1 or batch.tokens_BT[b, i + k] == batch.targets_BT[b, i + k - 1]
                total -= float(batch.weight_BT[b, i + k] * logprob_BTV[b, i, batch.targets_BT[b, i + k]])
                weight += float(batch.weight_BT[b, i + k])
        assert 0 < weight < step.weight_sum
        means.append(total / weight)
    result = made.step(step, phase(), 1e-2)
    assert float(result.mtp_loss) == pytest.approx(sum(means) / 2, rel=1e-5)
    assert float(stepper("routed").step(step, phase(), 1e-2).mtp_loss) == 0.0


def test_the_coefficient_weighs_what_the_decoder_learns_from_further_tokens(data) -> None:
    (step,) = read(data, "text", 4, 1, 1)
    norms = [float(stepper("mtp").step(step, phase(mtp_coefficient=weight), 1e-2).gradient_norm) for weight in (1e-6, 0.3, 3.0)]
    assert norms[0] < norms[1] < norms[2]


def test_rows_without_targets_are_an_error(data) -> None:
    (step,) = read(data, "text", 2, 1, 1)
    batch = dataclasses.replace(step.batches[0], weight_BT=torch.zeros_like(step.batches[0].weight_BT))
    with pytest.raises(TrainingError, match=r"nothing to learn from in first\.en rows"):
        stepper("dense").step(StepData(0, (batch,), 0.0, step.num_tokens), phase(), 1e-2)


def test_torchs_switches_are_put_back() -> None:
    with torch_set_up(threads=2, compiled=True):
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch._dynamo.config.automatic_dynamic_shapes
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch._dynamo.config.automatic_dynamic_shapes


@pytest.mark.parametrize("kind", ["dense", "routed", "bias", "mtp"])
def test_steps_by_kernels_are_those_of_the_written_out_form(data, kind: str) -> None:
    steps, plain, fast = read(data, "text", 4, 1, 6), stepper(kind), stepper(kind, compiled=True)
    assert not compiles(model(kind), device="cpu", dtype="float32")
    for step in steps:
        ours, theirs = fast.step(step, phase(), 1e-2), plain.step(step, phase(), 1e-2)
        for name in ("loss", "auxiliary_loss", "mtp_loss", "gradient_norm"):
            assert float(getattr(ours, name)) == pytest.approx(float(getattr(theirs, name)), rel=1e-3, abs=1e-6), name
    for name, master in plain.optimizer.masters.items():
        torch.testing.assert_close(fast.optimizer.masters[name], master, atol=2e-3, rtol=1e-3, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.mark.parametrize("kind", ["latent", "delta", "indexed", "null"])
def test_the_compiler_has_what_kernels_do_not_serve(kind: str) -> None:
    assert compiles(model(kind), device="cpu", dtype="bfloat16")


def test_an_ordinary_model_is_trained_without_the_compiler(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from hagane.train.probe import time_steps; from toy_training import model;"
        "time_steps(model('routed'), 2, 16, steps=3, threads=1); print('torch._inductor.compile_fx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "routed", "delta", "mtp"])
def test_compiled_steps_agree_with_eager_ones(data, kind: str) -> None:
    steps = read(data, "text", 4, 1, 6)
    with torch_set_up(threads=1, compiled=True):
        eager, fast = stepper(kind, "bfloat16"), stepper(kind, "bfloat16", compiled=True)
        for step in steps:
            assert float(fast.step(step, phase(), 1e-2).loss) == pytest.approx(float(eager.step(step, phase(), 1e-2).loss), rel=0.02)
