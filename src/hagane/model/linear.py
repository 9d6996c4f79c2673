"""The two matrices every part is made of, without torch's own initialisation (init_weights draws once, by name)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE_STEP = 32
"""On a CPU the library builds a kernel for every shape of matrix it has not seen: sizes that vary with the data go in steps of this."""


def stepped(size: int) -> int:
    """The next multiple of SHAPE_STEP, at least one of them."""
    return max(1, -(-size // SHAPE_STEP)) * SHAPE_STEP


class Linear(nn.Module):
    """hidden (..., inputs) -> (..., outputs) without bias; weight (outputs, inputs)."""

    def __init__(self, inputs: int, outputs: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_VD: Tensor, token_BT: Tensor) -> Tensor:
        ctx.save_for_backward(token_BT)
        ctx.vocabulary_size = weight_VD.shape[0]
        return F.embedding(token_BT, weight_VD)

    @staticmethod
    def backward(ctx: Any, gradient_BTD: Tensor) -> tuple[Tensor, None]:
        (token_BT,) = ctx.saved_tensors
        total_VD = torch.ops.aten.embedding_dense_backward(gradient_BTD.float(), token_BT, ctx.vocabulary_size, -1, False)
        return total_VD.to(gradient_BTD.dtype), None


class Embedding(nn.Module):
    """tokens (B, T) -> (B, T, D); weight (V, D).

    The gradient is summed in float32: in bf16 the many occurrences of a common token would swallow each other.
    """

    def __init__(self, vocabulary_size: int, width: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary_size, width, device=device))

    def forward(self, token_BT: Tensor) -> Tensor:
        result: Tensor = _LookUp.apply(self.weight, token_BT)  # type: ignore[no-untyped-call]
        return result
