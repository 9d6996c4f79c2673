"""The footprint of tensor, expert and pipeline layouts against torch's own accounting: what one rank holds through a step.

A rank is simulated by the tensors that it has: weights, experts and layers cut as the layout says, what it gathers and exchanges, the
micro-batches that a pipeline of one forward, one backward keeps at once. Ring attention sends keys and values round in two buffers; sharded gradients
(ZeRO-2) are there whole for one layer at a time. Kernels keep what fused ones keep, as in test_tracked_memory;
products add to the float32 gradient themselves (Megatron's fused accumulation), so no 16-bit gradient of a weight exists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import Function
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.checkpoint import checkpoint

from fused import Embedded, Head, Keeps, Products, Summed, weight
from hagane.plan.footprint import footprint, share
from hagane.plan.machines import cluster
from hagane.plan.workload import from_shape
from hagane.recipe.types import Layout

MICRO_BATCHES = 8  # of a step, more than any pipeline here keeps


class Ring(Function):
    """Attention of a part of a row: keys and values of the others come by in two buffers, forward, and backward with their gradients."""

    @staticmethod
    def forward(ctx, ranks: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.ranks = ranks
        passing = [torch.empty_like(part) for part in (k, v) for _ in range(2)]
        output = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, output)
        del passing
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor):
        q, k, v, _ = ctx.saved_tensors
        passing = [torch.empty_like(part) for part in (k, v) for _ in range(4)]
        gradients = tuple(torch.empty_like(part) for part in (q, k, v))
        del passing
        return (None, *gradients)


class Scattered(Function):
    """The end of a layer whose gradients are sharded: backward, they are all there until `Begun` is reached."""

    @staticmethod
    def forward(ctx, rows: Tensor, layer: nn.Module) -> Tensor:
        ctx.layer = layer
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        ctx.layer.whole = [torch.empty_like(parameter, dtype=torch.float32) for parameter in ctx.layer.parameters()]
        return gradient, None


class Begun(Function):
    """The beginning of such a layer."""

    @staticmethod
    def forward(ctx, rows: Tensor, layer: nn.Module) -> Tensor:
        ctx.layer = layer
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        ctx.layer.whole = None
        return gradient, None


class Exchanged(Function):
    """Rows sent to the ranks of their experts, `choices` copies of each, or brought back and summed: nothing is kept."""

    @staticmethod
    def forward(ctx, rows: Tensor, choices: int, back: bool) -> Tensor:
        ctx.shape = rows.shape
        return rows.new_empty(len(rows) // choices if back else len(rows) * choices, rows.shape[1])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient.new_empty(ctx.shape), None, None


class Grouped(Function):
    """Products of the rows that this rank's experts got, evenly routed."""

    @staticmethod
    def forward(ctx, rows: Tensor, *weights_EOI: Tensor):
        ctx.save_for_backward(rows, *weights_EOI)
        return tuple(rows.new_empty(len(rows), weight.shape[1]) for weight in weights_EOI)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        rows, *weights = ctx.saved_tensors
        return (torch.empty_like(rows), *(None for _ in weights))


class Routing(Function):
    """Scores of the router in float32, kept, and its input."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor) -> Tensor:
        scores = rows.new_empty(len(rows), len(weight), dtype=torch.float32)
        ctx.save_for_backward(rows, scores)
        return rows.new_zeros(())

    @staticmethod
    def backward(ctx, gradient: Tensor):
        rows, _ = ctx.saved_tensors
        return torch.empty_like(rows), None


class Sent(Function):
    """The end of a stage: its output goes on, and its gradient comes back."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = rows.shape, rows.dtype
        return rows.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return torch.empty(ctx.shape, dtype=ctx.dtype)


