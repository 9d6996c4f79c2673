"""Routed SwiGLU experts, computed exactly: every token goes to all of its experts, none is dropped.

Choices are sorted by expert, their tokens gathered, multiplied in groups and gathered back. Gradients are gathers along the
inverse permutation and sums over K, never a scatter: bit-equal from run to run, on a CPU much faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hagane.model.config import ExpertsConfig
from hagane.model.dense import swiglu
from hagane.model.grouped import grouped_linear
from hagane.model.router import Choice, Router, RouterStats

Compute = Callable[[Tensor, Tensor], Tensor]
Dispatch = Callable[[Tensor, Choice, int, Compute], Tensor]


class _Spread(torch.autograd.Function):
    """rows[m] = hidden[token[m]]; `row_NK` is the inverse: the rows of every token."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, token_M: Tensor, row_NK: Tensor) -> Tensor:
        ctx.save_for_backward(row_NK)
        return hidden_ND[token_M]

    @staticmethod
    def backward(ctx: Any, gradient_MD: Tensor) -> tuple[Tensor, None, None]:
        (row_NK,) = ctx.saved_tensors
        return gradient_MD[row_NK].float().sum(1).to(gradient_MD.dtype), None, None


class _Combine(torch.autograd.Function):
    """hidden[n] = Σ_k weight[n, k] · rows[row[n, k]], summed in float32. `order_M`: which choice n·K + k a row is."""

    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, weight_NK: Tensor, row_NK: Tensor, order_M: Tensor) -> Tensor:
        ctx.save_for_backward(rows_MD, weight_NK, row_NK, order_M)
        return (rows_MD[row_NK].float() * weight_NK[..., None]).sum(1).to(rows_MD.dtype)

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows_MD, weight_NK, row_NK, order_M = ctx.saved_tensors
        weight_M = weight_NK.reshape(-1)[order_M]
        rows = (gradient_ND[order_M // weight_NK.shape[1]].float() * weight_M[:, None]).to(rows_MD.dtype)
        weight = (rows_MD[row_NK].float() * gradient_ND[:, None].float()).sum(-1)
        return rows, weight, None, None


def local_dispatch(hidden_ND: Tensor, choice: Choice, num_experts: int, compute: Compute) -> Tensor:
    """All experts are here: sort the choices by expert, compute, bring the results back to their tokens."""
    top_k = choice.expert_NK.shape[1]
    with torch.no_grad():
        expert_M = choice.expert_NK.reshape(-1)
        order_M = expert_M.argsort(stable=True)
        row_NK = order_M.argsort().view(-1, top_k)
        expert_E = torch.arange(num_experts, device=expert_M.device)
        end_E = (expert_M[:, None] == expert_E).sum(0).cumsum(0).to(torch.int32)
    rows_MD = _Spread.apply(hidden_ND, order_M // top_k, row_NK)  # type: ignore[no-untyped-call]
    result: Tensor = _Combine.apply(compute(rows_MD, end_E), choice.weight_NK, row_NK, order_M)  # type: ignore[no-untyped-call]
    return result


class Experts(nn.Module):
    """The feed-forward of kind `experts`. Weights as in transformers 5: gate_up (E, 2F, D), gate first, and down (E, D, F)."""

    def __init__(self, width: int, config: ExpertsConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.router = Router(width, config, device)
        self.gate_up = nn.Parameter(torch.empty(config.num_experts, 2 * config.hidden, width, device=device))
        self.down = nn.Parameter(torch.empty(config.num_experts, width, config.hidden, device=device))
        self.dispatch: Dispatch = local_dispatch  # expert parallelism exchanges tokens here

    def compute(self, rows_MD: Tensor, end_E: Tensor) -> Tensor:
        """Rows sorted by expert, `end_E` where each expert's rows end, through their experts."""
        return grouped_linear(swiglu(grouped_linear(rows_MD, self.gate_up, end_E)), self.down, end_E)

    def forward(self, hidden_BTD: Tensor, real_BT: Tensor) -> tuple[Tensor, RouterStats]:
        hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
        choice, stats = self.router(hidden_ND, real_BT.reshape(-1))
        return self.dispatch(hidden_ND, choice, self.num_experts, self.compute).view_as(hidden_BTD), stats
