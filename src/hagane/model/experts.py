"""Routed SwiGLU experts, computed exactly: every token goes to all of its experts, none is dropped.

Choices are sorted by expert, their tokens gathered, multiplied in groups and gathered back. Gradients are gathers along the
inverse permutation and sums over K, never a sum by scatter: bit-equal from run to run, on a CPU much faster.

Choices of null experts are no work: their rows stand behind all others, hold zeros, are never multiplied, and add nothing.

On a CPU groups are filled up with zero rows to a multiple of SHAPE_STEP, or of less where they are small: the number of rows of an expert is another one in
every step, and its library builds a kernel for every new shape (docs/notebook.md, "New shapes").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.kernels import routing
from hagane.model.config import DenseConfig, ExpertsConfig
from hagane.model.dense import Dense, swiglu
from hagane.model.grouped import build_products, grouped_linear, piece_sizes
from hagane.model.linear import SHAPE_STEP, Linear
from hagane.model.router import Choice, Router, RouterStats

FILLED_FROM = 3  # times the step for each expert's rows: from there on filling adds at most a third, and a sixth on average

REACH = 8
"""Times the mean of an expert's rows: products of more are built when they are met."""

Compute = Callable[[Tensor, Tensor], Tensor]
Dispatch = Callable[[Tensor, Choice, int, Compute], Tensor]


class _Spread(torch.autograd.Function):
    """rows[m] = hidden[token[m]], zero where token[m] is N; `row_NK` is the inverse: the rows of every token."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, token_M: Tensor, row_NK: Tensor, computed_NK: Tensor | None) -> Tensor:
        ctx.save_for_backward(row_NK, computed_NK)
        return _with_zero_row(hidden_ND, token_M.shape[0] > row_NK.numel() or computed_NK is not None)[token_M]

    @staticmethod
    def backward(ctx: Any, gradient_MD: Tensor) -> tuple[Tensor, None, None, None]:
        row_NK, computed_NK = ctx.saved_tensors
        return _rows(gradient_MD, row_NK, computed_NK).float().sum(1).to(gradient_MD.dtype), None, None, None


class _Combine(torch.autograd.Function):
    """hidden[n] = Σ_k weight[n, k] · rows[row[n, k]], summed in float32. `order_M`: which choice n·K + k a row is, N·K for filling."""

    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, weight_NK: Tensor, row_NK: Tensor, order_M: Tensor, computed_NK: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows_MD, weight_NK, row_NK, order_M, computed_NK)
        return (_rows(rows_MD, row_NK, computed_NK).float() * weight_NK[..., None]).sum(1).to(rows_MD.dtype)

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        rows_MD, weight_NK, row_NK, order_M, computed_NK = ctx.saved_tensors
        filled = order_M.shape[0] > row_NK.numel() or computed_NK is not None
        weight_M = _with_zero_row(weight_NK.reshape(-1, 1), filled)[order_M]
        rows = (_with_zero_row(gradient_ND, filled)[order_M // weight_NK.shape[1]].float() * weight_M).to(rows_MD.dtype)
        weight = (_rows(rows_MD, row_NK, computed_NK).float() * gradient_ND[:, None].float()).sum(-1)
        return rows, weight, None, None, None


def _rows(rows_MD: Tensor, row_NK: Tensor, computed_NK: Tensor | None) -> Tensor:
    """The rows of every token's choices (N, K, D). Rows behind the last expert's were never written: those choices are zero."""
    rows_NKD = rows_MD[row_NK]
    return rows_NKD if computed_NK is None else torch.where(computed_NK[..., None], rows_NKD, 0.0)


def _with_zero_row(values_ND: Tensor, wanted: bool) -> Tensor:
    """One row more, of zeros, for indices that stand for nothing."""
    return F.pad(values_ND, (0, 0, 0, 1)) if wanted else values_ND


class Arrangement(NamedTuple):
    """Rows sorted by expert: the choice behind every row, the row of every choice, and where each expert's rows end (int32)."""

    order_M: Tensor
    row_NK: Tensor
    end_E: Tensor


@torch.no_grad()
def arrange(expert_NK: Tensor, num_experts: int, multiple: int, with_null: bool = False) -> Arrangement:
    """Sort choices by expert, each expert's rows filled up to a multiple (M is then as large as that can become, whatever was chosen).

    A row that fills up stands for choice N·K, which there is not. `with_null`: choices from `num_experts` on are null; their rows come last,
    and stand for that choice as well.
    """
    expert_C = expert_NK.reshape(-1)
    order_C = expert_C.argsort(stable=True)
    rank_C = order_C.argsort()
    count_E = (expert_C[:, None] == torch.arange(num_experts, device=expert_C.device)).sum(0)
    if multiple == 1:
        end_E = count_E.cumsum(0)
        if with_null:
            order_C = torch.where(torch.arange(len(order_C), device=order_C.device) < end_E[-1], order_C, len(order_C))
        return Arrangement(order_C, rank_C.view_as(expert_NK), end_E.to(torch.int32))
    filled_E = (count_E + (multiple - 1)) // multiple * multiple
    end_E = filled_E.cumsum(0)
    shift_E = (end_E - filled_E) - (count_E.cumsum(0) - count_E)  # how far filling moved an expert's rows
    if with_null:
        shift_E = torch.cat([shift_E, (end_E[-1] - count_E.sum())[None]])
    row_C = rank_C + shift_E[expert_C.clamp(max=num_experts)]
    num_choices = expert_C.shape[0]
    order_M = torch.full((num_choices + num_experts * (multiple - 1),), num_choices, dtype=torch.int64, device=expert_C.device)
    choice_C = torch.arange(num_choices, device=expert_C.device)
    if with_null:
        choice_C = torch.where(expert_C < num_experts, choice_C, num_choices)
    order_M = order_M.index_copy(0, row_C, choice_C)
    return Arrangement(order_M, row_C.view_as(expert_NK), end_E.to(torch.int32))


