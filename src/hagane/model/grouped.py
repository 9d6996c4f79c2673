"""Matrix multiplication in groups: consecutive rows go through the matrix of their own expert.

On CUDA in bf16 this is torch's grouped_mm. Elsewhere it is an operator of ours, because torch's cannot be compiled in
float32 on a CPU, wants last dimensions in multiples of 16 bytes, and is no faster there than a loop.

The loop multiplies an expert's rows in pieces of few sizes: oneDNN builds a product for its shape and keeps it, which takes 0.7 MB for each of six products
where the CPU has bf16 instructions, and experts meet new numbers of rows at every step (docs/notebook.md, "Memory of many shapes").
"""

from __future__ import annotations

from collections.abc import Sequence
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


PIECE = 1024
"""Rows of an expert below this are one product; of more, first as many as a power of two times this: a second call costs little beside so large a one."""


def _pieces(end_E: Tensor) -> list[tuple[int, int, int]]:
    """(expert, first row, end) of every product, in order; none for an expert without rows."""
    found, ends = [], end_E.tolist()
    for expert, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        while (left := end - start) > 0:
            taken = left if left < PIECE else PIECE << (left // PIECE).bit_length() - 1
            found.append((expert, start, start + taken))
            start += taken
    return found


def piece_sizes(most: int, step: int) -> list[int]:
    """Rows of all products that experts of up to `most` rows, filled up to a multiple of `step`, are multiplied in."""
    sizes = list(range(step, min(most + 1, PIECE), step))
    return sizes + [PIECE << power for power in range((most // PIECE).bit_length())]


@torch.no_grad()
def build_products(weight_FD: Tensor, sizes: Sequence[int]) -> None:
    """Have the library build what it needs for these numbers of rows, forward and backward, before there is anything else in memory. It keeps them for good:
    between blocks that a step takes and frees they would keep those from growing together again."""
    rows_MD, gradient_MF = (weight_FD.new_zeros(max(sizes, default=0), width) for width in weight_FD.shape[::-1])
    of_weight_FD = torch.zeros_like(weight_FD)
    for size in sizes:
        rows, gradient = rows_MD[:size], gradient_MF[:size]
        torch.mm(rows, weight_FD.t(), out=gradient)
        torch.mm(gradient, weight_FD, out=rows)
        torch.mm(gradient.t(), rows, out=of_weight_FD)
        of_weight_FD.addmm_(gradient.t(), rows)


def _multiplied(rows_MD: Tensor, weight_EFD: Tensor, end_E: Tensor, transpose: bool) -> Tensor:
    result = rows_MD.new_empty(rows_MD.shape[0], weight_EFD.shape[2 if transpose else 1])
    for expert, start, end in _pieces(end_E):
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
    begun = set()
    for expert, start, end in _pieces(end_E):
        left_FM, right = left_MF[start:end].t(), right_MD[start:end]
        if expert in begun:
            result[expert].addmm_(left_FM, right)
        else:
            torch.mm(left_FM, right, out=result[expert])
        begun.add(expert)
    for expert in {*range(len(result))} - begun:
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
