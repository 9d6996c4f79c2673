"""What fused kernels keep for the backward pass, for tests that count memory and compute nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function


class Keeps(Function):
    """A kernel that keeps its inputs, and `extra` values besides, and gives something as wide as its first input."""

    @staticmethod
    def forward(ctx, extra: int, *inputs: Tensor) -> Tensor:
        output = torch.empty_like(inputs[0])
        ctx.save_for_backward(*inputs, output.new_empty(extra, dtype=torch.float32), *([output] if extra > 1 else []))
        ctx.count = len(inputs)
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return (None, *(torch.empty_like(one) for one in ctx.saved_tensors[: ctx.count]))