def row_step(device: torch.device, num_choices: int, num_experts: int) -> int:
    """What an expert's rows are filled up to a multiple of. Filling must stay small beside what is computed: not while decoding a few tokens."""
    step = SHAPE_STEP if device.type == "cpu" else 1
    while step > 1 and num_choices < FILLED_FROM * step * num_experts:
        step //= 2
    return step


def fused_dispatch(hidden_ND: Tensor, choice: Choice, num_experts: int, compute: Compute) -> Tensor:
    """The same as `local_dispatch`, by the kernels of `kernels.routing`."""
    step = row_step(hidden_ND.device, choice.expert_NK.numel(), num_experts)
    order_M, row_NK, end_E = routing.arrange(choice.expert_NK, num_experts, step)
    result: Tensor = routing.combine(compute(routing.spread(hidden_ND, order_M, row_NK), end_E), choice.weight_NK, row_NK, order_M)
    return result


def local_dispatch(hidden_ND: Tensor, choice: Choice, num_experts: int, compute: Compute) -> Tensor:
    """All experts are here: sort the choices by expert, compute, bring the results back to their tokens."""
    top_k = choice.expert_NK.shape[1]
    computed_NK, step = choice.computed_NK, row_step(hidden_ND.device, choice.expert_NK.numel(), num_experts)
    order_M, row_NK, end_E = arrange(choice.expert_NK, num_experts, step, computed_NK is not None)
    rows_MD = _Spread.apply(hidden_ND, order_M // top_k, row_NK, computed_NK)  # type: ignore[no-untyped-call]
    result: Tensor = _Combine.apply(compute(rows_MD, end_E), choice.weight_NK, row_NK, order_M, computed_NK)  # type: ignore[no-untyped-call]
    return result


class Experts(nn.Module):
    """The feed-forward of kind `experts`. Weights as in transformers 5: gate_up (E, 2F, D), gate first, and down (E, D, F).

    Shared experts are one dense feed-forward: the sum of several is the same as one of their joint width.
    """

    def __init__(self, width: int, config: ExpertsConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.num_experts, self.top_k = config.num_experts, config.top_k
        self.router = Router(width, config, device)
        self.gate_up = nn.Parameter(torch.empty(config.num_experts, 2 * config.hidden, width, device=device))
        self.down = nn.Parameter(torch.empty(config.num_experts, width, config.hidden, device=device))
        self.shared = Dense(width, DenseConfig(hidden=config.shared_hidden), device) if config.shared_hidden else None
        self.shared_gate = Linear(width, 1, device) if config.shared_gate else None
        self.fused = False  # see `norm`
        self.dispatch: Dispatch = local_dispatch  # expert parallelism exchanges tokens here

    def fuse(self) -> None:
        """Let kernels choose, send tokens to their experts and back, and do what stands between the matrix products."""
        self.fused = self.router.fused = True
        if self.dispatch is local_dispatch:
            self.dispatch = fused_dispatch

    def build_products(self, num_tokens: int) -> None:
        """Have oneDNN, which multiplies 16-bit matrices on a CPU, build its products for a micro-batch of so many tokens: see `grouped`. None elsewhere."""
        num_choices = num_tokens * self.top_k
        step = row_step(self.gate_up.device, num_choices, self.num_experts)
        if step > 1 and self.gate_up.dtype == torch.bfloat16:
            sizes = piece_sizes(min(num_choices, REACH * num_choices // self.num_experts), step)
            for weight_EFD in (self.gate_up, self.down):
                build_products(weight_EFD[0], sizes)

    def compute(self, rows_MD: Tensor, end_E: Tensor) -> Tensor:
        """Rows sorted by expert, `end_E` where each expert's rows end, through their experts."""
        gate_up_MF = grouped_linear(rows_MD, self.gate_up, end_E, self.fused)
        return grouped_linear(swiglu(gate_up_MF, self.fused), self.down, end_E, self.fused)

    def forward(self, hidden_BTD: Tensor, real_BT: Tensor) -> tuple[Tensor, RouterStats]:
        hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
        choice, stats = self.router(hidden_ND, real_BT.reshape(-1))
        routed_BTD = self.dispatch(hidden_ND, choice, self.num_experts, self.compute).view_as(hidden_BTD)
        if self.shared is None:
            return routed_BTD, stats
        shared_BTD = self.shared(hidden_BTD)
        if self.shared_gate is not None:
            shared_BTD = (shared_BTD.float() * self.shared_gate(hidden_BTD).float().sigmoid()).to(shared_BTD.dtype)
        return routed_BTD + shared_BTD, stats
