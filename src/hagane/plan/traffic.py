"""Bytes that devices send each other under a layout, by collective, and the seconds they take at the full rate of the links.

Ring collectives: to gather or to scatter-reduce a result of B bytes over n devices each device sends B (n - 1) / n (Rajbhandari et
al. 2020, section 7; Thakur et al. 2005). Where the group crosses nodes, all network ports of a node work at once: between nodes each
port carries 1 / g of B (k - 1) / k, k nodes with g devices of the group each. The slower of both levels is what counts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from hagane.plan.footprint import GRADIENT_BYTES, WEIGHT_BYTES, share
from hagane.plan.machines import Cluster
from hagane.plan.workload import Workload
from hagane.recipe.types import Layout


class Leg(NamedTuple):
    """What one device sends in one kind of traffic: bytes, and seconds at the full rate of its links."""

    bytes: float = 0.0
    seconds: float = 0.0


class Traffic(NamedTuple):
    """Per micro-batch and stage, but for `step`, which is once per optimizer step."""

    tensor: Leg = Leg()
    expert: Leg = Leg()
    context: Leg = Leg()
    pipeline: Leg = Leg()
    sharded: Leg = Leg()
    step: Leg = Leg()


# What each kind is, in the words of those who run it.
COLLECTIVES = {
    "tensor": "all-gather and reduce-scatter of activations (tensor parallelism)", "expert": "all-to-all of tokens (expert parallelism)",
    "context": "ring of keys and values (context parallelism)", "pipeline": "activations between stages (pipeline)",
    "sharded": "all-gather of weights and reduce-scatter of gradients (ZeRO-3)", "step": "reduction of gradients and all-gather of weights (data parallelism)",
}  # fmt: skip


class _Group(NamedTuple):
    """Devices that talk, how many of them share a node, and the part of the fast fabric that is theirs (on a torus: of its axes)."""

    size: int
    per_node: int
    fabric: float = 1.0


def gather(num_bytes: float, size: int, per_node: int, cluster: Cluster, fabric: float = 1.0) -> Leg:
    """All-gather to, or reduce-scatter from, `num_bytes` on each of `size` devices, `per_node` of them in a node."""
    if size <= 1 or num_bytes <= 0:
        return Leg()
    device = cluster.accelerator
    sent = num_bytes * (size - 1) / size
    nodes = math.ceil(size / per_node)
    inside = sent / (device.intra_bandwidth * fabric) if per_node > 1 else 0.0
    outside = num_bytes * (nodes - 1) / nodes / per_node / device.inter_bandwidth if nodes > 1 else 0.0
    return Leg(sent, max(inside, outside))


def exchange(num_bytes: float, choices: int, size: int, per_node: int, cluster: Cluster, fabric: float = 1.0) -> Leg:
    """All-to-all of tokens of `num_bytes` in all, each to `choices` of the experts that `size` devices hold.

    A token goes once to every other node that holds one of its choices, as with DeepEP (DeepSeek-V3, section 3.2.2), and inside a
    node once to every device: of n places k independent choices hit n (1 - (1 - 1/n)^k), the token's own place needs no link.
    """
    if size <= 1 or num_bytes <= 0:
        return Leg()

    def others(places: int) -> float:
        return (places - 1) * (1 - (1 - 1 / places) ** choices)

    device, nodes = cluster.accelerator, math.ceil(size / per_node)
    sent = num_bytes * others(size)
    inside = sent / (device.intra_bandwidth * fabric) if per_node > 1 else 0.0
    outside = num_bytes * others(nodes) / device.inter_bandwidth if nodes > 1 else 0.0
    return Leg(sent, max(inside, outside))


def _groups(layout: Layout, cluster: Cluster) -> dict[str, _Group]:
    """Ranks are laid out tensor, context, data, pipeline from the inside; experts take neighbours of tensor x context x data."""
    node, torus = cluster.node, cluster.accelerator.torus
    left = max(1, node // layout.tensor)
    spread = layout.data * layout.context
    tensor_axes, data_axes = 1.0, 1.0
    if torus and layout.tensor > 1 and spread > 1:  # each kind of parallelism has axes of its own, and only their links
        tensor_axes, data_axes = 1 / torus, (torus - 1) / torus
    return {
        "tensor": _Group(layout.tensor, min(layout.tensor, node), tensor_axes),
        "context": _Group(layout.context, min(layout.context, left), data_axes),
        "data": _Group(spread, min(spread, left), data_axes),
        "expert": _Group(layout.expert, min(layout.expert, node)),
    }


def traffic(work: Workload, layout: Layout, cluster: Cluster) -> Traffic:
    """All kinds of traffic of a layout."""
    groups = _groups(layout, cluster)
    passes = 4 if layout.checkpointing == "full" else 3  # forward, two of backward, forward again
    tokens = layout.micro_batch * work.context / layout.context  # of a tensor group
    layers = work.num_layers / layout.pipeline
    routed = work.routed_layers / layout.pipeline
    width_bytes = 2.0 * work.width
    return Traffic(
        tensor=_tensor(tokens * width_bytes, 2 * layers - routed, passes, groups["tensor"], cluster),
        expert=_expert(tokens / layout.tensor, work, routed, layout, groups["expert"], cluster),
        context=_context(tokens * 2.0 * work.kv_elements / layout.tensor, layers, layout, groups["context"], cluster),
        pipeline=_pipeline(tokens * width_bytes / layout.tensor, layout, cluster),
        sharded=_sharded(work, layout, groups["data"], cluster) if layout.zero == 3 else Leg(),
        step=_step(work, layout, groups["data"], cluster) if layout.zero < 3 else Leg(),
    )


def step_bytes(work: Workload, layout: Layout, cluster: Cluster, num_micro: int) -> dict[str, float]:
    """Bytes that one device sends in an optimizer step of `num_micro` micro-batches, by kind of traffic."""
    return {name: leg.bytes * (1 if name == "step" else num_micro) for name, leg in traffic(work, layout, cluster)._asdict().items()}


def _scaled(leg: Leg, factor: float) -> Leg:
    return Leg(leg.bytes * factor, leg.seconds * factor)


def _tensor(num_bytes: float, blocks: float, passes: int, group: _Group, cluster: Cluster) -> Leg:
    """With sequence parallelism (Korthikanti et al. 2022, section 4.2.2): each half of a block gathers before and scatters after, in
    the forward pass and mirrored in the backward pass; the input gathered again for the weight's gradient hides behind a product.
    Routed experts are not cut by tensor, so their half of a block sends nothing here."""
    return _scaled(gather(num_bytes, *group[:2], cluster, group.fabric), 2 * blocks * (passes - 1))


def _expert(tokens: float, work: Workload, routed: float, layout: Layout, group: _Group, cluster: Cluster) -> Leg:
    """Dispatch and combine, and their mirror images; fp8 dispatches one byte a value in the forward pass (DeepSeek-V3, section 3.3)."""
    forward = (1.0 if layout.precision in ("fp8", "fp4") else 2.0) + 2.0
    per_value = forward * (2 if layout.checkpointing == "full" else 1) + 4.0
    return _scaled(exchange(tokens * work.width * per_value, work.top_k, *group[:2], cluster, group.fabric), routed)


def _context(num_bytes: float, layers: float, layout: Layout, group: _Group, cluster: Cluster) -> Leg:
    """Ring attention (Liu et al. 2023): keys and values go round once forward; they and their gradients once backward."""
    rounds = 3 + (layout.checkpointing == "full")
    return _scaled(gather(num_bytes * layout.context, *group[:2], cluster, group.fabric), layers * rounds)


def _pipeline(num_bytes: float, layout: Layout, cluster: Cluster) -> Leg:
    """The block's output forward and its gradient backward, once per turn (Narayanan et al. 2021, section 3.2)."""
    if layout.pipeline == 1:
        return Leg()
    device = cluster.accelerator
    inside = layout.devices <= cluster.node or cluster.node >= cluster.count
    rate = device.intra_bandwidth if inside else device.inter_bandwidth
    sent = 2 * num_bytes * layout.interleave
    return Leg(sent, sent / rate)


