"""What an optimizer does to the numbers of a parameter, on a CPU: AdamW, Muon's momentum and descent, sums of squares, each one pass over memory.

Gradients may be of either precision and are read as the backward pass left them; the working copy is rounded from the master in the same pass. Written
out, with a copy of every gradient first, it is a dozen passes (docs/notebook.md, "One pass of the optimizer").
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from ctypes import c_float, c_int, c_long, c_void_p

import torch
from torch import Tensor

from hagane.kernels.build import Library, wide

_KERNELS = Library(
    "updates",
    {
        "squares": (c_int, c_long, *[c_void_p] * 2),
        "adamw": (c_int, c_long, *[c_float] * 8, *[c_void_p] * 5),
        "momentum": (c_int, c_long, *[c_float] * 2, *[c_void_p] * 3),
        "descend": (c_long, *[c_float] * 2, *[c_void_p] * 3),
    },
)

serves = _KERNELS.serves


def norm(tensors: Iterable[Tensor]) -> float:
    """The root of the sum of all squares."""
    sums = []
    for tensor in tensors:
        sums.append(torch.empty((), dtype=torch.float64))
        _KERNELS.squares(wide(tensor), tensor.numel(), tensor, sums[-1])
    return math.sqrt(sum(value.item() for value in sums))


def adamw(
    master: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, working: Tensor | None, *, step: int, scale: float, learning_rate: float,
    weight_decay: float, betas: tuple[float, float], epsilon: float,
) -> None:  # fmt: skip
    """Update number `step` (from 1) of a float32 master and its moments (Loshchilov and Hutter 2019, algorithm 2) by `scale` times the gradient.

    `working`, bfloat16, is rounded from the master; None where the master is what computes.
    """
    corrections = 1 - betas[0] ** step, math.sqrt(1 - betas[1] ** step)
    settings = learning_rate, weight_decay, *betas, epsilon, *corrections, scale
    _KERNELS.adamw(wide(gradient), master.numel(), *settings, gradient, master, mean, square, working)


def momentum(gradient: Tensor, mean: Tensor, ahead: Tensor, *, factor: float, scale: float) -> None:
    """Move the mean towards `scale` times the gradient by 1 - `factor`, and write the Nesterov look ahead into `ahead`, bfloat16."""
    _KERNELS.momentum(wide(gradient), mean.numel(), factor, scale, gradient, mean, ahead)


def descend(master: Tensor, update: Tensor, working: Tensor | None, *, shrink: float, step: float) -> None:
    """`shrink` times the master, less `step` times the update (bfloat16); `working` as for `adamw`."""
    _KERNELS.descend(master.numel(), shrink, step, update, master, working)
