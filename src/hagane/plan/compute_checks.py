"""Compute: what the hardware can do in the time against what the model takes. Where a number is unknown, what it must be."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hagane.plan.amounts import amount, factor, flops, percent
from hagane.plan.check import Check, Remedy, grade, joined, more_hours, times
from hagane.plan.claim import Claim
from hagane.plan.limits import (
    ACTIVE_SHARE,
    DENSE_UTILISATION,
    FRONTIER,
    FRONTIER_ROOM,
    MEASURED_UTILISATION,
    MOE_UTILISATION,
    OPTIMAL_TOKENS_PER_PARAMETER,
    ORDINARY_UTILISATION,
    TOKENS_PER_PARAMETER,
    USEFUL_TOKENS_PER_PARAMETER,
    Limit,
    frontier,
)
from hagane.recipe.types import duration

A100 = 312e12  # FLOP/s: the unit in which compute is told where the hardware is unknown


def utilisation_limit(claim: Claim) -> Limit:
    """The limit for this kind of model; an unknown architecture gets the benefit of the doubt."""
    if claim.measured:
        return MEASURED_UTILISATION
    return MOE_UTILISATION if claim.architecture == "moe" else DENSE_UTILISATION


def active_limit(claim: Claim) -> Limit:
    """The smallest share of parameters a token may use: of E routed experts at least k / E are used, and all that is not an expert."""
    if claim.experts is None:
        return ACTIVE_SHARE
    edge = (claim.top_k or 1) / claim.experts
    return Limit(max(ACTIVE_SHARE.usual, edge), edge, f"{claim.top_k or 'at least 1'} of {claim.experts} experts is {percent(edge)}; {ACTIVE_SHARE.source}")


def check_compute(claim: Claim) -> Iterator[Check]:
    """The check that the known facts allow: of utilisation, of tokens, or of the unknown active parameters."""
    full, needed = claim.full_flops(), claim.needed_flops()
    if full is None:
        yield from _without_hardware(claim)
    elif needed is not None:
        yield _utilisation_needed(claim, full, needed)
    elif claim.active is not None:
        yield _tokens_allowed(claim, full * ORDINARY_UTILISATION)
    elif claim.parameters is not None:
        yield _active_allowed(claim, full)


def available(claim: Claim) -> str:
    """The line of arithmetic for what the hardware can do."""
    parts = []
    for item, hours in claim.hours() or ():
        rate = f"{(item.peak() or 0) / 1e12:,.4g} TFLOP/s{' measured' if item.measured else ''}"
        given = item.count is not None and claim.days is not None and claim.device_hours is None
        parts.append(f"{item} x {_time(claim.days or 0)} x {rate}" if given else f"{amount(hours)} hours of {item.accelerator} x {rate}")
    full = claim.full_flops() or 0.0
    return f"available: {' + '.join(parts)} = {flops(full)} at 100 %, {flops(full * ORDINARY_UTILISATION)} at {percent(ORDINARY_UTILISATION)}"


def _time(days: float) -> str:
    return f"{days:.4g} days" if days >= 1 else duration(days * 86400)


def _needed_line(claim: Claim, needed: float) -> str:
    if claim.flops is not None:
        return f"needed: {flops(needed)}, as stated"
    per_token = claim.flops_per_token() or 0.0
    attention = per_token - 6 * (claim.active or 0.0)
    text = f"6 x {amount(claim.active or 0)} active" + (f" + {amount(attention)} of attention" if attention else "")
    return f"needed: ({text}) x {amount(claim.tokens or 0)} tokens = {flops(needed)}"


def _utilisation_needed(claim: Claim, full: float, needed: float) -> Check:
    limit, share = utilisation_limit(claim), needed / full
    margin = limit.usual / share
    wanted = share / ORDINARY_UTILISATION
    remedies = joined([more_hours(claim, wanted), _less_work(claim, wanted)]) if margin < 1 else ()
    lines = (available(claim), _needed_line(claim, needed), f"that is {percent(share)} of the peak; {limit.source}")
    return Check("compute", grade(margin, limit), margin, lines, remedies=remedies)


def _less_work(claim: Claim, wanted: float) -> list[Remedy]:
    """Fewer tokens, or fewer active parameters, by the factor `wanted`. Published FLOPs no longer hold then."""
    found = [Remedy(item.text, item.ratio, {**item.changes, "flops": None}) for item in times("tokens", claim.tokens, 1 / wanted, "tokens")]
    smaller = times("active parameters", claim.active, 1 / wanted, "active_parameters")
    return found + [Remedy(item.text, item.ratio, {**item.changes, "architecture": "moe", "flops": None}) for item in smaller]


def _tokens_allowed(claim: Claim, useful: float) -> Check:
    """Tokens are not stated: how many the hardware allows, and whether they are enough to learn from."""
    active = claim.active or 0.0
    tokens = useful / (claim.flops_per_token() or 1.0)
    margin, wanted = tokens / active / TOKENS_PER_PARAMETER.usual, USEFUL_TOKENS_PER_PARAMETER * active / tokens
    best = math.sqrt(useful / (6 * OPTIMAL_TOKENS_PER_PARAMETER))
    lines = (
        available(claim),
        f"tokens are not stated; these FLOPs allow {flops(useful)[:-6]} / (6 x {amount(active)} active) = {amount(tokens)} tokens",
        f"that is {factor(tokens / active)} tokens a parameter; {TOKENS_PER_PARAMETER.source}",
        f"the best use of the same FLOPs: {amount(best)} active on {amount(best * OPTIMAL_TOKENS_PER_PARAMETER)} tokens",
    )
    remedies: tuple[Remedy, ...] = ()
    if margin < 1:
        # active parameters with enough tokens each: 6 a x (tokens a parameter x a) = FLOPs
        smaller = times("active parameters", active, math.sqrt(useful / 6 / USEFUL_TOKENS_PER_PARAMETER) / active, "active_parameters")
        remedies = joined([more_hours(claim, wanted), [Remedy(item.text, item.ratio, {**item.changes, "architecture": "moe"}) for item in smaller]])
    return Check("tokens", grade(margin, TOKENS_PER_PARAMETER), margin, lines, remedies=remedies)


def _active_allowed(claim: Claim, full: float) -> Check:
    """Active parameters are not stated: how many the hardware allows, and whether a model of this size can do with them."""
    total, limit = claim.parameters or 0.0, active_limit(claim)

    def allowed(share: float) -> float:
        return share * full / (6 * claim.tokens) if claim.tokens else math.sqrt(share * full / 6 / USEFUL_TOKENS_PER_PARAMETER)

    fits, most = min(total, allowed(ORDINARY_UTILISATION)), allowed(utilisation_limit(claim).edge)
    margin = fits / total / limit.usual
    outcome = grade(margin, limit)
    if outcome == "impossible" and most / total >= limit.edge:
        outcome = "at the edge"
    useful = flops(full * ORDINARY_UTILISATION)[:-6]
    shown = f"{useful} / (6 x {amount(claim.tokens)} tokens)" if claim.tokens else f"sqrt({useful} / 6), one token each,"
    lines = (
        available(claim),
        f"active parameters are not stated; these FLOPs allow {shown} = {amount(fits)}",
        f"that is {percent(fits / total)} of all; {limit.source}",
    )
    least = f", and with {claim.experts} experts at least {amount(total * limit.edge)} are active" if claim.experts else ""
    holds = f"holds only with at most {amount(fits)} active parameters{least}" if fits < total else ""
    return Check("active parameters", outcome, margin, lines, holds, _with_active(claim, fits, margin) if margin < 1 else ())


def _with_active(claim: Claim, fits: float, margin: float) -> tuple[Remedy, ...]:
    """What gives a model of unknown active parameters enough of them: more compute or fewer tokens, or fewer parameters in all."""
    enough = {"active_parameters": fits / margin, "architecture": "moe"}
    # without stated tokens they grow with the model, so compute goes with the square
    more = [*more_hours(claim, margin**-1 if claim.tokens else margin**-2), *times("tokens", claim.tokens, margin, "tokens")]
    found = [Remedy(f"{item.text} with {amount(fits / margin)} active", item.ratio, {**item.changes, **enough}) for item in more]
    smaller = times("parameters", claim.parameters, margin, "parameters")
    few = {"active_parameters": fits / 1.001, "architecture": "moe"}
    return joined([found, [Remedy(f"{item.text} with {amount(fits)} active", item.ratio, {**item.changes, **few}) for item in smaller]])


def _without_hardware(claim: Claim) -> Iterator[Check]:
    """Devices or days are unknown: what they must be, and whether a run of that size was known by then."""
    needed = claim.needed_flops()
    if needed is None and claim.active is not None:
        needed = (claim.flops_per_token() or 0.0) * claim.active * USEFUL_TOKENS_PER_PARAMETER
    if needed is not None:
        yield _hours_needed(claim, needed)
    elif claim.parameters is not None:
        yield _active_by_frontier(claim, claim.parameters)


def _device(claim: Claim) -> tuple[str, float]:
    """The accelerator in whose hours compute is told, and what one does at an ordinary utilisation, FLOP/s."""
    known = [(item.accelerator, item.peak()) for item in claim.hardware or () if item.peak() is not None]
    name, peak = known[0] if known else ("A100", A100)
    return name or "A100", (peak or A100) * ORDINARY_UTILISATION


def _frontier(claim: Claim) -> tuple[float, str, str]:
    """FLOPs of the largest published run by the claim's year, its name in words, and until when."""
    top, whose = frontier(claim.year or max(FRONTIER))
    when = f"until {claim.year}" if claim.year else "so far"
    return top, f"the largest published run {when} is {whose} with {flops(top)}", when


