"""What fused kernels keep for the backward pass, for tests that count memory and compute nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import Function

from hagane.plan.footprint import LOGIT_TOKENS


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


class Embedded(Function):
    @staticmethod
    def forward(ctx, weight: Tensor, token_N: Tensor) -> Tensor:
        return weight.new_empty(len(token_N), weight.shape[1])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return None, None


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
