"""How much of each language and source is read: UniMax (Chung et al. 2023, "UniMax: Fairer and More Effective Language Sampling", arXiv 2304.09151).

UniMax gives every language the same budget unless that would repeat its text more than `max_repeats` times; what a small
language cannot use goes to the others. Sizes here are bytes of UTF-8 (the paper counts characters). With weights a language's budget
is as its weight instead of the same, under the same bound: how a mixture that was found by experiment is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from hagane.errors import RecipeError


@dataclass(frozen=True)
class Shard:
    """What the mixture must know of a shard: where it is from and how much there is, in bytes (or tokens)."""

    source: str
    language: str
    size: float
    repeats: float = 1.0  # how often it is read against other shards of its language


@dataclass(frozen=True)
class Replay:
    """Languages that a model knows already, and the share of their text: what is read so that they are not forgotten."""

    languages: frozenset[str]
    share: float


def unimax_budgets(sizes: Mapping[str, float], budget: float, max_repeats: float, weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Algorithm 1 of the paper: how much of each is read. Sums to `budget`, or to `max_repeats` times everything where that is less.

    `weights` are positive; a language that they do not name has 1.
    """
    weight = {name: (weights or {}).get(name, 1.0) for name in sizes}
    order = sorted(sizes, key=lambda name: (sizes[name] / weight[name], name))
    weight_left = list(itertools.accumulate(weight[name] for name in reversed(order)))  # of a language and those after it
    budgets, left = {}, float(budget)
    for name in order:
        budgets[name] = min(left * weight[name] / weight_left.pop(), max_repeats * sizes[name])
        left -= budgets[name]
    return {name: budgets[name] for name in sizes}


def unimax(sizes: Mapping[str, float], budget: float, max_repeats: float = 4.0, weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Rates that sum to 1. No language is repeated more than `max_repeats` times if the budget allows (else they are as its sizes are)."""
    budgets = unimax_budgets(sizes, budget, max_repeats, weights)
    total = sum(budgets.values())
    if total <= 0:
        raise RecipeError("the mixture has no text: every language is empty.")
    return {name: value / total for name, value in budgets.items()}


def mixture(
    shards: Mapping[str, Shard],
    budget: float,
    max_repeats: float = 4.0,
    shares: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    replay: Replay | None = None,
) -> dict[str, float]:
    """Rate of every shard, summing to 1.

    `shares` (source -> share) are taken first, each divided by UniMax over the languages of its source; the rest goes to the
    other sources by UniMax over languages, weighted where `weights` (language -> weight) are given, and within a language by size and by how often
    a shard is to be read against the others. A source that is not there gives its share back.
    With `replay`, its languages have its share of that rest, and the other languages what it leaves.
    """
    shards = {name: shard for name, shard in shards.items() if shard.size > 0}
    present = {shard.source for shard in shards.values()}
    fixed = {source: share for source, share in (shares or {}).items() if source in present and share > 0}
    free = {name: shard for name, shard in shards.items() if shard.source not in fixed}
    fixed_sum = sum(fixed.values())
    if fixed_sum > 1 + 1e-9:
        raise RecipeError(f"the shares of the sources sum to {fixed_sum:.3g}, more than 1.")
    if not free and not fixed:
        raise RecipeError("the mixture has no text: every shard is empty.")
    scale = 1.0 if free else 1 / fixed_sum
    rest = 1 - fixed_sum if free else 0.0
    rates: dict[str, float] = {}
    for group, part in _groups(free, replay):
        rates |= _by_language(group, rest * part, budget * rest * part, max_repeats, weights)
    for source, share in fixed.items():
        own = {name: shard for name, shard in shards.items() if shard.source == source}
        rates |= _by_language(own, share * scale, budget * share * scale, max_repeats)
    return {name: rates[name] for name in shards}


def _groups(shards: Mapping[str, Shard], replay: Replay | None) -> list[tuple[Mapping[str, Shard], float]]:
    """Shards that UniMax is asked about together, and their share: all; or those that are replayed, and the others."""
    known = {name: shard for name, shard in shards.items() if replay is not None and shard.language in replay.languages}
    others = {name: shard for name, shard in shards.items() if name not in known}
    if replay is None or not known or not others:
        return [(shards, 1.0)]
    return [(known, replay.share), (others, 1 - replay.share)]


def _by_language(
    shards: Mapping[str, Shard], weight: float, budget: float, max_repeats: float, weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    if not shards or weight <= 0:
        return dict.fromkeys(shards, 0.0)
    most: dict[str, float] = {}
    for shard in shards.values():
        most[shard.language] = max(most.get(shard.language, 0.0), shard.repeats)
    # what is read least often counts least: so that the text that is read most often keeps to `max_repeats`
    size = {name: shard.size * (shard.repeats / most[shard.language] if most[shard.language] else 1.0) for name, shard in shards.items()}
    sizes: dict[str, float] = {}
    for name, shard in shards.items():
        sizes[shard.language] = sizes.get(shard.language, 0) + size[name]
    rates = unimax(sizes, budget, max_repeats, weights)
    return {name: weight * rates[shard.language] * size[name] / sizes[shard.language] for name, shard in shards.items()}
