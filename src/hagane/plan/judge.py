"""Judge a claim: every number that can be cross-checked, the worst outcome, what breaks it, and the nearest plan that is possible."""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass

from hagane.plan.check import OUTCOMES, Check, Outcome, Remedy
from hagane.plan.claim import Claim
from hagane.plan.compute_checks import check_compute, check_ratio, check_utilisation
from hagane.plan.fact_checks import check_active_share, check_corpus, check_energy, check_flops, check_memory, check_year
from hagane.plan.limits import ORDINARY_UTILISATION

CHECKS = (
    check_compute, check_ratio, check_utilisation, check_active_share, check_flops, check_memory, check_corpus, check_energy, check_year,
)  # fmt: skip
MAX_TRIED = 400  # plans looked at; a claim that has four numbers wrong needs about fifty


@dataclass(frozen=True)
class Verdict:
    """What was found. `nearest` is a possible claim and `changes` lead to it, one number after the other; None where nothing needs to change, and where none of
    MAX_TRIED plans was possible, which `stuck` tells."""

    claim: Claim
    checks: tuple[Check, ...]
    nearest: Claim | None = None
    changes: tuple[Remedy, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst of all checks."""
        return max((check.outcome for check in self.checks), key=OUTCOMES.index, default="possible")

    @property
    def stuck(self) -> bool:
        """Whether something needs to change and nothing was found that would do."""
        return self.outcome != "possible" and self.nearest is None

    @property
    def breaks(self) -> tuple[Check, ...]:
        """The checks that make the outcome, the one that is farthest outside first; none where all is possible."""
        outside = [check for check in self.checks if check.outcome == self.outcome != "possible"]
        return tuple(sorted(outside, key=lambda check: 0.5 if check.margin is None else check.margin))

    @property
    def conditions(self) -> tuple[str, ...]:
        """What unknown facts must be for the claim to hold."""
        return tuple(check.holds for check in self.checks if check.holds)


def _checked(claim: Claim) -> tuple[Check, ...]:
    return tuple(check for rule in CHECKS for check in rule(claim))


def _first(checks: tuple[Check, ...]) -> Check | None:
    """The first of the worst checks: compute comes before what follows from it."""
    outside = [check for check in checks if check.outcome != "possible"]
    return max(outside, key=lambda check: OUTCOMES.index(check.outcome), default=None)


def judge(claim: Claim) -> Verdict:
    """The verdict on a claim, with the possible plan that is nearest: the product of the factors by which numbers change is smallest."""
    checks = _checked(claim)
    order = itertools.count()  # claims cannot be compared; of equal costs the first found is taken
    waiting: list[tuple[float, int, Claim, tuple[Remedy, ...]]] = [(0.0, next(order), claim, ())]
    for _ in range(MAX_TRIED):
        if not waiting:
            break
        cost, _, current, changes = heapq.heappop(waiting)
        problem = _first(_checked(current))
        if problem is None:
            return Verdict(claim, checks, _complete(current), changes) if changes else Verdict(claim, checks)
        for remedy in problem.remedies:
            changed = current.model_copy(update=remedy.changes)
            heapq.heappush(waiting, (cost + (0.0 if remedy.follows else math.log(remedy.ratio)), next(order), changed, (*changes, remedy)))
    return Verdict(claim, checks)


def _complete(plan: Claim) -> Claim:
    """The plan with the tokens that its hardware allows, where none were stated."""
    full, per_token = plan.full_flops(), plan.flops_per_token()
    if plan.tokens is not None or full is None or per_token is None:
        return plan
    filled = plan.model_copy(update={"tokens": full * ORDINARY_UTILISATION / per_token})
    return plan if _first(_checked(filled)) else filled