def _hours_needed(claim: Claim, needed: float) -> Check:
    (name, rate), (top, largest, _) = _device(claim), _frontier(claim)
    margin, hours = top / needed, needed / rate / 3600
    work = _needed_line(claim, needed) if claim.needed_flops() else f"needed: at least one token a parameter, {flops(needed)}"
    lines = (work, f"{largest}: {factor(needed / top)} times that; ten times is the edge")
    holds = f"holds only with at least {amount(hours)} hours of {name} at {percent(ORDINARY_UTILISATION)}"
    holds += f": {factor(math.ceil(hours / claim.days / 24))} of them for {_time(claim.days)}" if claim.days else ""
    # one token a parameter: FLOPs go with the square of the parameters
    fewer = _less_work(claim, needed / top if claim.tokens else math.sqrt(needed / top)) if margin < 1 else []
    return Check("training time", grade(margin, Limit(1, FRONTIER_ROOM, "")), margin, lines, holds, joined([fewer]))


def _active_by_frontier(claim: Claim, parameters: float) -> Check:
    (name, rate), (top, largest, when), limit = _device(claim), _frontier(claim), active_limit(claim)
    allowed = top / (6 * claim.tokens) if claim.tokens else math.sqrt(top / 6 / USEFUL_TOKENS_PER_PARAMETER)
    fits = min(parameters, allowed)
    margin = fits / parameters / limit.usual
    shown = f"{flops(top)[:-6]} / (6 x {amount(claim.tokens)} tokens)" if claim.tokens else f"sqrt({flops(top)[:-6]} / 6), one token each,"
    dense = 6 * parameters * (claim.tokens or parameters)
    devices = f", {factor(math.ceil(dense / rate / 86400 / claim.days))} x {name} for its {_time(claim.days)}" if claim.days else ""
    lines = (
        f"neither compute nor active parameters are known; {largest}",
        f"a run of that size allows {shown} = {amount(allowed)} active, {percent(allowed / parameters)} of all; {limit.source}",
        f"with all of them active it would take {flops(dense)}{devices}: {factor(dense / top)} times that run",
    )
    holds = f"holds only with at most {amount(fits)} active parameters, or with more compute than any run published {when}"
    smaller = times("parameters", parameters, margin, "parameters") if margin < 1 else []
    return Check("active parameters", grade(margin, limit), margin, lines, holds if fits < parameters else "", tuple(smaller))


