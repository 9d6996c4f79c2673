"""How long a training step takes under a layout: a roofline with four measured constants.

A micro-batch on a stage takes the sum of: matrix products at a share of what the largest ones sustain; what the kernels around them read
and write at a share of the memory's bandwidth; the traffic that nothing hides (tensor and expert parallelism, between pipeline stages) at
a share of the links' bandwidth; and, per routed layer, the time in which the host learns how many tokens each expert got and launches
what follows. Traffic of ZeRO-3 and of ring attention hides behind the computation of the same micro-batch, what ZeRO-1 sends at the end
behind the last micro-batch: what is longer counts, and at least the same share as above, for collectives run on the multiprocessors and
through the memory that the computation needs.
"""

from __future__ import annotations

from typing import NamedTuple

from hagane.errors import RecipeError
from hagane.plan.footprint import Footprint, footprint, num_micro_batches, share
from hagane.plan.machines import Cluster
from hagane.plan.traffic import traffic
from hagane.plan.workload import Workload
from hagane.recipe.types import Layout


class Constants(NamedTuple):
    """What no datasheet says."""

    matrix: float  # share of the sustained rate that the matrix products of a model reach
    memory: float  # share of the memory's bandwidth that the other kernels reach
    exposed: float  # share of the traffic that no computation hides, or that slows the computation it hides behind
    routing: float  # seconds per routed layer and micro-batch, forward and backward, that the device waits for the host


# Fitted to published throughput by benchmarks/plan_throughput.py, which prints every row's error; frozen here.
FITTED = Constants(matrix=0.730, memory=0.731, exposed=0.447, routing=5.84e-3)

# Share of the links' bandwidth that collectives reach: 160 of 200 GB/s of NVLink, 40 of 50 of InfiniBand (DeepSeek-V3, section 3.2.2).
LINK = 0.8

# A tile of rows that a grouped product computes whole, filled on average but for half of it.
TILE_ROWS = 128
# The busiest device over the mean where a router is trained and not forced: what auxiliary losses leave (assumed, not measured).
UNBALANCED = 1.1


# What the parts of a step are called where they hold it up; others are called as they are.
BOTTLENECKS = {
    "memory": "memory bandwidth", "tensor_links": "links (tensor parallelism)", "expert_links": "links (tokens to experts)",
    "pipeline_links": "links (pipeline)", "data_links": "links (gradients and weights)", "context_links": "links (context parallelism)",
    "routing": "waiting for the router", "bubble": "idle stages of the pipeline",
}  # fmt: skip


class StepTime(NamedTuple):
    """Seconds of one optimizer step by what they are spent on. `bubble` is idle time; the others are work of one device."""

    matrices: float
    softmax: float
    memory: float
    tensor_links: float
    expert_links: float
    pipeline_links: float
    data_links: float
    context_links: float
    routing: float
    bubble: float
    optimizer: float

    @property
    def total(self) -> float:
        return sum(self)

    @property
    def bottleneck(self) -> str:
        """The largest part after the matrix products, or those where they take more than two thirds."""
        if self.matrices > 2 / 3 * self.total:
            return "matrix products"
        name, _ = max(zip(self._fields[1:], self[1:]), key=lambda item: item[1])
        return BOTTLENECKS.get(name, name)


class Estimate(NamedTuple):
    """A layout with what it needs and takes."""

    layout: Layout
    seconds: float
    tokens: float
    parts: StepTime
    memory: Footprint
    num_micro: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def check(work: Workload, layout: Layout, cluster: Cluster) -> str | None:
    """Why the layout is not possible, or None. Memory is not looked at."""
    if layout.devices != cluster.count:
        return f"the layout is for {layout.devices} devices and the cluster has {cluster.count}"
    if work.num_heads % layout.tensor:
        return f"tensor = {layout.tensor} does not divide the {work.num_heads} heads"
    if layout.tensor > cluster.node:
        return f"tensor = {layout.tensor} would leave the {cluster.node} devices that share the fast fabric"
    if layout.pipeline * layout.interleave > work.num_layers + 2:  # embedding and head may stand for a layer each, as in Llama 3
        return f"pipeline {layout.pipeline} of {layout.interleave} interleaved stages is more than the {work.num_layers} layers"
    if layout.expert > 1 and (not work.num_experts or work.num_experts % layout.expert):
        if not work.num_experts:
            return f"expert = {layout.expert} is of experts, and this model has none"
        return f"expert = {layout.expert} does not divide the {work.num_experts} experts"
    if (layout.data * layout.context * layout.tensor) % layout.expert:
        return f"expert = {layout.expert} does not divide the {layout.data * layout.context * layout.tensor} devices of a pipeline stage"
    return None


