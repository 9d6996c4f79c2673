"""Progress and learning rate in closed form, planned and bent."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.recipe.types import Phase
from hagane.train.schedule import Course, Decision, Timetable, learning_rate


def phase(**changes: object) -> Phase:
    values = {"name": "p", "collection": "text", "context": 8, "rows": 1, "num_steps": 100, "mixture": {}, "learning_rate": 2.0}
    return Phase.model_validate({**values, **changes})


def test_warm_up_stable_decay() -> None:
    wsd = phase(warmup_steps=10, decay_share=0.2, final_share=0.1)
    rates = [learning_rate(wsd, step, step / 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9:80] == pytest.approx([2.0] * 71)
    assert rates[90] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert learning_rate(wsd, 100, 1.0) == pytest.approx(0.2)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))


def test_no_warm_up_and_no_decay() -> None:
    assert {learning_rate(phase(decay_share=0.0), step, step / 100) for step in range(100)} == {2.0}


@given(num_steps=st.integers(2, 500), bends=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 300)), max_size=6))
def test_a_bent_course_rises_to_one_and_keeps_its_past(num_steps: int, bends: list[tuple[float, int]]) -> None:
    course, done = Course.planned(num_steps), 0
    for where, left in bends:
        done = done + int(where * (course.num_steps - 1 - done))
        bent = course.bent(done, left)
        assert bent.num_steps == done + left
        assert [bent.progress(step) for step in range(done + 1)] == [course.progress(step) for step in range(done + 1)]
        course = bent
    values = [course.progress(step) for step in range(course.num_steps + 1)]
    assert values[0] == 0.0 and values[-1] == 1.0
    assert all(earlier < later for earlier, later in pairwise(values))


def test_a_bend_does_not_make_the_rate_jump() -> None:
    timetable = Timetable([phase(decay_share=0.5, num_steps=100)])
    before = timetable.learning_rate(70)
    timetable.apply(Decision(number=0, at_step=70, steps=(90,)))
    assert timetable.learning_rate(70) == before
    assert timetable.num_steps == 160
    assert before - timetable.learning_rate(71) == pytest.approx((before - 0.0) / 90)


def test_a_timetable_of_phases() -> None:
    timetable = Timetable([phase(num_steps=10), phase(num_steps=4), phase(num_steps=6)])
    assert timetable.num_steps == 20
    assert [timetable.locate(step) for step in (0, 9, 10, 13, 14, 19)] == [(0, 0), (0, 9), (1, 0), (1, 3), (2, 0), (2, 5)]
    assert timetable.steps_left(12) == [2, 6]
    assert timetable.steps_left(20) == []
    assert timetable.progress(10) == (0, 1.0) and timetable.progress(11) == (1, 0.25)
    timetable.apply(Decision(number=0, at_step=10, steps=(8, 3)))  # at a border it is the coming phase that bends
    assert [course.num_steps for course in timetable.courses] == [10, 8, 3]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 40), st.integers(1, 40)), max_size=5))
def test_replay_gives_the_same_timetable(draws: list[tuple[float, int, int]]) -> None:
    phases = [phase(num_steps=30), phase(num_steps=20)]
    live, step = Timetable(phases), 0
    past: list[tuple[int, float]] = []
    for where, current, later in draws:
        end = live.num_steps
        coming = step + max(1, int(where * (end - step - 1)))
        if coming >= end:
            break
        past += [live.progress(done) for done in range(step + 1, coming + 1)]
        step = coming
        left = live.steps_left(step)
        live.apply(Decision(number=len(live.decisions), at_step=step, steps=(current, later)[: len(left)]))
    replayed = Timetable(phases, live.decisions)
    assert [course.legs for course in replayed.courses] == [course.legs for course in live.courses]
    # knowing the decisions to come changes nothing of the steps before them
    assert [replayed.progress(done) for done in range(1, step + 1)] == past
