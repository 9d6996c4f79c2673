"""A whole stage: what it writes, how it goes on after an interruption, when it refuses to."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_training as toy
from safetensors.torch import load_file, save_file

from hagane.data.batch import Batch
from hagane.data.source import BatchSource
from hagane.engine.load import load_decoder, load_weights
from hagane.errors import DataError, RunError, TrainingError
from hagane.model.config import ModelConfig
from hagane.model.count import flops_per_token
from hagane.model.decoder import Decoder
from hagane.train import checkpoint, loop, objective
from hagane.train.callbacks import Callback, StepInfo
from hagane.train.journal import TIMINGS
from hagane.train.loop import train

KINDS = [
    ("dense", "float32"), ("dense", "bfloat16"), ("routed", "bfloat16"), ("bias", "float32"), ("null", "bfloat16"), ("delta", "bfloat16"), ("mtp", "bfloat16"),
]  # fmt: skip
BIAS = "layers.1.ffn.router.bias_E"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints as often as asked for, however short the run."""
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(loop, "LAST_STRETCH", 0.0)


@pytest.fixture
def always(often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step, waited for."""
    save = checkpoint.Writer.save

    def save_and_wait(self: checkpoint.Writer, made: checkpoint.Checkpoint) -> None:
        save(self, made)
        self.wait()

    monkeypatch.setattr(checkpoint.Writer, "save", save_and_wait)


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in toy.lines(folder)]


def test_a_stage_writes_what_the_others_read(tmp_path: Path, data: Path) -> None:
    settings = toy.settings(tmp_path, data, "routed")
    facts = train(settings)
    assert facts.steps == 20 and facts.attempts == 1
    assert facts.tokens == facts.planned_tokens == 20 * 4 * toy.CONTEXT
    assert facts.joules == pytest.approx(10.0 * facts.seconds)
    whole = 3 * flops_per_token(settings.model, toy.CONTEXT) * facts.tokens_per_second / 1e11
    assert 0.9 * whole < facts.mean_utilisation < whole  # rows hold several documents: fewer pairs see each other than in whole rows
    weights = load_file(tmp_path / "weights.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert weights.keys() == dict(Decoder(settings.model).named_parameters()).keys()
    assert ModelConfig.model_validate_json((tmp_path / "model.json").read_text()) == settings.model
    lines = toy.lines(tmp_path)
    assert [line["step"] for line in lines] == [1, 5, 10, 15, 20]
    assert list(lines[0]) == [
        "step", "phase", "progress", "learning_rate", "tokens", "seconds", "loss", "auxiliary_loss", "mtp_loss", "gradient_norm",
        "tokens_per_second", "flop_utilisation", "data_seconds", "memory_bytes", "router", "indexer",
    ]  # fmt: skip
    assert lines[-1]["progress"] == 1.0 and lines[-1]["loss"] < lines[0]["loss"] - 0.5
    assert lines[-1]["router"].keys() == {"max_violation", "dead_share", "effective_experts", "conditional_entropy", "marginal_entropy"}
    assert [line["event"] for line in toy.lines(tmp_path, "events.jsonl")] == ["start", "compiled", "checkpoint", "done"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000020"]


def test_null_experts_and_clamping_are_on_every_line(tmp_path: Path, data: Path) -> None:
    """And in the facts; what moves once per step is part of the checkpoint."""
    facts = train(toy.settings(tmp_path, data, "null"))
    lines = [line["router"] for line in toy.lines(tmp_path)]
    assert all(line["mean_experts"] == pytest.approx(sum(index * share for index, share in enumerate(line["experts_used"]))) for line in lines)
    assert all(len(line["experts_used"]) == 3 and sum(line["experts_used"]) == pytest.approx(1.0) for line in lines)
    assert all(-1.0 <= line["loss_correlation"] <= 1.0 for line in lines)
    pull = [line["multiplier_conditional_high"] for line in lines]
    assert pull[-1] > pull[1] > 0.001 and lines[-1]["clamped_share"] > 0
    assert facts.router is not None and facts.router.model_dump(mode="json", exclude_none=True) == lines[-1]
    saved, _ = checkpoint.newest(tmp_path / "checkpoints")
    assert saved is not None
    state = {name.removeprefix("router.layers.1.ffn.router.") for name in saved.rest if name.startswith("router.")}
    assert state == {"load_E", "bias_E", "clamp.marginal_E", "clamp.entropy_2", "clamp.log_multiplier_B"}


def test_a_finished_stage_gives_its_facts_again(tmp_path: Path, data: Path) -> None:
    settings = toy.settings(tmp_path, data)
    first, before = train(settings), toy.digest(tmp_path)
    again = train(settings)
    assert toy.digest(tmp_path) == before
    assert (again.steps, again.tokens, again.final_loss, again.router) == (first.steps, first.tokens, first.final_loss, first.router)
    assert again.attempts == 2


BY_KERNELS = [("dense", "bfloat16", True), ("routed", "bfloat16", True), ("mtp", "float32", True)]  # `compile`, of which nothing is left for the compiler


@pytest.mark.parametrize(("kind", "dtype", "compiled"), [*((*kind, False) for kind in KINDS), *BY_KERNELS])
def test_an_interrupted_stage_ends_bit_equal(tmp_path: Path, data: Path, often: None, kind: str, dtype: str, compiled: bool) -> None:
    phases = (toy.phase(num_steps=12, accumulation=2), toy.phase(name="anneal", num_steps=8, mixture={"second.sv": 1.0}, warmup_steps=0))
    whole = toy.settings(tmp_path / "whole", data, kind, phases, dtype=dtype, compile=compiled)
    train(whole)
    broken = toy.settings(tmp_path / "broken", data, kind, phases, dtype=dtype, compile=compiled, checkpoint_seconds=0.0)
    for step in (2, 7, 12, 13, 18):
        with pytest.raises(toy.Crash):
            train(broken, callbacks=[toy.CrashAt(step)])
    facts = train(broken)
    assert facts.attempts == 6
    assert toy.digest(tmp_path / "broken") == toy.digest(tmp_path / "whole")
    assert timeless(tmp_path / "broken") == timeless(tmp_path / "whole")
    assert len(toy.events(tmp_path / "broken", "resume")) == 5
    saved = [checkpoint.newest(tmp_path / name / "checkpoints")[0] for name in ("whole", "broken")]
    for group in checkpoint.GROUPS:
        left, right = (getattr(one, group) for one in saved)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left), group


def test_a_stage_without_a_checkpoint_starts_again_and_says_so(tmp_path: Path, data: Path) -> None:
    train(toy.settings(tmp_path / "whole", data))
    settings = toy.settings(tmp_path / "broken", data)
    with pytest.raises(toy.Crash):
        train(settings, callbacks=[toy.CrashAt(7)])
    train(settings)
    assert toy.digest(tmp_path / "broken") == toy.digest(tmp_path / "whole")
    assert timeless(tmp_path / "broken") == timeless(tmp_path / "whole")
    assert "starts again" in toy.events(tmp_path / "broken", "no_checkpoint")[0]["message"]


def test_a_broken_checkpoint_is_named_and_the_one_before_used(tmp_path: Path, data: Path, always: None) -> None:
    train(toy.settings(tmp_path / "whole", data))
    settings = toy.settings(tmp_path / "broken", data, checkpoint_seconds=0.0)
    with pytest.raises(toy.Crash):
        train(settings, callbacks=[toy.CrashAt(9)])
    newest, before = checkpoint.complete(tmp_path / "broken" / "checkpoints")
    file = newest / "moments.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    train(settings)
    (event,) = toy.events(tmp_path / "broken", "broken_checkpoint")
    assert newest.name in event["message"]
    assert toy.events(tmp_path / "broken", "resume")[0]["step"] == int(before.name.removeprefix("step-"))
    assert toy.digest(tmp_path / "broken") == toy.digest(tmp_path / "whole")


def test_other_settings_do_not_go_on_from_a_checkpoint(tmp_path: Path, data: Path) -> None:
    train(toy.settings(tmp_path, data))
    with pytest.raises(RunError, match="made with another seed"):
        train(toy.settings(tmp_path, data, seed=4))
    with pytest.raises(RunError, match="another phases"):
        train(toy.settings(tmp_path, data, phases=(toy.phase(learning_rate=1.0),)))
    train(toy.settings(tmp_path, data, checkpoint_seconds=5.0))  # how it is run may change


def test_training_goes_on_from_other_weights(tmp_path: Path, data: Path) -> None:
    train(toy.settings(tmp_path / "first", data))
    tune = toy.phase(collection="tune", mixture={"talk.en": 1.0}, warmup_steps=0)
    settings = toy.settings(tmp_path / "second", data, phases=(tune,), initial=tmp_path / "first" / "weights.safetensors")
    train(settings)
    first, second = toy.lines(tmp_path / "first"), toy.lines(tmp_path / "second")
    assert second[0]["loss"] < first[0]["loss"] - 0.5
    with pytest.raises(TrainingError, match=r"nowhere\.safetensors, cannot be read"):
        train(toy.settings(tmp_path / "third", data, initial=tmp_path / "nowhere.safetensors"))
    with pytest.raises(TrainingError, match="do not fit the model"):
        train(toy.settings(tmp_path / "fourth", data, kind="routed", initial=tmp_path / "first" / "weights.safetensors"))


def test_selection_biases_go_on_with_the_weights(tmp_path: Path, data: Path) -> None:
    """Without them a later stage, an evaluation or a release would choose other experts than training did."""
    train(toy.settings(tmp_path / "first", data, "bias"))
    state = load_weights(tmp_path / "first")
    assert state[BIAS].any()
    decoder, _ = load_decoder(tmp_path / "first")
    assert torch.equal(decoder.selection_biases()[BIAS], state[BIAS])
    last = toy.phase(num_steps=1, learning_rate=1e-9, warmup_steps=0)
    train(toy.settings(tmp_path / "second", data, "bias", (last,), initial=tmp_path / "first" / "weights.safetensors"))
    assert (load_weights(tmp_path / "second")[BIAS] - state[BIAS]).abs().max() <= 1.01e-3  # one step of the bias rate
    save_file({name: tensor for name, tensor in state.items() if name != BIAS}, tmp_path / "without.safetensors")
    with pytest.raises(TrainingError, match="bias_E"):
        train(toy.settings(tmp_path / "other", data, "bias", initial=tmp_path / "without.safetensors"))


def test_phases_change_context_and_go_on_in_the_data(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    plain = BatchSource.step

    def spy(self: BatchSource, counter: int) -> Any:
        step = plain(self, counter)
        seen.extend((batch.names[source], row) for batch in step.batches for source, row in zip(batch.source_B.tolist(), batch.rows))
        return step

    monkeypatch.setattr(BatchSource, "step", spy)
    first = toy.phase(num_steps=4, rows=2, mixture={"first.en": 1.0})
    long = toy.phase(name="long", context=2 * toy.CONTEXT, num_steps=3)
    train(toy.settings(tmp_path, data, phases=(first, long, first.model_copy(update={"name": "again"}))))
    short = seen[:8] + seen[-8:]
    assert len(set(short)) == 16  # no row twice before all were read
    assert [event["context"] for event in toy.events(tmp_path, "compiled")] == [16, 32]
    assert [line["phase"] for line in toy.lines(tmp_path)] == ["main", "long", "again", "again"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_rows(tmp_path: Path, data: Path, always: None, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    plain = objective.OBJECTIVES["next_token"]

    def poisoned(outputs: Any, head: Any, batch: Batch) -> torch.Tensor:
        return plain(outputs, head, batch) * (value if 50 in batch.counters else 1.0)

    monkeypatch.setitem(objective.OBJECTIVES, "next_token", poisoned)
    settings = toy.settings(tmp_path, data, checkpoint_seconds=0.0)
    with pytest.raises(TrainingError, match=r"the loss of step 13 is (nan|inf).*first\.en rows .*samples .*50.*last good checkpoint is step-00000012"):
        train(settings)
    (event,) = toy.events(tmp_path, "not_finite")
    assert event["failed_step"] == 13 and "50" in event["rows"]
    saved, _ = checkpoint.newest(tmp_path / "checkpoints")
    assert saved.step == 12 and all(bool(tensor.isfinite().all()) for tensor in saved.masters.values())
    monkeypatch.setitem(objective.OBJECTIVES, "next_token", plain)
    train(settings)  # once the cause is gone it goes on
    train(toy.settings(tmp_path / "whole", data))
    assert toy.digest(tmp_path) == toy.digest(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(tmp_path: Path, data: Path, number: signal.Signals) -> None:
    class Send(Callback):
        def on_step(self, info: StepInfo) -> None:
            if info.step == 6:
                os.kill(os.getpid(), number)

    settings = toy.settings(tmp_path / "broken", data)
    handler = signal.getsignal(number)
    with pytest.raises(RunError, match=rf"stopped by {number.name} after step 6 of 20; a checkpoint was saved"):
        train(settings, callbacks=[Send()])
    assert signal.getsignal(number) == handler
    assert checkpoint.newest(tmp_path / "broken" / "checkpoints")[0].step == 6
    train(settings)
    train(toy.settings(tmp_path / "whole", data))
    assert toy.digest(tmp_path / "broken") == toy.digest(tmp_path / "whole")


def test_steering_ends_on_time_and_replays(tmp_path: Path, data: Path, often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this test runs 0.1 s a step, and twice as slow for a while; decisions follow from it alone."""
    clock = {"now": 0.0}

    class Tick(Callback):
        def on_step(self, info: StepInfo) -> None:
            clock["now"] += 0.2 if 20 <= info.step < 40 else 0.1

    observe = loop.Steering.observe
    monkeypatch.setattr(loop.Steering, "observe", lambda self, phase, seconds: observe(self, phase, 0.2 if 20 <= len(self._seen) < 40 else 0.1))
    phases = (toy.phase(num_steps=70), toy.phase(name="anneal", num_steps=30))
    settings = toy.settings(tmp_path / "steered", data, phases=phases)
    facts = train(settings, lambda: 10.0 - clock["now"], [Tick()])
    decisions = toy.events(tmp_path / "steered", "steer")
    assert decisions and clock["now"] == pytest.approx(10.0, abs=0.6)
    assert toy.lines(tmp_path / "steered")[-1]["progress"] == 1.0
    assert facts.planned_tokens == 100 * 64 and facts.tokens == facts.steps * 64

    replayed = toy.settings(tmp_path / "replayed", data, phases=phases, checkpoint_seconds=0.0)
    kept = [line for line in (tmp_path / "steered" / "events.jsonl").read_text().splitlines(True) if '"steer"' in line]
    (tmp_path / "replayed" / "events.jsonl").write_text("".join(kept))
    for step in (15, 45, 80):
        with pytest.raises(toy.Crash):
            train(replayed, callbacks=[toy.CrashAt(step)])
    train(replayed)
    assert toy.digest(tmp_path / "replayed") == toy.digest(tmp_path / "steered")
    assert timeless(tmp_path / "replayed") == timeless(tmp_path / "steered")


def test_real_time_is_kept(tmp_path: Path, data: Path) -> None:
    begun = time.monotonic()

    class Slow(Callback):
        def on_step(self, info: StepInfo) -> None:
            time.sleep(0.03)

    facts = train(toy.settings(tmp_path, data, phases=(toy.phase(num_steps=1000),)), lambda: 4.0 - (time.monotonic() - begun), [Slow()])
    assert 3.0 < time.monotonic() - begun < 12.0  # unsteered it would be thirty; a busy machine may be late
    assert facts.steps < 1000 and toy.lines(tmp_path)[-1]["progress"] == 1.0


def test_seconds_go_on_over_attempts(tmp_path: Path, data: Path, often: None) -> None:
    class Slow(toy.CrashAt):
        def on_step(self, info: StepInfo) -> None:
            time.sleep(0.02)
            super().on_step(info)

    settings = toy.settings(tmp_path, data, checkpoint_seconds=0.0)
    with pytest.raises(toy.Crash):
        train(settings, callbacks=[Slow(16)])
    first = toy.lines(tmp_path)[-1]["seconds"]
    facts = train(settings)
    seconds = [line["seconds"] for line in toy.lines(tmp_path)]
    assert seconds == sorted(seconds)
    assert facts.seconds > first


def test_a_full_disk_stops_with_the_checkpoint_before_intact(tmp_path: Path, data: Path, always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = toy.settings(tmp_path / "broken", data, checkpoint_seconds=0.0)
    plain, saves = checkpoint.save_tensors, []

    def fill(tensors: Any, path: Path) -> None:
        saves.append(path)
        if len(saves) > 7:
            path.write_bytes(b"as much as there was room for")
            raise OSError(28, "No space left on device", str(path))
        plain(tensors, path)

    monkeypatch.setattr(checkpoint, "save_tensors", fill)
    with pytest.raises(RunError, match=r"the disk is full: .*checkpoints.*Free some space, then resume"):
        train(settings)
    assert [path.name.startswith("step-") for path in (tmp_path / "broken" / "checkpoints").iterdir()] == [True, True]
    monkeypatch.setattr(checkpoint, "save_tensors", plain)
    train(settings)
    train(toy.settings(tmp_path / "whole", data))
    assert toy.digest(tmp_path / "broken") == toy.digest(tmp_path / "whole")


def test_data_that_is_not_there_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(DataError, match=r"mixture names absent\.xx"):
        train(toy.settings(tmp_path, data, phases=(toy.phase(mixture={"absent.xx": 1.0}),)))
    with pytest.raises(DataError, match=r"rows-64\.npz is missing"):
        train(toy.settings(tmp_path, data, phases=(toy.phase(context=64),)))
    small = tmp_path / "small"
    toy.write_collection(small / "text", {"first.en": 3}, vocabulary=toy.VOCABULARY + 1)
    with pytest.raises(RunError, match="98 token ids, but the model has 97"):
        train(toy.settings(tmp_path / "b", small, phases=(toy.phase(mixture={"first.en": 1.0}),)))


def test_saving_is_cheap_enough_to_say(tmp_path: Path, data: Path, often: None) -> None:
    train(toy.settings(tmp_path, data, phases=(toy.phase(num_steps=30),), checkpoint_seconds=0.0))
    saved = toy.events(tmp_path, "checkpoint")
    assert saved  # how many depends on how long the disk takes: the next is begun when the last is written
    assert all(event["blocked_seconds"] <= event["seconds"] for event in saved)
    state = json.loads((tmp_path / "checkpoints" / "step-00000030" / "state.json").read_text())
    assert state["sample_counter"] == 120 and state["progress"] == 1.0


def test_settings_are_values(tmp_path: Path, data: Path) -> None:
    settings = toy.settings(tmp_path, data)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 1  # type: ignore[misc]
    assert settings.result_settings() == dataclasses.replace(settings, threads=7, compile=True).result_settings()
    assert settings.result_settings() != dataclasses.replace(settings, dtype="float32").result_settings()
