"""The other numbers of a claim: active share, published FLOPs, memory, energy, text and year."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from hagane.plan.amounts import MWH, amount, binary, energy, factor, flops, percent
from hagane.plan.check import Check, Outcome, Remedy, devices, grade, joined, times
from hagane.plan.claim import Claim
from hagane.plan.compute_checks import active_limit
from hagane.plan.limits import ENERGY_HIGH, ENERGY_LOW, ORDINARY_UTILISATION, READ_SHARE, REPEATS, TEXT_BYTES, TRAINING_BYTES, Limit

BYTES_PER_TOKEN = 4.5  # of English with a vocabulary of 50,000 and more, where a claim says nothing of it


def check_active_share(claim: Claim) -> Iterator[Check]:
    """The share of its parameters that a mixture of experts uses for one token."""
    if claim.active is None or claim.parameters is None or claim.active == claim.parameters:
        return
    limit, share = active_limit(claim), claim.active / claim.parameters
    margin = share / limit.usual
    smaller = times("parameters", claim.parameters, margin, "parameters")
    lines = (f"{amount(claim.active)} of {amount(claim.parameters)} parameters active = {percent(share)}; {limit.source}",)
    yield Check("active share", grade(margin, limit), margin, lines, remedies=tuple(smaller) if margin < 1 else ())


def check_flops(claim: Claim) -> Iterator[Check]:
    """Stated FLOPs against 6 x active parameters x tokens."""
    per_token = claim.flops_per_token()
    if claim.flops is None or per_token is None or claim.tokens is None:
        return
    counted = per_token * claim.tokens
    ratio = claim.flops / counted
    # attention over long rows and extra heads add, embeddings that are only looked up take away
    margin = 2.0 / max(ratio, 1 / ratio)
    stated = f"stated {flops(claim.flops)}, counted {flops(counted)}: {factor(ratio)} times that"
    lines = (f"{stated}; attention, extra heads and embeddings explain a factor of 2",)
    told = Remedy(f"FLOPs {flops(claim.flops)} -> {flops(counted)}", max(ratio, 1 / ratio), {"flops": None})
    yield Check("stated FLOPs", grade(margin, Limit(2, 4, "")), margin, lines, remedies=(told,) if margin < 1 else ())


def check_memory(claim: Claim) -> Iterator[Check]:
    """Weights and optimizer state against the memory of all devices together."""
    if claim.parameters is None or not claim.hardware or any(item.count is None or item.memory() is None for item in claim.hardware):
        return
    total = sum((item.count or 0) * (item.memory() or 0.0) for item in claim.hardware)
    each = total / claim.parameters
    margin = each / TRAINING_BYTES.usual
    parts = " + ".join(f"{item} x {binary(item.memory() or 0)}" for item in claim.hardware)
    remedies: tuple[Remedy, ...] = ()
    if margin < 1:
        hardware = tuple(item.model_copy(update={"count": math.ceil((item.count or 0) / margin * 1.001)}) for item in claim.hardware)
        text = f"devices {devices(claim.hardware)} -> {devices(hardware)}"
        remedies = joined([[Remedy(text, 1.001 / margin, {"hardware": hardware})], _fewer_parameters(claim, margin)])
    lines = (f"{parts} = {binary(total)}, {factor(each)} bytes for each of {amount(claim.parameters)} parameters; {TRAINING_BYTES.source}",)
    yield Check("memory", grade(margin, TRAINING_BYTES), margin, lines, remedies=remedies)


def _fewer_parameters(claim: Claim, share: float) -> list[Remedy]:
    """Fewer of all and of the active ones alike; FLOPs as stated no longer hold."""
    active = {} if claim.active_parameters is None else {"active_parameters": claim.active_parameters * share}
    found = times("parameters", claim.parameters, share, "parameters")
    return [Remedy(item.text, item.ratio, {**item.changes, **active, "flops": None}) for item in found]


def check_energy(claim: Claim) -> Iterator[Check]:
    """Stated energy against device-hours x board power."""
    hours = claim.hours()
    if claim.energy_mwh is None or hours is None or any(item.power() is None for item, _ in hours):
        return
    chips = sum(count * (item.power() or 0.0) for item, count in hours) / 1e6  # MWh
    ratio = claim.energy_mwh / chips
    low = ratio < math.sqrt(ENERGY_LOW.usual * ENERGY_HIGH.usual)
    limit, margin = (ENERGY_LOW, ratio / ENERGY_LOW.usual) if low else (ENERGY_HIGH, ENERGY_HIGH.usual / ratio)
    parts = " + ".join(f"{amount(count)} hours x {item.power():,.4g} W" for item, count in hours)
    lines = (
        f"{parts} = {energy(chips * MWH)} at full board power; stated {energy(claim.energy_mwh * MWH)} is {factor(ratio)} times that",
        f"{ENERGY_LOW.source}; {ENERGY_HIGH.source}",
    )
    told = Remedy(f"energy {energy(claim.energy_mwh * MWH)} -> {energy(chips * MWH)}", max(ratio, 1 / ratio), {"energy_mwh": chips})
    yield Check("energy", grade(margin, limit), margin, lines, remedies=(told,) if margin < 1 else ())


def check_corpus(claim: Claim) -> Iterator[Check]:
    """The stated text: against what can have been read of it, and against all there is."""
    if claim.corpus_bytes is None:
        return
    stated, each = claim.corpus_bytes, claim.bytes_per_token or BYTES_PER_TOKEN
    tokens, how = claim.tokens, "tokens"
    full = claim.full_flops()
    if tokens is None and full is not None and claim.active is not None:
        tokens, how = full * ORDINARY_UTILISATION / (claim.flops_per_token() or 1.0), "tokens that the hardware allows"
    if tokens is not None:
        yield from _text_read(claim, tokens, how, each)
    margin = TEXT_BYTES.usual / stated
    lines = (f"{amount(stated, 'B')} of text = {amount(stated / each)} tokens of {each:g} bytes; {TEXT_BYTES.source}",)
    yield Check("text", grade(margin, TEXT_BYTES), margin, lines, remedies=_other_text(stated, min(1.0, margin)))


def _text_read(claim: Claim, tokens: float, how: str, each: float) -> Iterator[Check]:
    stated = claim.corpus_bytes or 0.0
    readings = tokens * each / stated
    if claim.epochs is not None and claim.tokens is not None:
        ratio = readings / claim.epochs
        margin = 3 / max(ratio, 1 / ratio)  # a token is 1.5 to 13 bytes in any tokenizer
        lines = (f"{amount(tokens)} tokens x {each:g} bytes read {amount(stated, 'B')} {factor(readings)} times; {factor(claim.epochs)} is stated",)
        told = Remedy(f"epochs {factor(claim.epochs)} -> {factor(readings)}", max(ratio, 1 / ratio), {"epochs": readings})
        yield Check("epochs", grade(margin, Limit(3, 6, "")), margin, lines, remedies=(told,) if margin < 1 else ())
    if readings < 1:
        margin = readings / READ_SHARE.usual
        lines = (f"{amount(tokens)} {how} x {each:g} bytes = {amount(tokens * each, 'B')}: {percent(readings)} of {amount(stated, 'B')}; {READ_SHARE.source}",)
        yield Check("text read", grade(margin, READ_SHARE), margin, lines, remedies=_other_text(stated, min(1.0, margin)))
    elif claim.tokens is not None:  # nobody has to use all of the hardware
        margin = REPEATS.usual / readings
        lines = (f"{amount(tokens)} {how} x {each:g} bytes read {amount(stated, 'B')} {factor(readings)} times; {REPEATS.source}",)
        yield Check("readings", grade(margin, REPEATS), margin, lines, remedies=_other_text(stated, 1 / margin if margin < 1 else 1.0))


def _other_text(stated: float, share: float) -> tuple[Remedy, ...]:
    """The text that fits; nothing where all of it does."""
    return tuple(replace(item, follows=True) for item in times("text", stated, share, "corpus_bytes", "B")) if share != 1.0 else ()


def check_year(claim: Claim) -> Iterator[Check]:
    """The year against the first deliveries of the hardware."""
    known = [(item.released(), item) for item in claim.hardware or () if item.released() is not None]
    if claim.year is None or not known:
        return
    newest, item = max(((year or 0, item) for year, item in known), key=lambda pair: pair[0])
    outcome: Outcome = "possible" if claim.year > newest else "at the edge" if claim.year == newest else "impossible"
    lines = (f"{item.accelerator} was first delivered in {newest}, the model is of {claim.year}",)
    later = Remedy(f"year {claim.year} -> {newest + 1}", 1.0, {"year": newest + 1})
    yield Check("year", outcome, None, lines, remedies=(later,) if outcome != "possible" else ())
