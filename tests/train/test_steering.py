"""Steering against a simulated clock: it ends on time whatever the machine does, and no earlier than it must."""

from collections.abc import Callable

import numpy as np
import pytest

from hagane.recipe.types import Phase
from hagane.train.schedule import Timetable
from hagane.train.steering import Steering


def phase(num_steps: int, **changes: object) -> Phase:
    values = {"name": "p", "collection": "text", "context": 8, "rows": 1, "mixture": {}, "learning_rate": 1.0, "decay_share": 0.3}
    return Phase.model_validate({**values, "num_steps": num_steps, **changes})


class Simulation:
    """Runs a timetable: `seconds(now, step)` says how long each step takes."""

    def __init__(
        self, timetable: Timetable, deadline: float, seconds: Callable[[float, int], float], costs: tuple[float, ...] = (1.0,), reserve: float = 0.0,
        most_steps: int | None = None,
    ):  # fmt: skip
        self.timetable, self.now, self.step, self.latest = timetable, 0.0, 0, 0.0
        self.steering = Steering(lambda: deadline - self.now, costs, most_steps)
        while self.step < timetable.num_steps:
            index, _ = timetable.locate(self.step)
            self.latest = seconds(self.now, self.step) * costs[index]
            self.now += self.latest
            self.step += 1
            if self.step > 1:  # the first step compiles
                self.steering.observe(index, self.latest)
            decision = self.steering.decide(timetable, self.step, reserve)
            if decision is not None:
                timetable.apply(decision)


@pytest.mark.parametrize("deadline", [20.0, 180.0, 600.0, 1200.0])
@pytest.mark.parametrize("step_seconds", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("planned", [0.7, 1.0, 1.4])
def test_ends_on_time_on_a_noisy_machine(deadline: float, step_seconds: float, planned: float) -> None:
    noise = np.random.default_rng(0)
    timetable = Timetable([phase(max(2, round(planned * deadline / step_seconds)))])
    run = Simulation(timetable, deadline, lambda now, step: step_seconds * noise.lognormal(0.0, 0.1))
    assert abs(run.now - deadline) <= 0.5 + step_seconds
    assert timetable.courses[0].progress(run.step) == 1.0


@pytest.mark.parametrize("deadline", [180.0, 600.0, 1200.0])
@pytest.mark.parametrize("begins", [0.1, 0.5, 0.8])
def test_ends_on_time_when_another_process_takes_a_core_for_a_minute(deadline: float, begins: float) -> None:
    step_seconds = 0.35

    def seconds(now: float, step: int) -> float:
        return step_seconds * (2.0 if begins * deadline <= now < begins * deadline + 60 else 1.0)

    timetable = Timetable([phase(round(deadline / step_seconds))])
    run = Simulation(timetable, deadline, seconds)
    assert abs(run.now - deadline) <= 0.5 + step_seconds
    # nothing is given away but the minute itself, which ran at half speed (or what of it lies before the deadline)
    lost = min(60.0, (1 - begins) * deadline) / 2
    assert run.step >= (deadline - lost) / step_seconds - 5


@pytest.mark.parametrize(("planned", "most"), [(400, 400), (400, 500), (300, 480)])
def test_there_are_never_more_steps_than_the_text_suffices_for(planned: int, most: int) -> None:
    """Time for 600 steps, and none is taken for more than `most`; where the machine slows down, fewer are made and come back as it recovers."""
    timetable = Timetable([phase(planned // 2), phase(planned // 2)])
    run = Simulation(timetable, 60.0, lambda now, step: 0.1 if not 5 < now < 15 else 0.4, (1.0, 1.0), most_steps=most)
    assert most - 2 <= run.step <= most and run.now < 60.0
    assert [course.progress(course.num_steps) for course in timetable.courses] == [1.0, 1.0]


def test_ends_on_time_when_it_slows_down_in_the_last_seconds() -> None:
    timetable = Timetable([phase(600)])
    run = Simulation(timetable, 60.0, lambda now, step: 0.1 if now < 55 else 0.3)
    assert abs(run.now - 60.0) <= 0.5 + 0.3


def test_a_checkpoint_that_stalls_every_minute_is_counted() -> None:
    timetable = Timetable([phase(1000)])
    run = Simulation(timetable, 200.0, lambda now, step: 0.2 + (1.0 if step % 300 == 299 else 0.0))
    assert abs(run.now - 200.0) <= 0.7


def test_phases_share_what_is_left_and_each_keeps_a_step() -> None:
    timetable = Timetable([phase(300), phase(100), phase(2)])
    run = Simulation(timetable, 60.0, lambda now, step: 0.2, costs=(1.0, 2.0, 1.0))
    assert abs(run.now - 60.0) <= 0.7
    first, second, third = (course.num_steps for course in timetable.courses)
    assert first / second == pytest.approx(3.0, rel=0.1)
    assert third >= 1
    late = Timetable([phase(300), phase(100), phase(2)])
    run = Simulation(late, 1.0, lambda now, step: 0.5, costs=(1.0, 1.0, 1.0))
    assert [course.num_steps for course in late.courses][1:] == [1, 1]  # too late for anything, yet every phase completes


def test_the_reserve_is_kept() -> None:
    run = Simulation(Timetable([phase(400)]), 60.0, lambda now, step: 0.2, reserve=5.0)
    assert abs(run.now - 55.0) <= 0.7


def test_a_plan_that_fits_is_left_alone() -> None:
    timetable = Timetable([phase(300)])
    Simulation(timetable, 60.0, lambda now, step: 0.2)
    assert timetable.decisions == []


def test_decisions_are_few() -> None:
    noise = np.random.default_rng(1)
    timetable = Timetable([phase(6000)])
    Simulation(timetable, 1200.0, lambda now, step: 0.25 * noise.lognormal(0.0, 0.2))
    assert len(timetable.decisions) < 80
