"""What people see while training."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_training import settings

from hagane.train.callbacks import ProgressDisplay, StepInfo, TensorBoard, describe, standard
from hagane.train.facts import TrainFacts
from hagane.train.loop import train

INFO = StepInfo(step=120, num_steps=800, phase="main", progress=0.15, seconds_left=80.2, tokens_per_second=12345.6, flop_utilisation=0.414, loss=3.21)


def test_a_line_says_it_all() -> None:
    assert describe(INFO) == "step 120/800  12,346 tok/s  FLOP 41%  loss 3.210  ETA 1min 20s"
    bare = StepInfo(step=1, num_steps=8, phase="main", progress=0.1, seconds_left=None, tokens_per_second=None, flop_utilisation=None, loss=None)
    assert describe(bare) == "step 1/8"


def test_without_a_terminal_there_are_plain_lines_now_and_then(tmp_path: Path, data: Path) -> None:
    out = io.StringIO()
    display = ProgressDisplay("pretrain", out, every=0.0)
    facts = train(settings(tmp_path / "a", data), callbacks=[display])
    lines = out.getvalue().splitlines()
    assert len(lines) == 21
    assert lines[9].startswith("pretrain    50.0%  step 10/20")
    assert lines[-1].startswith("pretrain   20 steps, 0.00M tokens in") and f"loss {facts.final_loss:.3f}" in lines[-1]
    quiet = io.StringIO()
    train(settings(tmp_path / "b", data), callbacks=[ProgressDisplay("pretrain", quiet)])
    assert len(quiet.getvalue().splitlines()) == 1  # no ten seconds have passed


def test_on_a_terminal_there_is_a_bar(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # a dumb one cannot rewrite its line
    out = io.StringIO()
    display = ProgressDisplay("tune", out, every=0.0)
    display._console = Console(file=out, force_terminal=True, width=120)
    display.on_start(settings(tmp_path, data, compile=True), 0, 10)
    display.on_step(INFO)
    display.on_event({"event": "broken_checkpoint", "step": 0, "message": "step-00000010 does not match its checksum"})
    display.on_end(TrainFacts.none())
    shown = out.getvalue()
    assert "compiling" in shown and "step 120/800" in shown and "15.0 %" in shown
    assert "broken checkpoint: step-00000010" in shown


def test_tensorboard_holds_every_number(tmp_path: Path, data: Path) -> None:
    made = settings(tmp_path, data, kind="routed")
    assert [type(callback) for callback in standard(made, "pretrain", stream=io.StringIO())] == [ProgressDisplay, TensorBoard]
    assert len(standard(made, "pretrain", tensorboard=False, stream=io.StringIO())) == 1
    train(made, callbacks=[TensorBoard(tmp_path / "tensorboard")])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/learning_rate", "train/tokens_per_second", "train/flop_utilisation", "router/max_violation"} <= tags
    assert [scalar.step for scalar in events.Scalars("train/loss")] == [1, 5, 10, 15, 20]


@pytest.mark.parametrize("method", ["on_start", "on_step", "on_metrics", "on_event", "on_end"])
def test_a_callback_that_fails_does_not_stop_training(tmp_path: Path, data: Path, method: str) -> None:
    from toy_training import events

    from hagane.train.callbacks import Callback

    def fail(self: Callback, *_: object) -> None:
        raise ValueError("tracker is down")

    broken = type("Broken", (Callback,), {method: fail})()
    assert train(settings(tmp_path, data), callbacks=[broken]).steps == 20
    (event,) = events(tmp_path, "callback_failed")
    assert f"Broken.{method} failed (ValueError: tracker is down)" in event["message"]
