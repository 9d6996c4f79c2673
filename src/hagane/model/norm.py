"""RMSNorm (Zhang and Sennrich 2019), with a gate too, and LayerNorm (Ba et al. 2016), computed in float32 whatever the hidden states are in.

`fused`: by the kernel of `kernels.elementwise`, where `Decoder.compile_parts` (training) or `fuse` (decoding) found that it serves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.kernels.elementwise import add_rms_norm, rms_norm
from hagane.model.linear import Linear


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + epsilon) · weight over the last dimension. The weight stays float32 in the working copy."""

    def __init__(self, size: int, epsilon: float, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.fused = False
        self.weight = nn.Parameter(torch.empty(size, device=device))

    def after_adding(self, hidden: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of both, and its norm."""
        if self.fused:
            total, normed = add_rms_norm(hidden, added, self.weight, self.epsilon)
            return total, normed
        total = hidden + added
        return total, self(total)

    def forward(self, hidden: Tensor) -> Tensor:
        if self.fused:
            normed: Tensor = rms_norm(hidden, self.weight, self.epsilon)
            return normed
        wide = hidden.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return (wide * self.weight.float()).to(hidden.dtype)


class GatedRMSNorm(nn.Module):
    """y · sigmoid(up(silu(down(y)))) of y = RMSNorm(x), with a bottleneck of `rank` (A.X K2, SK Telecom 2026; transformers' `AXK2GatedRMSNorm`)."""

    def __init__(self, size: int, epsilon: float, rank: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.norm = RMSNorm(size, epsilon, device)
        self.down = Linear(size, rank, device)
        self.up = Linear(rank, size, device)

    def after_adding(self, hidden: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of both, and its gated norm."""
        total, normed = self.norm.after_adding(hidden, added)
        return total, self._gated(normed)

    def forward(self, hidden: Tensor) -> Tensor:
        return self._gated(self.norm(hidden))

    def _gated(self, normed: Tensor) -> Tensor:
        return (normed * torch.sigmoid(self.up(F.silu(self.down(normed))).float())).to(normed.dtype)


def layer_norm_of(size: int, epsilon: float, rank: int | None, device: torch.device | str | None = None) -> RMSNorm | GatedRMSNorm:
    """The norm before a mixer or feed-forward: with a gate where it has a rank."""
    return RMSNorm(size, epsilon, device) if rank is None else GatedRMSNorm(size, epsilon, rank, device)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) · weight + bias over the last dimension. Both stay float32 in the working copy."""

    def __init__(self, size: int, epsilon: float, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size, device=device))
        self.bias = nn.Parameter(torch.empty(size, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden.float(), self.weight.shape, self.weight.float(), self.bias.float(), self.epsilon).to(hidden.dtype)
