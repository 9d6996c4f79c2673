"""The way of tokens to their experts and back, on a CPU: functions with their gradients, each one pass over memory.

They do what `Router.forward` of `model.router` and `arrange`, `_Spread` and `_Combine` of `model.experts` do, choices sorted by counting instead of
comparing. The choice of a null expert is row -1.
"""

from __future__ import annotations

from ctypes import c_float, c_int, c_long, c_void_p
from typing import Any

import torch
from torch import Tensor

from hagane.kernels.build import Library, wide

_WAY = (c_long, c_int, c_int, c_int, c_int, c_float)
_KERNELS = Library(
    "routing",
    {
        "route": (*_WAY, *[c_void_p] * 6),
        "route_backward": (*_WAY, *[c_void_p] * 7),
        "arrange": (c_long, c_long, c_int, c_int, *[c_void_p] * 4),
        "spread": (c_int, c_long, c_int, c_int, *[c_void_p] * 3),
        "gather": (c_int, c_long, c_int, c_int, *[c_void_p] * 4),
        "gather_backward": (c_int, c_long, c_long, c_int, c_int, *[c_void_p] * 7),
    },
)


serves = _KERNELS.serves


class _Route(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logit_NE: Tensor, bias_E: Tensor, real_N: Tensor, top_k: int, softmax: bool, normalise: bool, scaling: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        logit_NE, real_N = logit_NE.contiguous(), real_N.contiguous()
        num_tokens, num_experts = logit_NE.shape
        expert_NK, weight_NK = torch.empty(num_tokens, top_k, dtype=torch.int64), torch.empty(num_tokens, top_k)
        sums = torch.empty(2 * num_experts + 2)
        ctx.way = num_tokens, num_experts, top_k, int(softmax), int(normalise), scaling
        _KERNELS.route(*ctx.way, logit_NE, bias_E.contiguous(), real_N, expert_NK, weight_NK, sums)
        count_E, share_E, square, entropy = sums[:num_experts].clone(), sums[num_experts:-2].clone(), sums[-2].clone(), sums[-1].clone()
        ctx.save_for_backward(logit_NE, real_N, expert_NK)
        ctx.mark_non_differentiable(expert_NK, count_E, entropy)
        return expert_NK, weight_NK, count_E, share_E, square, entropy

    @staticmethod
    def backward(ctx: Any, _0: Tensor, weight_NK: Tensor, _1: Tensor, share_E: Tensor, square: Tensor, _2: Tensor) -> tuple[Tensor | None, ...]:
        logit_NE, real_N, expert_NK = ctx.saved_tensors
        result = torch.empty_like(logit_NE)
        _KERNELS.route_backward(*ctx.way, logit_NE, real_N, expert_NK, weight_NK.contiguous(), share_E.contiguous(), square.contiguous(), result)
        return result, None, None, None, None, None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, order_M: Tensor, row_NK: Tensor) -> Tensor:
        hidden_ND = hidden_ND.contiguous()
        width = hidden_ND.shape[1]
        rows_MD = hidden_ND.new_empty(order_M.shape[0], width)
        _KERNELS.spread(wide(hidden_ND), order_M.shape[0], width, row_NK.shape[1], order_M, hidden_ND, rows_MD)
        ctx.save_for_backward(row_NK)
        return rows_MD

    @staticmethod
    def backward(ctx: Any, gradient_MD: Tensor) -> tuple[Tensor, None, None]:
        return _gathered(gradient_MD, None, *ctx.saved_tensors), None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, weight_NK: Tensor, row_NK: Tensor, order_M: Tensor) -> Tensor:
        rows_MD, weight_NK = rows_MD.contiguous(), weight_NK.contiguous()
        ctx.save_for_backward(rows_MD, weight_NK, row_NK, order_M)
        return _gathered(rows_MD, weight_NK, row_NK)

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows_MD, weight_NK, row_NK, order_M = ctx.saved_tensors
        of_rows_MD, of_weight_NK = torch.empty_like(rows_MD), torch.empty_like(weight_NK)
        sizes = wide(rows_MD), row_NK.shape[0], rows_MD.shape[0], rows_MD.shape[1], row_NK.shape[1]
        _KERNELS.gather_backward(*sizes, row_NK, order_M, weight_NK, rows_MD, gradient_ND.contiguous(), of_rows_MD, of_weight_NK)
        return of_rows_MD, of_weight_NK, None, None


def _gathered(rows_MD: Tensor, weight_NK: Tensor | None, row_NK: Tensor) -> Tensor:
    """The sum of a token's rows, weighted or not, in float32."""
    rows_MD = rows_MD.contiguous()
    num_tokens, top_k = row_NK.shape
    hidden_ND = rows_MD.new_empty(num_tokens, rows_MD.shape[1])
    _KERNELS.gather(wide(rows_MD), num_tokens, rows_MD.shape[1], top_k, row_NK, weight_NK, rows_MD, hidden_ND)
    return hidden_ND


def route(
    logit_NE: Tensor, bias_E: Tensor, real_N: Tensor, top_k: int, softmax: bool, normalise: bool, scaling: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Experts and weights of every token (N, K), and over the real ones the sums of choices (E), of shares (E), of the squared log of the sum of
    exponentials, and of the entropy of the shares. All float32 but the experts. Scores are softmax or sigmoid; of equal ones the first is chosen.
    """
    result: tuple[Tensor, ...] = _Route.apply(logit_NE, bias_E, real_N, top_k, softmax, normalise, scaling)  # type: ignore[no-untyped-call]
    expert_NK, weight_NK, count_E, share_E, square, entropy = result
    return expert_NK, weight_NK, count_E, share_E, square, entropy


@torch.no_grad()
def arrange(expert_NK: Tensor, num_experts: int, multiple: int) -> tuple[Tensor, Tensor, Tensor]:
    """Choices sorted by expert, each expert's rows filled up to a multiple: the choice behind every row (M; -1 fills up), the row of every choice
    (N, K; -1 for null experts), where each expert's rows end (E, int32). M is as large as it can become, whatever was chosen.
    """
    expert_NK = expert_NK.contiguous()
    order_M, row_NK = expert_NK.new_empty(expert_NK.numel() + num_experts * (multiple - 1)), torch.empty_like(expert_NK)
    end_E = torch.empty(num_experts, dtype=torch.int32)
    _KERNELS.arrange(expert_NK.numel(), order_M.shape[0], num_experts, multiple, expert_NK, order_M, row_NK, end_E)
    return order_M, row_NK, end_E


def spread(hidden_ND: Tensor, order_M: Tensor, row_NK: Tensor) -> Tensor:
    """rows[m] = hidden[token of m], zero where a row only fills up."""
    result: Tensor = _Spread.apply(hidden_ND, order_M, row_NK)  # type: ignore[no-untyped-call]
    return result


def combine(rows_MD: Tensor, weight_NK: Tensor, row_NK: Tensor, order_M: Tensor) -> Tensor:
    """hidden[n] = Σ_k weight[n, k] · rows[row[n, k]], summed in float32; the weights are float32."""
    result: Tensor = _Combine.apply(rows_MD, weight_NK, row_NK, order_M)  # type: ignore[no-untyped-call]
    return result
