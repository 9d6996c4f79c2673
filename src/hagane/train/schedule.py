"""How far a phase has come at each step, and the learning rate that follows from it. No torch, no clock.

Progress is piecewise linear in steps: from 0 to 1 over the planned steps, bent where steering changed how many are left. The learning
rate is warm-up–stable–decay (Hu et al. 2024, "MiniCPM") as a function of progress, so that a bend never makes it jump.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from hagane.recipe.types import Frozen, Phase


@dataclass(frozen=True)
class Leg:
    """A straight stretch: from `start` steps done, at `progress`, aimed at 1 after `left` more steps. The next leg may cut it short."""

    start: int
    progress: float
    left: int

    def at(self, step: int) -> float:
        return self.progress + (1.0 - self.progress) * (step - self.start) / self.left


@dataclass(frozen=True)
class Course:
    """Progress of one phase. A leg keeps its own aim when it is cut short, so that a later bend changes no bit of what was before."""

    legs: tuple[Leg, ...]

    @classmethod
    def planned(cls, num_steps: int) -> Course:
        return cls((Leg(0, 0.0, num_steps),))

    @property
    def num_steps(self) -> int:
        return self.legs[-1].start + self.legs[-1].left

    def progress(self, step: int) -> float:
        """Share of the phase that is done after `step` steps."""
        if step >= self.num_steps:
            return 1.0
        return self.legs[bisect_right(self.legs, step, key=lambda leg: leg.start) - 1].at(step)

    def bent(self, step: int, left: int) -> Course:
        """The same up to `step`, then what is missing in `left` more steps."""
        kept = tuple(leg for leg in self.legs if leg.start < step)
        return Course((*kept, Leg(step, self.progress(step), left)))


def learning_rate(phase: Phase, step: int, progress: float) -> float:
    """Rate of the step that follows `step` steps of the phase, at that progress."""
    warm = min(1.0, (step + 1) / phase.warmup_steps) if phase.warmup_steps else 1.0
    left = 1.0 - progress
    if left >= phase.decay_share:
        return phase.learning_rate * warm
    return phase.learning_rate * warm * (phase.final_share + (1.0 - phase.final_share) * left / phase.decay_share)


class Decision(Frozen):
    """A change of the number of steps, made before step `at_step` runs: steps left in its phase and steps of each later one."""

    number: int
    at_step: int
    steps: tuple[int, ...]


class Timetable:
    """The courses of all phases of a stage, and every decision that bent them. Steps are counted over the stage from 0."""

    def __init__(self, phases: Sequence[Phase], decisions: Sequence[Decision] = ()) -> None:
        self.phases = tuple(phases)
        self.courses = [Course.planned(phase.num_steps) for phase in phases]
        self.decisions: list[Decision] = []
        for decision in decisions:
            self.apply(decision)

    @property
    def num_steps(self) -> int:
        return sum(course.num_steps for course in self.courses)

    def locate(self, step: int) -> tuple[int, int]:
        """The phase that the step after `step` steps belongs to, and how many steps of it are done. `step` < num_steps."""
        ends = list(accumulate(course.num_steps for course in self.courses))
        index = bisect_right(ends, step)
        return index, step - (ends[index - 1] if index else 0)

    def steps_left(self, step: int) -> list[int]:
        """Steps left in the current phase and in each later one."""
        if step >= self.num_steps:
            return []
        index, done = self.locate(step)
        return [self.courses[index].num_steps - done, *(course.num_steps for course in self.courses[index + 1 :])]

    def apply(self, decision: Decision) -> None:
        index, done = self.locate(decision.at_step)
        current, *later = decision.steps
        self.courses[index] = self.courses[index].bent(done, current)
        self.courses[index + 1 :] = [Course.planned(steps) for steps in later]
        self.decisions.append(decision)

    def progress(self, step: int) -> tuple[int, float]:
        """Phase of the last of the first `step` steps (>= 1), and its progress after it."""
        index, done = self.locate(step - 1)
        return index, self.courses[index].progress(done + 1)

    def learning_rate(self, step: int) -> float:
        """Rate of the step that follows `step` steps."""
        index, done = self.locate(step)
        return learning_rate(self.phases[index], done, self.courses[index].progress(done))
