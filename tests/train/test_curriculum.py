"""Shorter rows first, in one training: no text twice, said when it changes, bit-equal after a stop at a boundary, and on time."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import toy_training as toy

from hagane.data.source import BatchSource
from hagane.train import loop
from hagane.train.journal import TIMINGS
from hagane.train.loop import train
from hagane.train.schedule import Timetable
from hagane.train.steering import Steering

LONG = 4 * toy.CONTEXT


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    toy.write_collection(folder / "text", {"first.en": 400, "second.sv": 300}, contexts=(toy.CONTEXT, 2 * toy.CONTEXT, LONG))
    return folder


def phases(*steps: int) -> Any:
    """Contexts 16, 32 and 64 with as many tokens a step."""
    contexts = (toy.CONTEXT, 2 * toy.CONTEXT, LONG)
    return tuple(
        toy.phase(name=f"main {context}", context=context, rows=8 * toy.CONTEXT // context, num_steps=count, warmup_steps=3 if context == toy.CONTEXT else 0)
        for context, count in zip(contexts, steps)
    )


def test_no_text_is_read_twice_and_every_change_is_said(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[tuple[str, int]] = Counter()
    plain = BatchSource.step

    def spy(self: BatchSource, counter: int) -> Any:
        step = plain(self, counter)
        units = self.phase.context // toy.CONTEXT  # a row as the shortest rows it is made of
        for batch in step.batches:
            for source, row in zip(batch.source_B.tolist(), batch.rows):
                seen.update((batch.names[source], row * units + unit) for unit in range(units))
        return step

    monkeypatch.setattr(BatchSource, "step", spy)
    train(toy.settings(tmp_path, data, phases=phases(4, 3, 3)))
    rows = {name: BatchSource([data], phases(1)[0], 0).collection.shard(name).rows(toy.CONTEXT).num_rows for name in ("first.en", "second.sv")}
    inside = {key: count for key, count in seen.items() if key[1] < rows[key[0]] // 4 * 4}
    assert max(inside.values()) == 1 and len(inside) > 70
    told = toy.events(tmp_path, "phase")
    assert [(event["phase"], event["context"], event["rows"], event["num_steps"]) for event in told] == [
        ("main 16", 16, 8, 4), ("main 32", 32, 4, 3), ("main 64", 64, 2, 3),
    ]  # fmt: skip
    assert [event["step"] for event in told] == [0, 4, 7]
    assert [line["tokens"] for line in toy.lines(tmp_path)] == [128, 640, 1280]


@pytest.mark.parametrize("kind", ["dense", "routed"])
def test_stopping_at_every_boundary_changes_no_bit(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(loop, "LAST_STRETCH", 0.0)
    train(toy.settings(tmp_path / "whole", data, kind, phases(6, 5, 5)))
    broken = toy.settings(tmp_path / "broken", data, kind, phases(6, 5, 5), checkpoint_seconds=0.0)
    for step in (5, 6, 7, 11, 12):
        with pytest.raises(toy.Crash):
            train(broken, callbacks=[toy.CrashAt(step)])
    train(broken)
    assert toy.digest(tmp_path / "broken") == toy.digest(tmp_path / "whole")
    timeless = [[{name: value for name, value in line.items() if name not in TIMINGS} for line in toy.lines(tmp_path / name)] for name in ("whole", "broken")]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("longer", [0.5, 1.0, 1.5])
def test_measured_steps_steer_phases_of_unlike_cost(longer: float) -> None:
    """Each step takes `longer` times what was measured; the end stays where it is, and phases keep their shares."""
    seconds, planned, deadline = (0.1, 0.15, 0.4), (600, 300, 200), 185.0
    timetable, now, step = Timetable(phases(*planned)), 0.0, 0
    steering = Steering(lambda: deadline - now, seconds)
    while step < timetable.num_steps:
        index, _ = timetable.locate(step)
        now += longer * seconds[index]
        steering.observe(index, longer * seconds[index])
        step += 1
        decision = steering.decide(timetable, step, 0.0)
        if decision is not None:
            timetable.apply(decision)
    assert abs(now - deadline) <= 1.0
    assert [course.num_steps / timetable.num_steps for course in timetable.courses] == pytest.approx([0.545, 0.273, 0.182], abs=0.03)


def test_steering_goes_by_measured_steps_where_there_are_some(tmp_path: Path, data: Path) -> None:
    by_flops = loop._Loop(toy.settings(tmp_path / "a", data, phases=phases(2, 2, 2)), lambda: 100.0, (), 0.0)
    measured = loop._Loop(toy.settings(tmp_path / "b", data, phases=phases(2, 2, 2), step_seconds=(1.0, 2.0, 4.0)), lambda: 100.0, (), 0.0)
    assert measured.costs == (1.0, 2.0, 4.0) and len(set(by_flops.costs)) == 3 and by_flops.costs == tuple(sorted(by_flops.costs))
    for one in (by_flops, measured):
        one.__exit__()