class Block(nn.Module):
    """One layer of a rank; `shape` as `from_shape` takes it."""

    def __init__(self, layout: Layout, shape: dict[str, int]) -> None:
        super().__init__()
        cut, width = layout.tensor, shape["width"]
        wide, narrow = shape["num_heads"] * shape["head_dim"] // cut, shape["num_kv_heads"] * shape["head_dim"] // cut
        self.ring, self.scattered, self.selective = layout.context, layout.zero == 2, layout.checkpointing == "selective"
        self.cut, self.heads, self.top_k = cut, shape["num_heads"] // cut, shape.get("top_k", 0)
        self.norms = nn.ParameterList(weight(width) for _ in range(2))
        self.qkv = nn.ParameterList(weight(rows, width) for rows in (wide, narrow, narrow))
        self.output = weight(width, wide)
        hidden = shape.get("hidden", 0) // cut
        self.dense = nn.ParameterList([weight(hidden, width), weight(hidden, width), weight(width, hidden)]) if hidden else None
        self.experts = None
        if self.top_k:
            count, inner = shape["num_experts"] // layout.expert, shape["expert_hidden"]
            self.router = weight(shape["num_experts"], width)
            self.experts = nn.ParameterList([weight(count, inner, width), weight(count, inner, width), weight(count, width, inner)])

    def forward(self, stream: Tensor) -> Tensor:
        """Selective checkpointing makes norms and the products of activations again, from what the calls of `again` are given."""
        stream = Begun.apply(stream, self) if self.scattered else stream
        q, k, v = self.again(lambda rows: Products.apply(self.cut, Keeps.apply(1, rows, self.norms[0]), *self.qkv), stream)
        mixed = Ring.apply(self.ring, q, k, v) if self.ring > 1 else Keeps.apply(len(q) * self.heads, q, k, v)
        stream = stream + Summed.apply(self.cut, mixed, self.output)
        if self.dense is not None:
            gate, up, down = self.dense
            made = self.again(lambda rows: Products.apply(self.cut, Keeps.apply(1, rows, self.norms[1]), gate, up), stream)
            stream = stream + self.again(lambda *parts: Summed.apply(self.cut, Keeps.apply(1, *parts), down), *made)
        if self.experts is not None:
            gate, up, down = self.experts
            scored = self.again(lambda rows: Routing.apply(Keeps.apply(1, rows, self.norms[1]), self.router), stream)
            rows = self.again(lambda rows: Exchanged.apply(Keeps.apply(1, rows, self.norms[1]), self.top_k, False), stream)
            (rows,) = self.again(lambda *parts: Grouped.apply(Keeps.apply(1, *parts), down), *Grouped.apply(rows, gate, up))
            stream = stream + Exchanged.apply(rows, self.top_k, True) + scored.to(stream.dtype)
        return Scattered.apply(stream, self) if self.scattered else stream

    def again(self, made: Callable[..., Any], *inputs: Tensor) -> Any:
        return checkpoint(made, *inputs, use_reentrant=False) if self.selective else made(*inputs)


