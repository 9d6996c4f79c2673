"""RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016), computed in float32 whatever the hidden states are in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + epsilon) · weight over the last dimension. The weight stays float32 in the working copy."""

    def __init__(self, size: int, epsilon: float, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return (wide * self.weight.float()).to(hidden.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) · weight + bias over the last dimension. Both stay float32 in the working copy."""

    def __init__(self, size: int, epsilon: float, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size, device=device))
        self.bias = nn.Parameter(torch.empty(size, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden.float(), self.weight.shape, self.weight.float(), self.bias.float(), self.epsilon).to(hidden.dtype)
