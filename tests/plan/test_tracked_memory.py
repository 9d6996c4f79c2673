"""The footprint of full sharding, of dense layers and of experts, against torch's own accounting: its tracker sees every tensor of a step on simulated ranks.

The model is a decoder whose kernels keep what fused ones keep (a norm its input, SwiGLU its two inputs, attention its inputs, output
and log-sum-exp). Tensors are fake: nothing is computed, so a model of 8B parameters takes seconds.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import Function
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.checkpoint import checkpoint

from fused import Keeps
from hagane.plan.footprint import LOGIT_TOKENS, footprint
from hagane.plan.machines import cluster
from hagane.plan.workload import from_shape
from hagane.recipe.types import Layout


class ChunkedLoss(Function):
    """The head in chunks, its gradient made in the forward pass."""

    @staticmethod
    def forward(ctx, hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
        gradient_ND, gradient_VD = torch.empty_like(hidden_ND), torch.empty_like(weight_VD)
        for first in range(0, len(hidden_ND), LOGIT_TOKENS):
            logit_NV = hidden_ND[first : first + LOGIT_TOKENS] @ weight_VD.T
            gradient_NV = torch.empty_like(logit_NV, dtype=torch.float32)
            del logit_NV, gradient_NV
        ctx.save_for_backward(gradient_ND, gradient_VD)
        return hidden_ND.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return ctx.saved_tensors


class Block(nn.Module):
    """With `experts`, `top_k` of them a token, evenly routed, in place of the dense feed-forward."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int, hidden: int, experts: int = 0, top_k: int = 0) -> None:
        super().__init__()
        wide, narrow = heads * head_dim, kv_heads * head_dim
        sizes = {"q": (width, wide), "k": (width, narrow), "v": (width, narrow), "o": (wide, width)}
        sizes |= {"router": (width, experts)} if experts else {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
        self.products = nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})
        self.experts = nn.ParameterList(torch.empty(experts, *size) for size in ((width, hidden), (width, hidden), (hidden, width)) if experts)
        self.top_k = top_k
        self.norms = nn.ParameterList(torch.ones(width) for _ in range(2))
        self.heads = heads

    def forward(self, stream: Tensor) -> Tensor:
        tokens = stream.numel() // stream.shape[-1]
        normed = Keeps.apply(1, stream, self.norms[0])
        q, k, v = (self.products[name](normed) for name in "qkv")
        stream = stream + self.products["o"](Keeps.apply(tokens * self.heads, q, k, v))
        normed = Keeps.apply(1, stream, self.norms[1])
        if self.experts:
            return stream + self.routed(normed)
        return stream + self.products["down"](Keeps.apply(1, self.products["gate"](normed), self.products["up"](normed)))


    def routed(self, normed: Tensor) -> Tensor:
        """Rows in the order of their experts, and the sum over a token's choices; the router's scores are kept in float32."""
        gate_EDH, up_EDH, down_EHD = self.experts
        score_BTE = self.products["router"](normed).float().exp()
        row_END = normed.flatten(0, 1).repeat(self.top_k, 1).unflatten(0, (len(gate_EDH), -1))
        out_END = Keeps.apply(1, row_END @ gate_EDH, row_END @ up_EDH) @ down_EHD
        return out_END.flatten(0, 1).unflatten(0, (self.top_k, -1)).sum(0).view_as(normed) + 0 * score_BTE.sum().to(normed.dtype)


class Decoder(nn.Module):
    def __init__(self, vocabulary: int, layers: int, full: bool, **shape: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, shape["width"]), nn.Linear(shape["width"], vocabulary, bias=False)
        self.layers, self.full = nn.ModuleList(Block(**shape) for _ in range(layers)), full

    def forward(self, token_BT: Tensor) -> Tensor:
        stream = self.embedding(token_BT)
        for block in self.layers:
            stream = checkpoint(block, stream, use_reentrant=False) if self.full else block(stream)
        return ChunkedLoss.apply(stream.flatten(0, 1), self.head.weight)


def tracked(ranks: int, rows: int, context: int, precision: str, **model: int) -> dict[str, float]:
    """Bytes at the peak of a step of two micro-batches after another step, by kind, on one of `ranks`."""
    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (ranks,))
        with FakeTensorMode():
            decoder = Decoder(**model)
            policy = MixedPrecisionPolicy(None if precision == "float32" else torch.bfloat16, torch.float32)
            for block in (*decoder.layers, decoder):
                # fewer experts than ranks would be filled up with empty ones
                fully_shard(block, mesh=mesh, mp_policy=policy, shard_placement_fn=lambda parameter: Shard(1) if parameter.ndim == 3 else None)
            optimizer = torch.optim.AdamW(decoder.parameters(), foreach=False)
            token_BT = torch.zeros(rows, context, dtype=torch.long)
            tracker = FSDPMemTracker(decoder, optimizer)
            tracker.track_inputs((token_BT,))
            with tracker:
                for micro in range(3):  # a step, and one of two micro-batches
                    if micro:
                        tracker.reset_mod_stats()
                    decoder(token_BT).backward()
                    if micro != 1:
                        optimizer.step()
                        optimizer.zero_grad()
            return dict(tracker.get_tracker_snapshot("peak")[torch.device("cpu")])
    finally:
        dist.destroy_process_group()


SMALL = {"vocabulary": 32000, "layers": 4, "width": 2048, "heads": 16, "kv_heads": 4, "head_dim": 128, "hidden": 5632}
LARGE = {"vocabulary": 128256, "layers": 4, "width": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "hidden": 14336}


ROUTED = {"vocabulary": 32000, "layers": 4, "width": 2048, "heads": 16, "kv_heads": 4, "head_dim": 128, "hidden": 768, "experts": 32, "top_k": 4}

CASES = [(8, 1, 8192, "none", LARGE), (8, 2, 4096, "none", ROUTED)]
LONGER = [
    (4, 8, 2048, "full", SMALL), (8, 2, 8192, "full", LARGE), (64, 1, 8192, "none", LARGE), (64, 4, 8192, "full", LARGE), (4, 8, 2048, "none", SMALL),
    (32, 8, 4096, "none", SMALL), (64, 1, 4096, "none", ROUTED), (64, 1, 1024, "full", LARGE), (64, 1, 1024, "none", LARGE), (16, 8, 4096, "full", ROUTED),
]  # fmt: skip


@pytest.mark.parametrize(("ranks", "rows", "context", "mode", "model"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONGER)])
def test_the_footprint_is_what_the_tracker_counts(ranks, rows, context, mode, model):
    seen = tracked(ranks, rows, context, "bf16", full=mode == "full", **model)
    work = from_shape(
        num_layers=model["layers"], width=model["width"], context=context, vocabulary_size=model["vocabulary"], num_heads=model["heads"],
        num_kv_heads=model["kv_heads"], head_dim=model["head_dim"], hidden=0 if "experts" in model else model["hidden"],
        num_experts=model.get("experts", 0), top_k=model.get("top_k", 0), expert_hidden=model["hidden"], routed_layers=model["layers"] * ("experts" in model),
    )  # fmt: skip
    layout = Layout(data=ranks, zero=3, micro_batch=rows, checkpointing=mode)
    found = footprint(work, layout, cluster(f"{ranks}xH100"), 2)
    assert found.total - found.allowance == pytest.approx(seen["Total"], rel=0.05)
