"""The footprint of tensor, expert and pipeline layouts against torch's own accounting: what one rank holds through a step.

A rank is simulated by the tensors that it has: weights, experts and layers cut as the layout says, what it gathers and exchanges, the
micro-batches that a pipeline of one forward, one backward keeps at once. Kernels keep what fused ones keep, as in test_tracked_memory;
products add to the float32 gradient themselves (Megatron's fused accumulation), so no 16-bit gradient of a weight exists.
"""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import Function
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.checkpoint import checkpoint

from fused import Keeps
from hagane.plan.footprint import LOGIT_TOKENS, footprint, share
from hagane.plan.machines import cluster
from hagane.plan.workload import from_shape
from hagane.recipe.types import Layout

MICRO_BATCHES = 8  # of a step, more than any pipeline here keeps


class Products(Function):
    """Several products of one input, which sequence parallelism gathers from `cut` ranks and keeps as the part that is this rank's."""

    @staticmethod
    def forward(ctx, cut: int, part: Tensor, *weights: Tensor):
        ctx.save_for_backward(part, *weights)
        ctx.cut = cut
        whole = part.new_empty(len(part) * cut, part.shape[1]) if cut > 1 else part
        return tuple(whole @ weight.T for weight in weights)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        part, *weights = ctx.saved_tensors
        whole = part.new_empty(len(part) * ctx.cut, part.shape[1])  # gradient of the input, summed over the products in place
        if ctx.cut == 1:
            return (None, whole, *(None for _ in weights))
        return (None, part.new_empty(part.shape), *(None for _ in weights))


class Summed(Function):
    """A product whose parts on `cut` ranks are summed and scattered."""

    @staticmethod
    def forward(ctx, cut: int, mixed: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(mixed, weight)
        ctx.cut = cut
        whole = mixed @ weight.T
        return whole if cut == 1 else whole.new_empty(len(whole) // cut, whole.shape[1])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        mixed, _ = ctx.saved_tensors
        whole = gradient if ctx.cut == 1 else gradient.new_empty(len(gradient) * ctx.cut, gradient.shape[1])
        del whole
        return None, torch.empty_like(mixed), None


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


class Embedded(Function):
    @staticmethod
    def forward(ctx, weight: Tensor, token_N: Tensor) -> Tensor:
        return weight.new_empty(len(token_N), weight.shape[1])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return None, None


class Sent(Function):
    """The end of a stage: its output goes on, and its gradient comes back."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = rows.shape, rows.dtype
        return rows.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return torch.empty(ctx.shape, dtype=ctx.dtype)


class Head(Function):
    """The head in chunks on its part of the vocabulary, the input's gradient made in the forward pass."""

    @staticmethod
    def forward(ctx, cut: int, part: Tensor, weight: Tensor) -> Tensor:
        gradient = torch.empty_like(part)
        for first in range(0, len(part) * cut, LOGIT_TOKENS):
            logit_NV = part.new_empty(min(LOGIT_TOKENS, len(part) * cut - first), len(weight))
            gradient_NV = torch.empty_like(logit_NV, dtype=torch.float32)
            del logit_NV, gradient_NV
        ctx.save_for_backward(gradient)
        return part.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return None, ctx.saved_tensors[0], None


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape, dtype=torch.bfloat16))


class Block(nn.Module):
    """One layer of a rank; `shape` as `from_shape` takes it."""

    def __init__(self, layout: Layout, shape: dict[str, int]) -> None:
        super().__init__()
        cut, width = layout.tensor, shape["width"]
        wide, narrow = shape["num_heads"] * shape["head_dim"] // cut, shape["num_kv_heads"] * shape["head_dim"] // cut
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
        normed = Keeps.apply(1, stream, self.norms[0])
        q, k, v = Products.apply(self.cut, normed, *self.qkv)
        stream = stream + Summed.apply(self.cut, Keeps.apply(len(q) * self.heads, q, k, v), self.output)
        normed = Keeps.apply(1, stream, self.norms[1])
        if self.dense is not None:
            gate, up, down = self.dense
            stream = stream + Summed.apply(self.cut, Keeps.apply(1, *Products.apply(self.cut, normed, gate, up)), down)
        if self.experts is not None:
            gate, up, down = self.experts
            scored = Routing.apply(normed, self.router)
            rows = Exchanged.apply(normed, self.top_k, False)
            (rows,) = Grouped.apply(Keeps.apply(1, *Grouped.apply(rows, gate, up)), down)
            stream = stream + Exchanged.apply(rows, self.top_k, True) + scored.to(stream.dtype)
        return stream


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
        held = [torch.empty(count, dtype=torch.float32), torch.empty(3, round(sharded), dtype=torch.float32)]  # gradients; masters and two moments
        token_N = torch.zeros(layout.micro_batch * shape["context"] // layout.tensor, dtype=torch.long)
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


FAST = {("pipeline in turns", "none"), ("tensor and pipeline", "none"), ("expert and pipeline", "none"), ("all", "none"), ("all", "full")}
CASES = [pytest.param(name, mode, marks=() if (name, mode) in FAST else pytest.mark.slow) for name in LAYOUTS for mode in ("none", "full")]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_rank_holds_what_the_footprint_says(name, mode):
    shape, degrees = LAYOUTS[name]
    layout = Layout(checkpointing=mode, **degrees)
    found = footprint(from_shape(**shape), layout, cluster(f"{layout.devices}xH100"), MICRO_BATCHES)
    assert found.total - found.allowance == pytest.approx(tracked(layout, shape), rel=0.05)