def _expert_group(layout: Layout, group: _Group) -> _Group:
    """Devices with the same experts: one in `expert` of tensor x context x data."""
    size = max(1, layout.data * layout.context * layout.tensor // layout.expert)
    return _Group(size, max(1, min(size, group.per_node * layout.tensor // layout.expert)), group.fabric)


def _both(work: Workload, layout: Layout, group: _Group, cluster: Cluster, bytes_each: float) -> Leg:
    mine, experts = share(work, layout), _expert_group(layout, group)
    legs = [
        gather(mine.dense * bytes_each, *group[:2], cluster, group.fabric),
        gather(mine.experts * bytes_each, *experts[:2], cluster, experts.fabric),
    ]
    return Leg(sum(leg.bytes for leg in legs), sum(leg.seconds for leg in legs))


def _sharded(work: Workload, layout: Layout, group: _Group, cluster: Cluster) -> Leg:
    """ZeRO-3, per micro-batch: weights gathered for the forward and for the backward pass, gradients scattered (ZeRO, section 7.2.2)."""
    return _both(work, layout, group, cluster, 2 * WEIGHT_BYTES + GRADIENT_BYTES)


def _step(work: Workload, layout: Layout, group: _Group, cluster: Cluster) -> Leg:
    """Once a step: gradients scattered and new weights gathered (ZeRO-1 and 2), or gradients reduced everywhere (data parallelism)."""
    return _both(work, layout, group, cluster, GRADIENT_BYTES + (WEIGHT_BYTES if layout.zero else GRADIENT_BYTES))
