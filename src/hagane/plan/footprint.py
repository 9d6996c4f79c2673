"""Bytes one device needs under a layout: weights, gradients, optimizer states, activations, what is at work and what is never ours."""

from __future__ import annotations

import math
from typing import NamedTuple

from hagane.plan.machines import Cluster
from hagane.plan.workload import Workload
from hagane.recipe.types import Layout

# Weight in the compute precision, gradient and the optimizer's float32 master and two moments, bytes per parameter
# (Rajbhandari et al. 2020, section 3.1: 2 + 2 + 12; gradients are summed in float32 here, so 4).
WEIGHT_BYTES, GRADIENT_BYTES, STATE_BYTES = 2.0, 4.0, 12.0
LOGIT_TOKENS = 4096  # the head works through a micro-batch in chunks of this many tokens
# What no tensor of ours explains: the driver's context, libraries and communication buffers, and free space between blocks.
RESERVED_BYTES, FRAGMENTATION = 2.0e9, 0.04


class Footprint(NamedTuple):
    """Bytes per device on the fullest stage of the pipeline, the first."""

    weights: float
    gradients: float
    states: float
    activations: float
    working: float  # the larger of a chunk of logits and of what the backward pass of one layer takes: they are never there together
    allowance: float

    @property
    def total(self) -> float:
        return sum(self)


class Share(NamedTuple):
    """Parameters one device holds before data parallelism divides them, and over how many devices it does."""

    dense: float
    experts: float
    dense_shards: int
    expert_shards: int


def share(work: Workload, layout: Layout) -> Share:
    """Matrices are cut by tensor and pipeline, routed experts by expert and pipeline; embedding and head live on one stage each."""
    tables = work.embedding_parameters + work.head_parameters
    if layout.pipeline > 1:
        tables = max(work.embedding_parameters, work.head_parameters)
    return Share(
        dense=(work.dense_parameters / layout.pipeline + tables) / layout.tensor,
        experts=work.expert_parameters / (layout.pipeline * layout.expert),
        dense_shards=layout.data * layout.context,
        expert_shards=max(1, layout.data * layout.context * layout.tensor // layout.expert),
    )


def kept_micro_batches(layout: Layout, num_micro: int) -> float:
    """Micro-batches whose activations the first stage keeps at once, in units of its own layers.

    One forward, one backward: as many as there are stages (Narayanan et al. 2021, section 2.2); with v turns per device
    1 + (p - 1) / (p v) times as many (Korthikanti et al. 2022, section 4.2.3).
    """
    stages = layout.pipeline
    if stages == 1:
        return 1.0
    factor = 1.0 if layout.interleave == 1 else 1 + (stages - 1) / (stages * layout.interleave)
    return min(num_micro, stages * factor)


def footprint(work: Workload, layout: Layout, cluster: Cluster, num_micro: int) -> Footprint:
    """Bytes per device; `num_micro` is how many micro-batches a pipeline works through in a step. Gradients are held between them."""
    mine = share(work, layout)
    weight = 4.0 if layout.precision == "float32" else WEIGHT_BYTES
    state = 8.0 if layout.precision == "float32" else STATE_BYTES  # the weight is its own master

    def held(bytes_each: float, stage: int) -> float:
        dense, experts = (mine.dense_shards, mine.expert_shards) if layout.zero >= stage else (1, 1)
        return bytes_each * (mine.dense / dense + mine.experts / experts)

    weights, gradients = held(weight, 3), held(GRADIENT_BYTES, 2)
    one = (work.dense_parameters / layout.tensor + work.expert_parameters / layout.expert) / work.num_layers  # parameters of a layer
    layer = GRADIENT_BYTES * one if layout.zero > 1 else 0.0  # gradients of the layer at work are there whole until they are scattered
    if layout.zero == 3:
        # FSDP2 gathers from the float32 master, which is counted as a state. Embedding and head belong to no layer and stay gathered, the
        # head's gradient waits for the end of the backward pass; of layers there are two, the one at work and the one fetched ahead
        weights = (weights if layout.precision == "float32" else 0.0) + weight * (work.embedding_parameters + work.head_parameters) / layout.tensor
        gradients += weight * (work.head_parameters or work.embedding_parameters) / layout.tensor
        layer += 2 * weight * one
    tokens = layout.micro_batch * work.context / (layout.context * layout.tensor)
    scale = 2.0 if layout.precision == "float32" else 1.0
    kept = scale * tokens * work.kept_bytes[layout.checkpointing] * work.num_layers / layout.pipeline * kept_micro_batches(layout, num_micro)
    # gradients of a layer's activations take about half of what it keeps; what was not kept is made again
    layer += scale * tokens * work.kept_bytes["none"] * (1.5 if layout.checkpointing == "full" else 0.5)
    logits = min(LOGIT_TOKENS, tokens * layout.tensor) * work.vocabulary_size / layout.tensor * 6.0  # 16-bit values and a float32 gradient
    working = max(logits, layer)
    if layout.zero == 3:
        # at the end of the backward pass both tables' gradients are reduced, in the compute precision and as float32; weights and activations are gone by then
        tables = (work.embedding_parameters + work.head_parameters) / layout.tensor
        head = (work.head_parameters or work.embedding_parameters) / layout.tensor
        working = max(working, (weight + GRADIENT_BYTES) * tables - weight * (tables + head) - kept)
    allowance = RESERVED_BYTES + FRAGMENTATION * cluster.accelerator.memory_bytes
    return Footprint(weights, gradients, held(state, 1), kept, working, allowance)


def num_micro_batches(work: Workload, layout: Layout, batch_tokens: float) -> int:
    """Micro-batches per pipeline and step at a global batch of `batch_tokens`, at least one."""
    return max(1, math.ceil(batch_tokens / (layout.micro_batch * work.context * layout.data)))
