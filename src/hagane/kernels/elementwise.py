"""What stands between the matrix products of a block, on a CPU: functions with their gradients, each one pass over memory.

RMSNorm, alone or of a residual sum; the heads of attention out of one matrix, with their norms and rotation; SwiGLU; the loss with its gradient.
Each does what its written-out form in `model` does, without rounding in between. A compiler makes such passes of those forms in half a minute
of tracing and of g++ for every new shape; these are there from the beginning (docs/notebook.md, "Between the matrix products").
"""

from __future__ import annotations

from ctypes import c_float, c_int, c_long, c_void_p
from typing import Any

import torch
from torch import Tensor

from hagane.kernels.build import Library, wide

_HEADS = (c_int, c_long, c_int, c_int, c_int, c_int, c_float, *[c_void_p] * 5)
_KERNELS = Library(
    "elementwise",
    {
        "norm_forward": (c_int, c_long, c_int, c_float, *[c_void_p] * 5),
        "norm_backward": (c_int, c_long, c_int, c_float, *[c_void_p] * 6),
        "heads_forward": (*_HEADS, *[c_void_p] * 3),
        "heads_backward": (*_HEADS, *[c_void_p] * 5),
        "swiglu_forward": (c_int, c_long, c_int, *[c_void_p] * 2),
        "swiglu_backward": (c_int, c_long, c_int, *[c_void_p] * 3),
        "nll_gradient": (c_int, c_long, c_int, *[c_void_p] * 4),
    },
)