def check_ratio(claim: Claim) -> Iterator[Check]:
    """Tokens for each active parameter, where both are known."""
    if claim.tokens is None or claim.active is None:
        return
    ratio = claim.tokens / claim.active
    margin = ratio / TOKENS_PER_PARAMETER.usual
    remedies: tuple[Remedy, ...] = ()
    if margin < 1:
        share = ratio / USEFUL_TOKENS_PER_PARAMETER
        smaller = times("active parameters", claim.active, share, "active_parameters")
        fewer = [Remedy(item.text, item.ratio, {**item.changes, "architecture": "moe", "flops": None}) for item in smaller]
        more = [Remedy(item.text, item.ratio, {**item.changes, "flops": None}) for item in times("tokens", claim.tokens, 1 / share, "tokens")]
        remedies = joined([more, fewer])
    counted = f"{amount(claim.tokens)} tokens / {amount(claim.active)} active parameters = {factor(ratio)} tokens a parameter"
    lines = (f"{counted}; {TOKENS_PER_PARAMETER.source}",)
    yield Check("tokens per parameter", grade(margin, TOKENS_PER_PARAMETER), margin, lines, remedies=remedies)


def check_utilisation(claim: Claim) -> Iterator[Check]:
    """The stated utilisation, against published ones and against what the other numbers need."""
    if claim.utilisation is None:
        return
    limit = utilisation_limit(claim)
    margin = limit.usual / claim.utilisation
    change = Remedy(
        f"utilisation {percent(claim.utilisation)} -> {percent(ORDINARY_UTILISATION)}",
        max(1.0, claim.utilisation / ORDINARY_UTILISATION), {"utilisation": ORDINARY_UTILISATION},
    )  # fmt: skip
    lines = (f"stated: {percent(claim.utilisation)} of the peak; {limit.source}",)
    yield Check("utilisation", grade(margin, limit), margin, lines, remedies=(change,) if margin < 1 else ())
    full, needed = claim.full_flops(), claim.needed_flops()
    if full is None or needed is None:
        return
    # A run may lose time to failures, so less than stated is no contradiction. More is, beyond what counting FLOPs differently explains.
    margin = 2.0 * claim.utilisation / (needed / full)
    share = min(needed / full, limit.usual)
    told = Remedy(f"utilisation {percent(claim.utilisation)} -> {percent(share)}", max(1.0, share / claim.utilisation), {"utilisation": share})
    lines = (f"its FLOPs in its time need {percent(needed / full)} of the peak, {percent(claim.utilisation)} is stated",)
    yield Check("stated utilisation", grade(margin, Limit(1, 0.5, "")), margin, lines, remedies=(told,) if margin < 1 else ())
