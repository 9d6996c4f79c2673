"""Dense training, warm-up of the indexers and sparse training as phases of one stage: who learns what, and resuming in any of them."""

from pathlib import Path

import pytest
import torch
import toy_training as toy
from hypothesis import given
from hypothesis import strategies as st
from test_stepper import read

from hagane.kernels import updates
from hagane.model.indexer import is_indexers
from hagane.plan.index_phases import HIGHEST_WARMUP_RATE, WARMUP_RATE, WARMUP_REACH, index_phases, warmup_rate
from hagane.recipe.types import Phase
from hagane.train import loop
from hagane.train.loop import train
from hagane.train.schedule import learning_rate
from hagane.train.stepper import Stepper


def stepper(kind: str = "indexed", dtype: str = "float32") -> Stepper:
    return Stepper(toy.model(kind), device="cpu", dtype=dtype, compiled=False, seed=0)


def moved(trained: Stepper, step) -> set[str]:
    before = {name: master.clone() for name, master in [*trained.optimizer.masters.items(), *trained.decoder.router_state().items()]}
    step()
    after = {**trained.optimizer.masters, **trained.decoder.router_state()}
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_phase_moves_its_own_weights(data: Path, kind: str, dtype: str) -> None:
    """Weight decay, momentum of earlier phases and router biases included: what is frozen keeps every bit."""
    trained = Stepper(toy.model("indexed"), device="cpu", dtype=dtype, compiled=False, seed=0, optimizer=kind)
    batches = read(data, "text", 8, 1, 6)
    indexers = {name for name in trained.optimizer.masters if is_indexers(name)}
    others = set(trained.optimizer.masters) - indexers
    everything = indexers | others
    for index, wanted in (("sparse", everything), ("dense", others), ("warmup", indexers), ("together", everything), ("sparse", everything)):
        phase = toy.phase(index=index, weight_decay=0.1, optimizer=kind, index_ratio=3.0 if index == "together" else 1.0)
        changed = moved(trained, lambda phase=phase: trained.step(batches.pop(), phase, 1e-2))
        assert {name for name in changed if "router.load_E" not in name and "router.bias_E" not in name} == wanted
        assert any("router." in name for name in changed - wanted) == (index != "warmup")


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kernels", [True, False])
def test_together_indexers_move_at_their_own_rate_and_the_rest_as_without_them(
    data: Path, kind: str, dtype: str, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        monkeypatch.setattr(updates, "serves", lambda device, dtype: False)
    (batch,) = read(data, "text", 8, 1, 1)
    moved: list[dict[str, torch.Tensor]] = []
    for index, rate, ratio in (("together", 0.01, 4.0), ("dense", 0.01, 1.0), ("warmup", 0.04, 1.0)):
        trained = Stepper(toy.model("indexed"), device="cpu", dtype=dtype, compiled=False, seed=0, optimizer=kind)
        trained.step(batch, toy.phase(index=index, weight_decay=0.1, optimizer=kind, index_ratio=ratio, clip=0.0), rate)
        moved.append(trained.optimizer.masters)
    together, dense, alone = moved
    for name, master in together.items():
        torch.testing.assert_close(master, (alone if is_indexers(name) else dense)[name], atol=1e-6, rtol=1e-5, msg=name)


def test_the_warm_up_brings_the_indexers_to_attention_and_leaves_the_loss_alone(data: Path) -> None:
    trained = stepper()
    batches = read(data, "text", 8, 1, 40)
    for batch in batches[:10]:
        trained.step(batch, toy.phase(index="dense"), 1e-2)
    loss = float(trained.step(batches[0], toy.phase(index="dense"), 0.0).loss)
    divergences = []
    for batch in batches[10:]:
        result = trained.step(batch, toy.phase(index="warmup"), warmup_rate(trained.decoder.config.width, 30))
        tokens = sum(float(one.num_tokens) for one in result.stats.indexers)
        divergences.append(sum(float(one.divergence_sum) for one in result.stats.indexers) / tokens)
        assert float(result.auxiliary_loss) > divergences[-1]  # and what the routers' losses are, which nothing can change here
    assert sum(divergences[-5:]) < 0.5 * sum(divergences[:5])
    assert float(trained.step(batches[0], toy.phase(index="warmup"), 0.0).loss) == pytest.approx(loss, abs=1e-6)


def test_phases_of_indexers_change_nothing_for_a_model_without(data: Path) -> None:
    plain, other = stepper("latent"), stepper("latent")
    for batch, index in zip(read(data, "text", 4, 1, 3), ("dense", "warmup", "sparse"), strict=True):
        plain.step(batch, toy.phase(), 1e-2)
        other.step(batch, toy.phase(index=index), 1e-2)
    for name, master in plain.optimizer.masters.items():
        assert torch.equal(master, other.optimizer.masters[name])


@pytest.mark.parametrize(("optimizer", "alone"), [("adamw", True), ("muon", True), ("muon", False)])
def test_a_stage_interrupted_in_any_phase_ends_bit_equal(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, alone: bool) -> None:
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(loop, "LAST_STRETCH", 0.0)
    warming = "warmup" if alone else "together"
    phases = index_phases((toy.phase(num_steps=12, accumulation=2, optimizer=optimizer),), 64, 0.4, 0.3, alone=alone)
    cut = [(phase.name, phase.num_steps, phase.index) for phase in phases]
    assert cut == [("main-dense", 5, "dense"), (f"main-{warming}", 4, warming), ("main", 3, "sparse")]
    whole = toy.settings(tmp_path / "whole", data, "indexed", phases, dtype="bfloat16")
    train(whole)
    broken = toy.settings(tmp_path / "broken", data, "indexed", phases, dtype="bfloat16", checkpoint_seconds=0.0)
    for step in (2, 6, 9, 11):
        with pytest.raises(toy.Crash):
            train(broken, callbacks=[toy.CrashAt(step)])
    train(broken)
    assert toy.digest(tmp_path / "broken") == toy.digest(tmp_path / "whole")
    keys = ("step", "phase", "loss", "auxiliary_loss", "gradient_norm", "indexer")
    lines = [[line[key] for key in keys] for line in toy.lines(tmp_path / "whole")]
    assert [[line[key] for key in keys] for line in toy.lines(tmp_path / "broken")] == lines
    assert lines[0][-1] is None  # dense
    assert lines[-1][-1]["divergence"] > 0
    assert 1 <= lines[-1][-1]["keys_read"] <= 4


def rates(phases: tuple[Phase, ...]) -> list[float]:
    return [learning_rate(phase, step, step / phase.num_steps) for phase in phases for step in range(phase.num_steps)]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=3), dense=st.floats(0, 0.7), warmup=st.floats(0, 0.29), warm=st.integers(0, 9),
    decay=st.floats(0, 1), final=st.floats(0, 1), alone=st.booleans(),
)  # fmt: skip
def test_cut_into_phases_the_model_learns_as_fast_as_before(lengths, dense, warmup, warm, decay, final, alone) -> None:
    schedule = {"decay_share": decay, "final_share": final}
    whole = tuple(toy.phase(num_steps=length, warmup_steps=0 if index else warm, **schedule) for index, length in enumerate(lengths))
    cut, warming = index_phases(whole, 64, dense, warmup, alone=alone), "warmup" if alone else "together"
    total = sum(lengths)
    assert sum(phase.num_steps for phase in cut) == total
    order = [phase.index for phase in cut]
    assert order == sorted(order, key=["dense", warming, "sparse"].index)
    assert sum(phase.num_steps for phase in cut if phase.index == "dense") == round(total * dense)
    assert sum(phase.num_steps for phase in cut if phase.index == warming) == round(total * warmup)
    step = 0
    before = rates(whole)
    for phase in cut:
        mine = rates((phase,))
        if phase.index == "warmup":
            assert max(mine) <= warmup_rate(64, round(total * warmup))
            step += phase.num_steps
            continue
        if phase.index == "together" and phase.learning_rate:
            assert phase.learning_rate * phase.index_ratio == pytest.approx(max(phase.learning_rate, warmup_rate(64, round(total * warmup))))
        else:
            assert phase.index_ratio == 1
        if warm <= min(lengths[0], cut[0].num_steps) and cut[0].index != "warmup":  # a warm-up of the learning rate that is not cut
            assert mine == pytest.approx(before[step : step + phase.num_steps], rel=1e-6, abs=1e-12)
        step += phase.num_steps


@given(width=st.integers(16, 16384), steps=st.integers(1, 10**6))
def test_a_short_warm_up_takes_longer_steps(width: int, steps: int) -> None:
    rate = warmup_rate(width, steps)
    assert WARMUP_RATE <= rate <= HIGHEST_WARMUP_RATE
    if WARMUP_RATE < rate < HIGHEST_WARMUP_RATE:
        assert rate * width * steps == pytest.approx(WARMUP_REACH)


def test_the_warm_up_of_the_published_training_is_the_published_one() -> None:
    """DeepSeek-V3.2-Exp (2025, section 2.1): a thousand steps at 1e-3, width 7,168."""
    assert warmup_rate(7168, 1000) == WARMUP_RATE
