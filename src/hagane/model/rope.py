"""Rotary positions (Su et al. 2021), in the half-rotation layout of Hugging Face: dimension i turns with dimension i + H/2.

Hosts that pair neighbours (2i, 2i + 1) hold the same function with their rows in another order: `hosts` reorders them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hagane.model.config import RopeConfig


def frequencies(rotary_dim: int, config: RopeConfig, device: torch.device | None = None) -> Tensor:
    """Radians per position of every pair of dimensions, float32 (rotary_dim / 2): theta^(-2i / rotary_dim), interpolated where asked for."""
    exponent = torch.arange(0, rotary_dim, 2, dtype=torch.int64, device=device).float() / rotary_dim
    kept_R = 1.0 / config.theta**exponent
    if config.yarn is None:
        return kept_R if config.linear is None else kept_R / config.linear
    yarn = config.yarn

    def pair_turning(num_rotations: float) -> float:
        """The pair, as a real number, that makes so many rotations over the original context."""
        return rotary_dim * math.log(yarn.original_context / (num_rotations * 2 * math.pi)) / (2 * math.log(config.theta))

    low, high = max(math.floor(pair_turning(yarn.beta_fast)), 0), min(math.ceil(pair_turning(yarn.beta_slow)), rotary_dim - 1)
    ramp_R = (torch.arange(rotary_dim // 2, device=device) - low).float() / (high - low if high > low else 1e-3)
    return torch.lerp(kept_R, kept_R / yarn.factor, ramp_R.clamp(0, 1))


def rotation(position_BT: Tensor, rotary_dim: int, config: RopeConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, float32, (B, T, rotary_dim / 2). Computed once per micro-step, outside the blocks."""
    angle = position_BT.float()[..., None] * frequencies(rotary_dim, config, position_BT.device)
    if config.yarn is None:
        return angle.cos(), angle.sin()
    return angle.cos() * config.yarn.rotation_factor, angle.sin() * config.yarn.rotation_factor


def rotate(heads_BTNH: Tensor, cosine_BTR: Tensor, sine_BTR: Tensor) -> Tensor:
    """Turn queries or keys (B, T, heads, head_dim) by their positions, in float32. Dimensions from 2R on stay as they are."""
    rotary_dim = 2 * cosine_BTR.shape[-1]
    if rotary_dim < heads_BTNH.shape[-1]:
        turned = rotate(heads_BTNH[..., :rotary_dim], cosine_BTR, sine_BTR)
        return torch.cat((turned, heads_BTNH[..., rotary_dim:]), dim=-1)
    first, second = heads_BTNH.float().chunk(2, dim=-1)
    cosine, sine = cosine_BTR[:, :, None], sine_BTR[:, :, None]
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(heads_BTNH.dtype)