serves = _KERNELS.serves


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        hidden = hidden.contiguous()
        normed, width = torch.empty_like(hidden), hidden.shape[-1]
        _KERNELS.norm_forward(wide(hidden), hidden.numel() // width, width, epsilon, hidden, None, weight_D, None, normed)
        ctx.save_for_backward(hidden, weight_D)
        ctx.epsilon = epsilon
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return (*_norm_gradients(ctx, gradient, None), None)


class _NormOfSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, added: Tensor, weight_D: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        hidden, added = hidden.contiguous(), added.contiguous()
        total, normed, width = torch.empty_like(hidden), torch.empty_like(hidden), hidden.shape[-1]
        _KERNELS.norm_forward(wide(hidden), hidden.numel() // width, width, epsilon, hidden, added, weight_D, total, normed)
        ctx.save_for_backward(total, weight_D)
        ctx.epsilon = epsilon
        return total, normed

    @staticmethod
    def backward(ctx: Any, of_total: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        of_total, of_weight_D = _norm_gradients(ctx, gradient, of_total)
        return of_total, of_total, of_weight_D, None


def _norm_gradients(ctx: Any, gradient: Tensor, other: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of what is normed, `other` added, and of the weight."""
    hidden, weight_D = ctx.saved_tensors
    gradient, other = gradient.contiguous(), None if other is None else other.contiguous()
    of_hidden, of_weight_D, width = torch.empty_like(hidden), torch.empty_like(weight_D), hidden.shape[-1]
    _KERNELS.norm_backward(wide(hidden), hidden.numel() // width, width, ctx.epsilon, gradient, hidden, other, weight_D, of_hidden, of_weight_D)
    return of_hidden, of_weight_D


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv_BTC: Tensor, cosine_BTR: Tensor, sine_BTR: Tensor, query_weight_H: Tensor | None, key_weight_H: Tensor | None, num_heads: int,
        num_kv_heads: int, epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        qkv_BTC, cosine_BTR, sine_BTR = qkv_BTC.contiguous(), cosine_BTR.contiguous(), sine_BTR.contiguous()
        rows, length, size = qkv_BTC.shape
        head_dim = size // (num_heads + 2 * num_kv_heads)
        query_BTNH = qkv_BTC.new_empty(rows, length, num_heads, head_dim)
        key_BTKH, value_BTKH = (qkv_BTC.new_empty(rows, length, num_kv_heads, head_dim) for _ in range(2))
        ctx.shape = wide(qkv_BTC), rows * length, num_heads, num_kv_heads, head_dim, cosine_BTR.shape[-1], epsilon
        inputs = qkv_BTC, cosine_BTR, sine_BTR, query_weight_H, key_weight_H
        _KERNELS.heads_forward(*ctx.shape, *inputs, query_BTNH, key_BTKH, value_BTKH)
        ctx.save_for_backward(*inputs)
        return query_BTNH, key_BTKH, value_BTKH

    @staticmethod
    def backward(ctx: Any, query_BTNH: Tensor, key_BTKH: Tensor, value_BTKH: Tensor) -> tuple[Tensor | None, ...]:
        qkv_BTC, _, _, query_weight_H, key_weight_H = ctx.saved_tensors
        of_qkv_BTC, of_weights_2H = torch.empty_like(qkv_BTC), torch.empty(2, query_BTNH.shape[-1])
        gradients = query_BTNH.contiguous(), key_BTKH.contiguous(), value_BTKH.contiguous()
        _KERNELS.heads_backward(*ctx.shape, *ctx.saved_tensors, *gradients, of_qkv_BTC, of_weights_2H)
        of_query_H, of_key_H = (None if weight is None else own for weight, own in zip((query_weight_H, key_weight_H), of_weights_2H, strict=True))
        return of_qkv_BTC, None, None, of_query_H, of_key_H, None, None, None


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        hidden = gate_up.shape[-1] // 2
        result = gate_up.new_empty(*gate_up.shape[:-1], hidden)
        _KERNELS.swiglu_forward(wide(gate_up), gate_up.numel() // (2 * hidden), hidden, gate_up, result)
        ctx.save_for_backward(gate_up)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        hidden, result = gate_up.shape[-1] // 2, torch.empty_like(gate_up)
        _KERNELS.swiglu_backward(wide(gate_up), gate_up.numel() // (2 * hidden), hidden, gradient.contiguous(), gate_up, result)
        return result


def rms_norm(hidden: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x²) + epsilon) · weight over the last dimension; the weight is float32."""
    result: Tensor = _Norm.apply(hidden, weight_D, epsilon)  # type: ignore[no-untyped-call]
    return result


def add_rms_norm(hidden: Tensor, added: Tensor, weight_D: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The sum of both, rounded to their precision, and `rms_norm` of it."""
    result: tuple[Tensor, Tensor] = _NormOfSum.apply(hidden, added, weight_D, epsilon)  # type: ignore[no-untyped-call]
    return result


def rotate_heads(
    qkv_BTC: Tensor, cosine_BTR: Tensor, sine_BTR: Tensor, query_weight_H: Tensor | None, key_weight_H: Tensor | None, num_heads: int, num_kv_heads: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Queries (B, T, N, H), keys and values (B, T, K, H) from rows of N + 2 K heads: queries and keys normed where they have weights, and turned."""
    weights = query_weight_H, key_weight_H
    result: tuple[Tensor, Tensor, Tensor] = _Heads.apply(qkv_BTC, cosine_BTR, sine_BTR, *weights, num_heads, num_kv_heads, epsilon)  # type: ignore[no-untyped-call]
    return result


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up for (..., 2F), gate first."""
    result: Tensor = _SwiGlu.apply(gate_up)  # type: ignore[no-untyped-call]
    return result


def nll_gradient(logit_NV: Tensor, target_N: Tensor, weight_N: Tensor) -> tuple[Tensor, Tensor]:
    """Σ weight · nll (float32 scalar) and its gradient for the logits, which takes their place in memory."""
    loss_N = torch.empty(logit_NV.shape[0])
    _KERNELS.nll_gradient(wide(logit_NV), *logit_NV.shape, logit_NV, target_N.contiguous(), weight_N.contiguous(), loss_N)
    return loss_N.sum(), logit_NV