class Units(NamedTuple):
    """What a step takes at full rates: seconds of one micro-batch on one stage, and how often. `assemble` applies the constants."""

    matrices: float
    softmax: float
    memory: float
    tensor: float
    expert: float
    pipeline: float
    context: float
    sharded: float
    step: float  # traffic once per step
    optimizer: float
    routed_layers: float
    num_micro: int
    idle: float  # micro-batches a device waits in the pipeline


def _matrices(work: Workload, layout: Layout, cluster: Cluster, imbalance: float) -> float:
    """Seconds of matrix products of one micro-batch on one stage at the rate that the largest ones sustain.

    Attention and the head stay in 16 bits where the rest is narrower. The backward pass of attention makes the scores again: 2.5
    forward passes (Dao 2023, section 4.1). A grouped product fills its last tile of rows on average by half.
    """
    device = cluster.accelerator
    wide = device.sustained_rate("float32" if layout.precision == "float32" else "bf16")
    full = layout.checkpointing == "full"
    tokens = layout.micro_batch * work.context / (layout.context * layout.tensor)
    rows = tokens * work.top_k * layout.expert / work.num_experts if work.num_experts else 1.0
    filled = rows / (rows + TILE_ROWS / 2)
    seconds = (3 + full) * (work.matrix_flops + work.expert_flops * imbalance / filled) / device.sustained_rate(layout.precision)
    seconds += (work.attention_flops * (3.5 + full) + 3 * work.head_flops) / wide
    return tokens / layout.pipeline * seconds


def _softmax(work: Workload, layout: Layout, cluster: Cluster) -> float:
    """Seconds of exponentials of one micro-batch on one stage: one a score forward, one backward, one where it is all made again."""
    if not cluster.accelerator.exponentials:
        return 0.0
    tokens = layout.micro_batch * work.context / (layout.context * layout.tensor * layout.pipeline)
    return tokens * work.scores * (2 + (layout.checkpointing == "full")) / cluster.accelerator.exponentials


def _memory(work: Workload, layout: Layout, cluster: Cluster) -> float:
    """Seconds of the kernels around matrix products, and of reading weights, of one micro-batch on one stage at the full bandwidth.

    Narrow formats cost nothing here: the kernel before a product writes its operand in 8 bits twice, once transposed, in place of
    16 bits once.
    """
    tokens = layout.micro_batch * work.context / (layout.context * layout.tensor) / layout.pipeline
    passes = 3 + {"none": 0.0, "selective": 0.5, "full": 1.0}[layout.checkpointing]
    moved = work.num_layers * work.moved_bytes * passes * (2.0 if layout.precision == "float32" else 1.0)
    moved += 10.0 * work.vocabulary_size  # logits in 16 bits written, read twice, their gradient written and read
    mine = share(work, layout)
    weights = 12.0 * (mine.dense + mine.experts)  # read forward and for both products of the backward pass; gradient read and written
    return (tokens * moved + weights) / cluster.accelerator.memory_bandwidth


