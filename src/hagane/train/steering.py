"""End on time: choose how many steps are left from how long steps have taken. The clock comes from outside; no torch.

The cost of a step to come is the mean of the steps of a stretch in the past as long as the time that is left (without the
fastest and slowest tenth): far from the end a disturbance counts little, for it may pass; near the end only the latest steps count.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hagane.train.schedule import Decision, Timetable

SHORTEST_STRETCH = 3.0
"""Seconds of steps that an estimate is made of, at least."""

FEWEST_STEPS = 3
"""Steps that must have been seen before the first decision, and that an estimate is made of."""


@dataclass(frozen=True)
class _Seen:
    cost: float
    seconds: float


class Steering:
    """Watches steps and decides. `cost` gives the work of one step of each phase in any unit: only ratios count.

    Of a stage there are never more than `most_steps`, however much time is left.
    """

    def __init__(self, remaining: Callable[[], float], costs: Sequence[float], most_steps: int | None = None) -> None:
        self._remaining = remaining
        self._most_steps = math.inf if most_steps is None else most_steps
        self._costs = tuple(costs)
        self._seen: deque[_Seen] = deque(maxlen=4096)
        self._next_look = float("inf")  # in seconds remaining

    def observe(self, phase: int, seconds: float) -> None:
        """One finished step of `phase`, everything between it and the step before included. First steps, that compile, are not reported."""
        self._seen.append(_Seen(self._costs[phase], seconds))

    def step_seconds(self, phase: int, horizon: float) -> float | None:
        """Expected seconds of a step of `phase` over the coming `horizon` seconds; None before enough was seen."""
        if len(self._seen) < FEWEST_STEPS:
            return None
        rates: list[float] = []
        stretch = 0.0
        for seen in reversed(self._seen):
            rates.append(seen.seconds / seen.cost)
            stretch += seen.seconds
            if stretch >= max(horizon, SHORTEST_STRETCH) and len(rates) >= FEWEST_STEPS:
                break
        rates.sort()
        cut = len(rates) // 10
        kept = rates[cut : len(rates) - cut]
        return sum(kept) / len(kept) * self._costs[phase]

    def decide(self, timetable: Timetable, step: int, reserve: float) -> Decision | None:
        """A decision that takes effect at the coming step, or None where none is due. `reserve`: seconds to keep for what is not steps."""
        left = timetable.steps_left(step)
        if not left:
            return None
        remaining = self._remaining() - reserve
        if remaining > self._next_look:
            return None
        phase, _ = timetable.locate(step)
        seconds = [self.step_seconds(phase + offset, remaining) for offset in range(len(left))]
        known = [value for value in seconds if value is not None]
        if len(known) < len(left):
            return None
        # look again after a twentieth of what is left, at least every 20 s, at most twice a second
        self._next_look = remaining - min(max(0.05 * remaining, 0.5), 20.0)
        expected = sum(steps * value for steps, value in zip(left, known, strict=True))
        tolerance = max(0.5 * known[0], 0.005 * remaining)
        if abs(expected - remaining) <= tolerance:
            return None
        steps = _fit(left, known, min(remaining / expected, (self._most_steps - step) / sum(left)))
        if steps == left:
            return None
        return Decision(number=len(timetable.decisions), at_step=step, steps=tuple(steps))


def _fit(left: Sequence[int], seconds: Sequence[float], factor: float) -> list[int]:
    """Steps scaled by `factor`, at least one per phase; what rounding the later phases moved is made up in the current one."""
    later = [max(1, round(steps * factor)) for steps in left[1:]]
    budget = factor * sum(steps * value for steps, value in zip(left, seconds, strict=True))
    spent = sum(steps * value for steps, value in zip(later, seconds[1:], strict=True))
    return [max(1, round((budget - spent) / seconds[0])), *later]
