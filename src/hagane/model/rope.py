"""Rotary positions (Su et al. 2021), in the half-rotation layout of Hugging Face: dimension i turns with dimension i + H/2."""

from __future__ import annotations

import torch
from torch import Tensor

from hagane.model.config import RopeConfig


def rotation(position_BT: Tensor, rotary_dim: int, config: RopeConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, float32, (B, T, rotary_dim / 2). Computed once per micro-step, outside the blocks."""
    exponent = torch.arange(0, rotary_dim, 2, dtype=torch.int64, device=position_BT.device).float() / rotary_dim
    angle = position_BT.float()[..., None] * (1.0 / config.theta**exponent)
    return angle.cos(), angle.sin()


def rotate(heads_BTNH: Tensor, cosine_BTR: Tensor, sine_BTR: Tensor) -> Tensor:
    """Turn queries or keys (B, T, heads, head_dim) by their positions, in float32. Dimensions from 2R on stay as they are."""
    rotary_dim = 2 * cosine_BTR.shape[-1]
    if rotary_dim < heads_BTNH.shape[-1]:
        turned = rotate(heads_BTNH[..., :rotary_dim], cosine_BTR, sine_BTR)
        return torch.cat((turned, heads_BTNH[..., rotary_dim:]), dim=-1)
    first, second = heads_BTNH.float().chunk(2, dim=-1)
    cosine, sine = cosine_BTR[:, :, None], sine_BTR[:, :, None]
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(heads_BTNH.dtype)
