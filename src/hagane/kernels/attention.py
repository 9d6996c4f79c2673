"""Causal attention over packed documents on a CPU, as one torch operator with its backward pass.

FlashAttention's recomputation (Dao et al. 2022) with each query's keys cut down to its own document or window: rows packed from
short documents cost what the documents cost, not the square of the row. A choice of keys per query (`attend_chosen`) is obeyed, and takes no
less time than reading all. Scores are float32; products of bfloat16 inputs are summed in float32.

The operator with a choice is one of its own: compilers keep graphs by the names and arguments of operators, not by their backward passes.
"""

from __future__ import annotations

from ctypes import c_int, c_long, c_void_p
from typing import Any

import torch
from torch import Tensor

from hagane.kernels.build import Library, wide

_INPUTS = (*[c_int] * 6, c_void_p, c_void_p, c_long, c_void_p, c_long, c_void_p, c_void_p)
_KERNELS = Library("attention", {"attend_forward": (*_INPUTS, *[c_void_p] * 2), "attend_backward": (*_INPUTS, *[c_void_p] * 6)})


def serves(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether the kernel takes such tensors here; asked first, it compiles the kernel (seconds, once per machine)."""
    return head_dim % 8 == 0 and _KERNELS.serves(device, dtype)


def _keys(tensor_BTKH: Tensor) -> Tensor:
    """Keys or values as the kernel reads them: heads side by side, tokens any fixed stride apart."""
    rows, length, _, head_dim = tensor_BTKH.shape
    row, token, head, element = tensor_BTKH.stride()
    return tensor_BTKH if (element, head, row) == (1, head_dim, length * token) or rows * length == 0 else tensor_BTKH.contiguous()


def _arguments(query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor, chosen_BTS: Tensor | None) -> tuple[Any, ...]:
    rows, length, num_heads, head_dim = query_BTNH.shape
    return (
        wide(query_BTNH), rows, length, num_heads, key_BTKH.shape[2], head_dim,
        query_BTNH.data_ptr(), key_BTKH.data_ptr(), key_BTKH.stride(1), value_BTKH.data_ptr(), value_BTKH.stride(1), first_BT.data_ptr(),
        None if chosen_BTS is None else chosen_BTS.data_ptr(),
    )  # fmt: skip


def _forward(query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor, chosen_BTS: Tensor | None) -> tuple[Tensor, Tensor]:
    query, key, value, first = query_BTNH.contiguous(), _keys(key_BTKH), _keys(value_BTKH), first_BT.contiguous()
    chosen = None if chosen_BTS is None else chosen_BTS.contiguous()
    mixed = torch.empty_like(query)
    log_sum = torch.empty(query.shape[:3])
    _KERNELS.attend_forward(*_arguments(query, key, value, first, chosen), mixed.data_ptr(), log_sum.data_ptr())
    return mixed, log_sum


def _gradients(
    gradient_BTNH: Tensor, query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor, chosen_BTS: Tensor | None, mixed_BTNH: Tensor,
    log_sum_BTN: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    query, key, value, first = query_BTNH.contiguous(), _keys(key_BTKH), _keys(value_BTKH), first_BT.contiguous()
    chosen = None if chosen_BTS is None else chosen_BTS.contiguous()
    gradient, mixed, log_sum = gradient_BTNH.contiguous(), mixed_BTNH.contiguous(), log_sum_BTN.contiguous()
    gradients = torch.empty_like(query), query.new_empty(key.shape), query.new_empty(value.shape)
    _KERNELS.attend_backward(
        *_arguments(query, key, value, first, chosen), mixed.data_ptr(), log_sum.data_ptr(), gradient.data_ptr(), *(one.data_ptr() for one in gradients)
    )
    return gradients


@torch.library.custom_op("hagane::attend_packed", mutates_args=())
def attend_packed(query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q·k / sqrt(H)) · v over the keys first[b, t] to t of row b; N heads share K key-value heads.

    `first_BT` (int32) never falls within a row and is at most t. Returns (B, T, N, H) and the float32 log of the sum of exponentials (B, T, N).
    """
    return _forward(query_BTNH, key_BTKH, value_BTKH, first_BT, None)


@attend_packed.register_fake
def _(query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor) -> tuple[Tensor, Tensor]:
    return query_BTNH.new_empty(query_BTNH.shape), query_BTNH.new_empty(query_BTNH.shape[:3], dtype=torch.float32)


@torch.library.custom_op("hagane::attend_packed_backward", mutates_args=())
def attend_packed_backward(
    gradient_BTNH: Tensor, query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor, mixed_BTNH: Tensor, log_sum_BTN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    return _gradients(gradient_BTNH, query_BTNH, key_BTKH, value_BTKH, first_BT, None, mixed_BTNH, log_sum_BTN)


@attend_packed_backward.register_fake
def _(
    gradient_BTNH: Tensor, query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor, mixed_BTNH: Tensor, log_sum_BTN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return query_BTNH.new_empty(query_BTNH.shape), key_BTKH.new_empty(key_BTKH.shape), value_BTKH.new_empty(value_BTKH.shape)


def _set_up(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor) -> Tensor:
        mixed_BTNH, log_sum_BTN = _forward(query_BTNH, key_BTKH, value_BTKH, first_BT, None)
        ctx.save_for_backward(query_BTNH, key_BTKH, value_BTKH, first_BT, mixed_BTNH, log_sum_BTN)
        return mixed_BTNH

    @staticmethod
    def backward(ctx: Any, gradient_BTNH: Tensor) -> tuple[Tensor | None, ...]:
        query_BTNH, key_BTKH, value_BTKH, first_BT, *rest = ctx.saved_tensors
        return (*_gradients(gradient_BTNH, query_BTNH, key_BTKH, value_BTKH, first_BT, None, *rest), None)


def attend_eagerly(query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor) -> Tensor:
    """The first result of `attend_packed` without what it takes to be an operator that can be compiled."""
    result: Tensor = _Attend.apply(query_BTNH, key_BTKH, value_BTKH, first_BT)  # type: ignore[no-untyped-call]
    return result


def _backward(ctx: Any, gradient_BTNH: Tensor | None, gradient_of_log_sum: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient_BTNH is None:
        return None, None, None, None
    return (*attend_packed_backward(gradient_BTNH, *ctx.saved_tensors), None)


attend_packed.register_autograd(_backward, setup_context=_set_up)


@torch.library.custom_op("hagane::attend_chosen", mutates_args=())
def attend_chosen(query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor, chosen_BTS: Tensor) -> tuple[Tensor, Tensor]:
    """`attend_packed` over those of its keys that are chosen (bool), at least one of them for each query."""
    return _forward(query_BTNH, key_BTKH, value_BTKH, first_BT, chosen_BTS)


@attend_chosen.register_fake
def _(query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor, chosen_BTS: Tensor) -> tuple[Tensor, Tensor]:
    return query_BTNH.new_empty(query_BTNH.shape), query_BTNH.new_empty(query_BTNH.shape[:3], dtype=torch.float32)


@torch.library.custom_op("hagane::attend_chosen_backward", mutates_args=())
def attend_chosen_backward(
    gradient_BTNH: Tensor, query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor, chosen_BTS: Tensor, mixed_BTNH: Tensor,
    log_sum_BTN: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of query, key and value."""
    return _gradients(gradient_BTNH, query_BTNH, key_BTKH, value_BTKH, first_BT, chosen_BTS, mixed_BTNH, log_sum_BTN)


@attend_chosen_backward.register_fake
def _(
    gradient_BTNH: Tensor, query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor, first_BT: Tensor, chosen_BTS: Tensor, mixed_BTNH: Tensor,
    log_sum_BTN: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return query_BTNH.new_empty(query_BTNH.shape), key_BTKH.new_empty(key_BTKH.shape), value_BTKH.new_empty(value_BTKH.shape)


def _backward_of_chosen(ctx: Any, gradient_BTNH: Tensor | None, gradient_of_log_sum: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient_BTNH is None:
        return None, None, None, None, None
    return (*attend_chosen_backward(gradient_BTNH, *ctx.saved_tensors), None, None)


attend_chosen.register_autograd(_backward_of_chosen, setup_context=_set_up)
