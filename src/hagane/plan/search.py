"""Find layouts: every legal division of a cluster, those that fit in memory, the fastest of these."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from hagane.errors import RecipeError
from hagane.plan.footprint import footprint, num_micro_batches, share
from hagane.plan.layout import FITTED, Constants, Estimate, Units, assemble, check, estimate, imbalance_of, of_rows, units
from hagane.plan.machines import MOST_DEVICES, Cluster, Precision
from hagane.plan.workload import Workload
from hagane.recipe.types import Layout

MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MICRO_TOKENS = 65536  # a micro-batch beyond this is no faster and takes more memory
INTERLEAVES = (1, 2, 4, 8)
LONG_CONTEXT = 16384  # tokens of a row from which context parallelism is tried
NEAR = 16  # steps to double a cluster, in which a number of devices that fits is looked for
DOUBLINGS = 4  # of a number of devices, in which one that fits is looked for where there is none nearer
STATES = 16.0  # bytes per parameter of gradient, float32 master and two moments, the least that is held somewhere (footprint.py)


Value = TypeVar("Value")


class Asked(NamedTuple):
    """What a layout must keep: fields of it by name, and how the rows of a step are divided where a recipe says so."""

    fields: Mapping[str, Any] = {}
    num_micro: int | None = None
    exact: bool = False  # no more rows in a step than asked for

    def of(self, name: str, values: Sequence[Value]) -> Sequence[Value]:
        """The value asked for, or the usual ones."""
        return (self.fields[name],) if name in self.fields else values

    def __str__(self) -> str:
        text = [f"execution.layout = {{{', '.join(f'{name} = {value}' for name, value in self.fields.items())}}}"] if self.fields else []
        text += [f"train.accumulation = {self.num_micro}"] if self.num_micro else []
        return " with ".join(text + ["the batch of the recipe"] * self.exact)


FREE = Asked()


def layouts(
    work: Workload,
    cluster: Cluster,
    batch_tokens: float,
    precision: Precision = "bf16",
    *,
    asked: Asked = FREE,
    memory: float = math.inf,
    coarse: bool = False,
) -> Iterator[Layout]:
    """Every sensible layout, or every one of those asked for, whose replicas all have work in a batch, and whose weights, gradients and states alone take
    less than `memory` bytes of a device. `coarse`: of micro-batches and of turns of a pipeline every other one."""
    for whole in divisions(work, cluster, batch_tokens, precision, asked):
        yield from _variants(work, batch_tokens, whole, asked, memory, 2 if coarse else 1)


def divisions(work: Workload, cluster: Cluster, batch_tokens: float, precision: Precision, asked: Asked) -> Iterator[Layout]:
    """How devices may be divided: a layout each, of micro-batches of one row, of which `_variants` are the others."""
    count, divisors = cluster.count, _divisors(cluster.count)
    for tensor in (value for value in asked.of("tensor", divisors) if value <= cluster.node and work.num_heads % value == 0 and count % value == 0):
        for pipeline in (value for value in asked.of("pipeline", divisors) if value <= work.num_layers and (count // tensor) % value == 0):
            for context in (value for value in asked.of("context", divisors) if (count // tensor // pipeline) % value == 0):
                if context > 1 and "context" not in asked.fields and not _long_enough(work, context):
                    continue
                data = count // (tensor * pipeline * context)
                if data * work.context > batch_tokens or data not in asked.of("data", (data,)):
                    continue
                for expert in _expert_degrees(work, cluster, data * context * tensor, asked):
                    yield Layout.model_construct(
                        data=data, zero=1, tensor=tensor, pipeline=pipeline, interleave=1, context=context, expert=expert, micro_batch=1,
                        checkpointing="none", precision=precision,
                    )  # fmt: skip


def _long_enough(work: Workload, context: int) -> bool:
    """Whether rows are so long that devices may well share one."""
    return work.context >= LONG_CONTEXT and work.context // context >= 2048 and context & (context - 1) == 0


def _divisors(count: int) -> list[int]:
    """In order; by pairs, so that a million devices take a thousand steps."""
    small = [value for value in range(1, math.isqrt(count) + 1) if count % value == 0]
    return sorted({*small, *(count // value for value in small)})


def _expert_degrees(work: Workload, cluster: Cluster, devices: int, asked: Asked) -> list[int]:
    if not work.num_experts:
        return [value for value in asked.of("expert", (1,)) if value == 1]
    every = asked.of("expert", range(1, min(work.num_experts, devices) + 1))
    found = [value for value in every if work.num_experts % value == 0 and devices % value == 0]
    return found if "expert" in asked.fields else [value for value in found if value & (value - 1) == 0]


def _variants(work: Workload, batch_tokens: float, whole: Layout, asked: Asked, memory: float, step: int) -> Iterator[Layout]:
    """Of a division of the devices: what is sharded, turns of a pipeline, micro-batches; of these two every `step`-th."""
    # gathering weights for every micro-batch of a pipeline costs what the pipeline saves
    usual: Sequence[Literal[0, 1, 2, 3]] = (1, 3) if whole.pipeline == 1 else (1,)
    interleaves = [
        turns
        for turns in asked.of("interleave", INTERLEAVES[::step] if whole.pipeline > 1 else (1,))
        if whole.pipeline * turns <= work.num_layers and (whole.pipeline > 1 or turns == 1)
    ]
    for zero in asked.of("zero", usual):
        if not _states_fit(work, whole, zero, memory):
            continue
        for interleave in interleaves:
            for micro_batch in _micro_batches(work, batch_tokens, whole.context, whole.data, asked, step):
                yield Layout.model_construct(**{**whole.__dict__, "zero": zero, "interleave": interleave, "micro_batch": micro_batch})


def _micro_batches(work: Workload, batch_tokens: float, context: int, data: int, asked: Asked, step: int) -> list[int]:
    """Rows of a micro-batch that are worth trying: as many as a step has, a device has use for, and the recipe allows."""
    each = math.ceil(batch_tokens / (work.context * data))  # rows of a replica
    usual: Sequence[int] = _divisors(each) if asked.exact else MICRO_BATCHES[::step]
    if asked.num_micro is not None:
        usual = (math.ceil(each / asked.num_micro),)
    found = [
        rows
        for rows in asked.of("micro_batch", [rows for rows in usual if rows == 1 or rows * work.context <= MICRO_TOKENS * context])
        if rows == 1 or rows * work.context * data <= batch_tokens
    ]
    if asked.num_micro is not None:
        found = [rows for rows in found if math.ceil(each / rows) == asked.num_micro]
    return [rows for rows in found if each % rows == 0 and each * data * work.context == batch_tokens] if asked.exact else found


def fitting(work: Workload, layout: Layout, cluster: Cluster, batch_tokens: float, asked: Asked = FREE) -> Layout | None:
    """The layout with the least checkpointing that fits, or None."""
    num_micro = num_micro_batches(work, layout, batch_tokens)
    for mode in asked.of("checkpointing", ("none", "selective", "full")):
        tried = layout.model_copy(update={"checkpointing": mode})
        if footprint(work, tried, cluster, num_micro).total <= cluster.accelerator.memory_bytes:
            return tried
    return None


def _states_fit(work: Workload, layout: Layout, zero: int, memory: float) -> bool:
    """Cheap: weights, gradients and states alone, whatever the micro-batch."""
    mine = share(work, layout)
    if zero == 3:
        return STATES * (mine.dense / mine.dense_shards + mine.experts / mine.expert_shards) < memory
    return 6.0 * (mine.dense + mine.experts) + 12.0 * (mine.dense / mine.dense_shards + mine.experts / mine.expert_shards) < memory


def best_layouts(
    work: Workload,
    cluster: Cluster,
    batch_tokens: float,
    precision: Precision = "bf16",
    *,
    balanced: bool = False,
    constants: Constants = FITTED,
    count: int = 3,
    asked: Asked = FREE,
    coarse: bool = False,
) -> list[Estimate]:
    """The `count` fastest layouts that fit, the fastest first; of layouts that differ only in micro-batch or turns the fastest one. `coarse`: of
    these not all are tried.

    Raises RecipeError that says what is missing: sequences in the batch, memory (how much, and on how many devices it would fit), an
    interconnect, or what keeps a layout from being as `asked`.
    """
    if cluster.count > 1 and cluster.node == 1 and cluster.accelerator.inter_bandwidth == 0:
        raise RecipeError(f"{cluster}: {cluster.accelerator.name} has no link to another device, so only one of them can train.")
    every = [
        Bound(work, whole, cluster, imbalance_of(whole, balanced), constants) for whole in divisions(work, cluster, batch_tokens, precision, asked)
    ]
    best: list[Estimate] = []
    for most, bound in sorted(((bound.most(batch_tokens), bound) for bound in every), key=lambda item: -item[0]):
        if len(best) == count and most < best[-1].tokens_per_second:
            break  # nor can any of the others be among the fastest
        found: dict[int, Estimate] = {}  # by what is sharded
        for layout in _variants(work, batch_tokens, bound.whole, asked, cluster.accelerator.memory_bytes, 2 if coarse else 1):
            least = max(best[-1].tokens_per_second if len(best) == count else 0.0, found[layout.zero].tokens_per_second if layout.zero in found else 0.0)
            if bound.of(layout, num_micro_batches(work, layout, batch_tokens)) < least or (fits := fitting(work, layout, cluster, batch_tokens, asked)) is None:
                continue
            one = estimate(work, fits, cluster, batch_tokens, balanced=balanced, constants=constants)
            if one.tokens_per_second > least:
                found[layout.zero] = one
        best = sorted([*best, *found.values()], key=lambda item: -item.tokens_per_second)[:count]
    if best:
        return best
    raise RecipeError(_missing(work, cluster, batch_tokens, asked, precision))


@dataclass
class Bound:
    """Tokens a second that no layout of a division exceeds: what a micro-batch takes is known from one of a single row, where nothing is recomputed."""

    work: Workload
    whole: Layout  # of micro-batches of one row
    cluster: Cluster
    imbalance: float
    constants: Constants
    single: dict[int, Units] = field(default_factory=dict)  # by what is sharded

    def of(self, layout: Layout, num_micro: int) -> float:
        """Of one with so many micro-batches in a step: its own, but for recomputing."""
        unit = of_rows(self._single(layout.zero), self.work, layout, self.cluster, num_micro, self.imbalance)
        return self._tokens(num_micro * layout.micro_batch) / assemble(unit, self.constants).total

    def most(self, batch_tokens: float) -> float:
        """Of all: a row takes least in the largest micro-batch, without the traffic of sharding; a pipeline waits least with a stage for every layer."""
        each = math.ceil(batch_tokens / (self.work.context * self.whole.data))
        rows = min(each, max(1, MICRO_TOKENS * self.whole.context // self.work.context))
        unit = of_rows(self._single(1), self.work, self.whole.model_copy(update={"micro_batch": rows}), self.cluster, 1, self.imbalance)
        busy = assemble(unit._replace(step=0.0, optimizer=0.0, idle=0.0), self.constants).total
        return self._tokens(rows) / busy * each / (each + (self.whole.pipeline - 1) / self.work.num_layers)

    def _tokens(self, rows: int) -> float:
        """Of so many rows of each replica, and a thousandth for rounding."""
        return 1.001 * rows * self.work.context * self.whole.data

    def _single(self, zero: int) -> Units:
        if zero not in self.single:
            self.single[zero] = units(self.work, self.whole.model_copy(update={"zero": zero}), self.cluster, 1, self.imbalance)
        return self.single[zero]


def _unmet(work: Workload, cluster: Cluster, asked: Asked) -> str | None:
    """Why no layout is as asked, whatever the batch; None where there is one."""
    given = math.prod(asked.fields.get(name, 1) for name in ("data", "tensor", "pipeline", "context"))
    if cluster.count % given:
        return f"{given} devices or a multiple of them are needed, not {cluster.count:,}"
    spread = cluster.count // math.prod(asked.fields.get(name, 1) for name in ("tensor", "pipeline", "context"))
    layout = Layout(**{"data": spread, **asked.fields})
    if layout.pipeline == 1 and layout.interleave > 1:
        return "interleaved stages are of a pipeline, and there is none"
    # data that leaves devices over may be filled up by another kind of parallelism
    return None if layout.devices != cluster.count else check(work, layout, cluster)


def _missing(work: Workload, cluster: Cluster, batch_tokens: float, asked: Asked, precision: Precision) -> str:
    tried = next(layouts(work, cluster, batch_tokens, precision, asked=asked), None)
    if tried is None and asked != FREE:
        why = _unmet(work, cluster, asked) or (
            f"no division of {cluster} gives every replica its part of a step of {batch_tokens / work.context:,.0f} rows of {work.context:,}"
        )
        return f"{asked} is not possible: {why}. Change it, the number of devices, or leave it out."
    if tried is None:
        return (
            f"a batch of {batch_tokens:,.0f} tokens is {batch_tokens / work.context:,.1f} rows of {work.context:,}, too few for {cluster}: "
            "no division gives every replica a row. Give a larger batch (train.rows) or fewer devices."
        )
    device = cluster.accelerator
    states = STATES * work.num_parameters
    free = device.memory_bytes * 0.9
    if states > free * cluster.count:
        least = _least_count(work, cluster, batch_tokens, asked, precision, math.ceil(states / free))
        way = f"take {least:,} devices, not {cluster.count:,}." if least else f"no number of {device.name} near that holds them. Take devices with more memory."
        return (
            f"{cluster} has {cluster.count * device.memory_bytes / 1e12:,.2f} TB of memory and the states of {work.num_parameters / 1e9:,.1f}B parameters take "
            f"{states / 1e12:,.2f} TB ({STATES:.0f} bytes each, nothing held twice): {way}"
        )
    short = min((_short(work, layout, cluster, batch_tokens, asked) for layout in layouts(work, cluster, batch_tokens, precision, asked=asked)), default=0.0)
    near = " or ".join(f"{count:,}" for count in _counts_that_fit(work, cluster, batch_tokens, asked, precision))
    again = f", with {asked.fields['checkpointing']} checkpointing" if "checkpointing" in asked.fields else ", with every activation recomputed"
    return (
        f"no division of {cluster} fits{f' with {asked}' * (asked != FREE)}: the best one lacks {short / 1e9:,.1f} GB on each device of "
        f"{device.memory_bytes / 1e9:,.0f} GB{again}. Take {f'{near} of them' if near else 'more devices'}, devices with more memory, or a shorter context."
    )


def _counts_that_fit(work: Workload, cluster: Cluster, batch_tokens: float, asked: Asked, precision: Precision) -> list[int]:
    """The nearest numbers of devices below and above for which a division fits, of those that have many divisions: multiples of a power of two."""
    step = max(cluster.accelerator.devices_per_node, 2 ** max(0, math.ceil(math.log2(cluster.count / NEAR))))
    below = range(cluster.count // step * step - (cluster.count % step == 0) * step, 0, -step)
    above = range((cluster.count // step + 1) * step, 2 * cluster.count + step, step)
    found = (
        next((count for count in side if _some_fit(work, cluster.model_copy(update={"count": count}), batch_tokens, asked, precision)), None)
        for side in (below, above)
    )
    return [count for count in found if count is not None]


def _least_count(work: Workload, cluster: Cluster, batch_tokens: float, asked: Asked, precision: Precision, least: int) -> int | None:
    """Of the numbers of devices from `least` on that have many divisions, whole nodes where there are several, the first for which a division fits."""
    device = cluster.accelerator
    if device.devices_per_node == 1 and device.inter_bandwidth == 0 and least > 1:
        return None
    step = max(device.devices_per_node if least > device.devices_per_node else 1, 2 ** max(0, math.ceil(math.log2(least / NEAR))))
    first = math.ceil(least / step) * step
    near = range(first, 2 * first + step, step)
    far = [2 ** (math.ceil(math.log2(first)) + doubling) for doubling in range(1, DOUBLINGS + 1)]
    counts = (count for count in (*near[: 2 * NEAR], *far) if count <= MOST_DEVICES)
    return next((count for count in counts if _some_fit(work, cluster.model_copy(update={"count": count}), batch_tokens, asked, precision)), None)


def _some_fit(work: Workload, cluster: Cluster, batch_tokens: float, asked: Asked, precision: Precision) -> bool:
    batch = batch_tokens if asked.exact else max(batch_tokens, cluster.count // 8 * work.context)
    memory = cluster.accelerator.memory_bytes
    return STATES * work.num_parameters <= memory * cluster.count and any(
        _short(work, layout, cluster, batch, asked) <= 0 for layout in layouts(work, cluster, batch, precision, asked=asked, memory=memory)
    )


def _short(work: Workload, layout: Layout, cluster: Cluster, batch_tokens: float, asked: Asked) -> float:
    full = layout.model_copy(update={"checkpointing": asked.fields.get("checkpointing", "full")})
    return footprint(work, full, cluster, num_micro_batches(work, layout, batch_tokens)).total - cluster.accelerator.memory_bytes