class Rank(nn.Module):
    """The layers of the first stage, in as many chunks as it takes turns; embedding, and the head where there is no other stage."""

    def __init__(self, layout: Layout, shape: dict[str, int]) -> None:
        super().__init__()
        layers = shape["num_layers"] // layout.pipeline
        self.layout, self.blocks = layout, nn.ModuleList(Block(layout, shape) for _ in range(layers))
        self.embedding = weight(shape["vocabulary_size"] // layout.tensor, shape["width"])
        self.head = weight(shape["vocabulary_size"] // layout.tensor, shape["width"]) if layout.pipeline == 1 else None

    def run(self, token_N: Tensor, turn: int) -> Tensor:
        """One chunk of a micro-batch forward. Not `forward`: the tracker's hooks on modules know no second micro-batch in flight."""
        stream = Embedded.apply(self.embedding, token_N) if turn == 0 else torch.empty(len(token_N), self.embedding.shape[1], dtype=torch.bfloat16)
        if turn:
            stream.requires_grad_()
        size = len(self.blocks) // self.layout.interleave
        for block in self.blocks[turn * size : (turn + 1) * size]:
            full = self.layout.checkpointing == "full"
            stream = checkpoint(block.forward, stream, use_reentrant=False) if full else block.forward(stream)
        return Sent.apply(stream) if self.head is None else Head.apply(self.layout.tensor, stream, self.head)


def tracked(layout: Layout, shape: dict[str, int]) -> float:
    """Bytes at the peak of a step on a rank of the first stage."""
    with FakeTensorMode():
        rank = Rank(layout, shape)
        mine = share(from_shape(**shape), layout)
        count = sum(parameter.numel() for parameter in rank.parameters())
        sharded = mine.dense / mine.dense_shards + mine.experts / mine.expert_shards
        gradients = round(sharded) if layout.zero == 2 else count
        held = [torch.empty(gradients, dtype=torch.float32), torch.empty(3, round(sharded), dtype=torch.float32)]  # gradients; masters and two moments
        token_N = torch.zeros(layout.micro_batch * shape["context"] // layout.tensor // layout.context, dtype=torch.long)
        tracker = MemTracker()
        tracker.track_external(rank, *held)
        stages, turns = layout.pipeline, layout.interleave
        # interleaved 1F1B (Narayanan et al. 2021, section 2.2.2): the first rank runs this many chunks ahead
        ahead = 1 if stages == 1 else stages if turns == 1 else 2 * (stages - 1) + (turns - 1) * stages + 1
        with tracker:
            waiting: deque[Tensor] = deque()
            for chunk in range(MICRO_BATCHES * turns):
                if len(waiting) == ahead:
                    waiting.popleft().backward()
                waiting.append(rank.run(token_N, chunk // stages % turns))
            while waiting:
                waiting.popleft().backward()
        return float(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


DENSE = {"num_layers": 8, "width": 4096, "num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "hidden": 14336, "vocabulary_size": 32000, "context": 8192}
ROUTED = {
    "num_layers": 8, "width": 2048, "num_heads": 32, "num_kv_heads": 4, "head_dim": 128, "num_experts": 64, "top_k": 8, "expert_hidden": 768,
    "routed_layers": 8, "vocabulary_size": 32000, "context": 4096,
}  # fmt: skip
LAYOUTS = {
    "zero 2": (DENSE, {"zero": 2, "data": 8, "micro_batch": 1}),
    "zero 2 and tensor": (DENSE, {"zero": 2, "tensor": 4, "data": 4, "micro_batch": 2}),
    "zero 2 and expert": (ROUTED, {"zero": 2, "expert": 8, "data": 8, "micro_batch": 2}),
    "context": (DENSE, {"context": 4, "data": 2, "micro_batch": 4}),
    "context and tensor": (DENSE, {"context": 2, "tensor": 4, "data": 2, "micro_batch": 4}),
    "tensor": (DENSE, {"tensor": 8, "data": 2, "micro_batch": 4}),
    "tensor 2": (DENSE, {"tensor": 2, "data": 4, "micro_batch": 2}),
    "pipeline": (DENSE, {"pipeline": 4, "data": 2, "micro_batch": 1}),
    "pipeline in turns": (DENSE, {"pipeline": 4, "interleave": 2, "data": 2, "micro_batch": 1}),
    "tensor and pipeline": (DENSE, {"tensor": 4, "pipeline": 2, "data": 2, "micro_batch": 2}),
    "expert": (ROUTED, {"expert": 8, "data": 8, "micro_batch": 4}),
    "expert 32": (ROUTED, {"expert": 32, "data": 64, "micro_batch": 8}),
    "expert and pipeline": (ROUTED, {"expert": 8, "pipeline": 2, "data": 8, "micro_batch": 2}),
    "expert and tensor": (ROUTED, {"expert": 8, "tensor": 2, "data": 8, "micro_batch": 4}),
    "all": (ROUTED, {"expert": 8, "tensor": 2, "pipeline": 4, "interleave": 2, "data": 8, "micro_batch": 4}),
}


FAST = {("pipeline in turns", "none"), ("tensor and pipeline", "none"), ("expert and pipeline", "none"), ("all", "none"), ("all", "selective"), ("all", "full")}
CASES = [pytest.param(name, mode, marks=() if (name, mode) in FAST else pytest.mark.slow) for name in LAYOUTS for mode in ("none", "selective", "full")]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_rank_holds_what_the_footprint_says(name, mode):
    shape, degrees = LAYOUTS[name]
    layout = Layout(checkpointing=mode, **degrees)
    found = footprint(from_shape(**shape), layout, cluster(f"{layout.devices}xH100"), MICRO_BATCHES)
    assert found.total - found.allowance == pytest.approx(tracked(layout, shape), rel=0.05)