def units(work: Workload, layout: Layout, cluster: Cluster, num_micro: int, imbalance: float) -> Units:
    """Seconds at full rates; `imbalance` is the load of the busiest device's experts over the mean."""
    sent = traffic(work, layout, cluster)
    mine = share(work, layout)
    dense, experts = (mine.dense_shards, mine.expert_shards) if layout.zero else (1, 1)
    return Units(
        matrices=_matrices(work, layout, cluster, imbalance), softmax=_softmax(work, layout, cluster), memory=_memory(work, layout, cluster),
        tensor=sent.tensor.seconds,
        expert=imbalance * sent.expert.seconds, pipeline=sent.pipeline.seconds, context=sent.context.seconds, sharded=sent.sharded.seconds,
        step=sent.step.seconds,
        # gradient, master and moments read, the last three and the weight written
        optimizer=30.0 * (mine.dense / dense + mine.experts / experts) / cluster.accelerator.memory_bandwidth,
        routed_layers=work.routed_layers / layout.pipeline, num_micro=num_micro,
        # (p - 1) / v of a micro-batch's time (Narayanan et al. 2021, section 2.2.2)
        idle=(layout.pipeline - 1) / layout.interleave,
    )  # fmt: skip


def of_rows(single: Units, work: Workload, layout: Layout, cluster: Cluster, num_micro: int, imbalance: float) -> Units:
    """`units` of a layout by those of the same one with micro-batches of one row and no turns in a pipeline: most of it is as many times as much."""
    rows = layout.micro_batch
    return single._replace(
        matrices=_matrices(work, layout, cluster, imbalance), softmax=rows * single.softmax, memory=_memory(work, layout, cluster),
        tensor=rows * single.tensor, expert=rows * single.expert, pipeline=rows * layout.interleave * single.pipeline, context=rows * single.context,
        num_micro=num_micro, idle=(layout.pipeline - 1) / layout.interleave,
    )  # fmt: skip


def imbalance_of(layout: Layout, balanced: bool) -> float:
    """Load of the busiest device's experts over the mean."""
    return 1.0 if balanced or layout.expert == 1 else UNBALANCED


def assemble(unit: Units, constants: Constants) -> StepTime:
    """The parts of a step once the constants are applied."""
    matrices, memory = unit.matrices / constants.matrix, unit.memory / constants.memory
    tensor, expert, pipeline = (constants.exposed * seconds / LINK for seconds in (unit.tensor, unit.expert, unit.pipeline))
    routing = constants.routing * unit.routed_layers
    hidden = matrices + unit.softmax + memory

    def seen(seconds: float, behind: float) -> float:
        """Of traffic that runs beside computation: what is longer than it, and at least the share that takes units and memory away from it."""
        return max(constants.exposed * seconds / LINK, seconds / LINK - behind)

    context, sharded = seen(unit.context, hidden), seen(unit.sharded, hidden)
    micro = hidden + tensor + expert + pipeline + routing + context + sharded
    count = unit.num_micro
    return StepTime(
        matrices=count * matrices, softmax=count * unit.softmax, memory=count * memory,
        tensor_links=count * tensor, expert_links=count * expert, pipeline_links=count * pipeline,
        data_links=count * sharded + seen(unit.step, hidden * 2 / 3),  # gradients leave during the last backward pass
        context_links=count * context, routing=count * routing, bubble=unit.idle * micro, optimizer=unit.optimizer / constants.memory,
    )  # fmt: skip


def estimate(
    work: Workload, layout: Layout, cluster: Cluster, batch_tokens: float, *, balanced: bool = False, constants: Constants = FITTED
) -> Estimate:
    """Seconds and bytes of a step of `batch_tokens` tokens. `balanced`: routing is forced to be even, as in most benchmarks.

    Raises RecipeError where the layout is not possible.
    """
    if (reason := check(work, layout, cluster)) is not None:
        raise RecipeError(f"{layout} on {cluster}: {reason}.")
    num_micro = num_micro_batches(work, layout, batch_tokens)
    parts = assemble(units(work, layout, cluster, num_micro, imbalance_of(layout, balanced)), constants)
    tokens = num_micro * layout.micro_batch * work.context * layout.data
    return Estimate(layout, parts.total, tokens, parts, footprint(work, layout, cluster, num_micro), num_micro)
