"""Matrix multiplication in groups: consecutive rows go through the matrix of their own expert.

On CUDA in bf16 this is torch's grouped_mm. Elsewhere it is an operator of ours, because torch's cannot be compiled in
float32 on a CPU, wants last dimensions in multiples of 16 bytes, and is no faster there than a loop.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_linear(rows_MD: Tensor, weight_EFD: Tensor, end_E: Tensor, eager: bool = False) -> Tensor:
    """rows[end[e-1]:end[e]] @ weight[e].T for every e; `end_E` int32. Returns (M, F); rows from end[-1] on hold anything.

    `eager`: without what it takes to be an operator that can be compiled.
    """
    if eager:
        grouped: Tensor = _Grouped.apply(rows_MD, weight_EFD, end_E)  # type: ignore[no-untyped-call]
        return grouped
    if rows_MD.device.type == "cuda" and rows_MD.dtype == torch.bfloat16 and weight_EFD.shape[1] % 8 == 0 and weight_EFD.shape[2] % 8 == 0:
        return F.grouped_mm(rows_MD, weight_EFD.transpose(1, 2), offs=end_E)
    result: Tensor = _loop(rows_MD, weight_EFD, end_E, False)
    return result


def _spans(end_E: Tensor) -> list[tuple[int, int, int]]:
    ends = end_E.tolist()
    return [(expert, start, end) for expert, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)) if end > start]


def _multiplied(rows_MD: Tensor, weight_EFD: Tensor, end_E: Tensor, transpose: bool) -> Tensor:
    result = rows_MD.new_empty(rows_MD.shape[0], weight_EFD.shape[2 if transpose else 1])
    for expert, start, end in _spans(end_E):
        weight = weight_EFD[expert]
        torch.mm(rows_MD[start:end], weight if transpose else weight.t(), out=result[start:end])
    return result


@torch.library.custom_op("hagane::grouped_linear", mutates_args=())
def _loop(rows_MD: Tensor, weight_EFD: Tensor, end_E: Tensor, transpose: bool) -> Tensor:
    return _multiplied(rows_MD, weight_EFD, end_E, transpose)


@_loop.register_fake
def _(rows_MD: Tensor, weight_EFD: Tensor, end_E: Tensor, transpose: bool) -> Tensor:
    return rows_MD.new_empty(rows_MD.shape[0], weight_EFD.shape[2 if transpose else 1])


def _products(left_MF: Tensor, right_MD: Tensor, end_E: Tensor) -> Tensor:
    """left[span].T @ right[span] for every group: (E, F, D), zero where a group is empty."""
    result = left_MF.new_empty(end_E.shape[0], left_MF.shape[1], right_MD.shape[1])
    spans = _spans(end_E)
    for expert, start, end in spans:
        torch.mm(left_MF[start:end].t(), right_MD[start:end], out=result[expert])
    for expert in {*range(len(result))} - {expert for expert, _, _ in spans}:
        result[expert].zero_()
    return result


@torch.library.custom_op("hagane::grouped_outer", mutates_args=())
def _outer(left_MF: Tensor, right_MD: Tensor, end_E: Tensor) -> Tensor:
    return _products(left_MF, right_MD, end_E)


@_outer.register_fake
def _(left_MF: Tensor, right_MD: Tensor, end_E: Tensor) -> Tensor:
    return left_MF.new_empty(end_E.shape[0], left_MF.shape[1], right_MD.shape[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rows_MD, weight_EFD, end_E, transpose = inputs
    ctx.transpose = transpose
    ctx.save_for_backward(rows_MD, weight_EFD, end_E)


def _backward(ctx: Any, gradient_MF: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    rows_MD, weight_EFD, end_E = ctx.saved_tensors
    gradient_MF = gradient_MF.contiguous()
    rows = _loop(gradient_MF, weight_EFD, end_E, not ctx.transpose) if ctx.needs_input_grad[0] else None
    weight = None
    if ctx.needs_input_grad[1]:
        weight = _outer(rows_MD, gradient_MF, end_E) if ctx.transpose else _outer(gradient_MF, rows_MD, end_E)
    return rows, weight, None, None


_loop.register_autograd(_backward, setup_context=_setup)


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, weight_EFD: Tensor, end_E: Tensor) -> Tensor:
        ctx.save_for_backward(rows_MD, weight_EFD, end_E)
        return _multiplied(rows_MD, weight_EFD, end_E, False)

    @staticmethod
    def backward(ctx: Any, gradient_MF: Tensor) -> tuple[Tensor, Tensor, None]:
        rows_MD, weight_EFD, end_E = ctx.saved_tensors
        return _multiplied(gradient_MF, weight_EFD, end_E, True), _products(gradient_MF, rows_MD, end_E), None
