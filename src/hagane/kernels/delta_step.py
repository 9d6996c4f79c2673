"""Decoding with Gated DeltaNet on a CPU: what stands between its two matrix products, for a few tokens of every row, in one call.

Written out (`model.delta` with `kernels.delta_rule.recurrent`) it is some fifty operations on a few numbers each, which take most of the time of a token
(docs/notebook.md, "Decoding with kernels").
"""

from __future__ import annotations

from ctypes import c_float, c_int, c_long, c_void_p

import torch
from torch import Tensor

from hagane.kernels.build import Library, wide

_KERNELS = Library("delta_step", {"delta_steps": (c_int, *[c_long] * 3, *[c_int] * 5, *[c_float] * 2, *[c_void_p] * 10)})

serves = _KERNELS.serves


def delta_steps(
    inputs_BXC: Tensor, conv_CX: Tensor, rates_BTR: Tensor, A_log_V: Tensor, dt_bias_V: Tensor, real_BT: Tensor, weight_W: Tensor, z_BTZ: Tensor,
    state_BVHW: Tensor, length_epsilon: float, norm_epsilon: float,
) -> Tensor:  # fmt: skip
    """What is read, normed and gated: (B, T, V · W) of the precision of z. The state (float32, contiguous) is moved on in place.

    `inputs_BXC` (float32): inputs of the convolution, taps - 1 before the first token; `rates_BTR`: the V logits of beta, then the V inputs of the decay;
    `z_BTZ` may be a part of wider rows. A token that is not real leaves the state alone.
    """
    rows, steps, width = z_BTZ.shape
    _, value_heads, key_dim, value_dim = state_BVHW.shape
    key_heads = (conv_CX.shape[0] - width) // (2 * key_dim)
    out_BTZ = torch.empty(rows, steps, width, dtype=z_BTZ.dtype)
    if z_BTZ.stride(-1) != 1 or (rows > 1 and z_BTZ.stride(0) != steps * z_BTZ.stride(1)):
        z_BTZ = z_BTZ.contiguous()
    _KERNELS.delta_steps(
        wide(z_BTZ), rows, steps, z_BTZ.stride(1), key_heads, value_heads, key_dim, value_dim, conv_CX.shape[1], length_epsilon, norm_epsilon,
        inputs_BXC.contiguous(), conv_CX.float().contiguous(), rates_BTR.contiguous(), A_log_V.float(), dt_bias_V.float(), real_BT.float(), weight_W.float(),
        z_BTZ, state_BVHW, out_BTZ,
    )  # fmt: skip
    return out_BTZ
