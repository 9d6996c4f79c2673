"""SwiGLU feed-forward (Shazeer 2020): down(silu(gate(x)) · up(x)). Gate and up are one matrix, gate first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.kernels import elementwise
from hagane.model.config import DenseConfig
from hagane.model.linear import Linear


def swiglu(gate_up: Tensor, fused: bool = False) -> Tensor:
    """silu(gate) · up for (..., 2F), gate first; in float32 inside, so that eager and compiled bf16 round alike. `fused`: by the kernel."""
    if fused:
        result: Tensor = elementwise.swiglu(gate_up)
        return result
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (F.silu(gate) * up).to(gate_up.dtype)


class Dense(nn.Module):
    """The feed-forward of kind `dense`."""

    def __init__(self, width: int, config: DenseConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.gate_up = Linear(width, 2 * config.hidden, device)
        self.down = Linear(config.hidden, width, device)
        self.fused = False  # see `norm`

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        result: Tensor = self.down(swiglu(self.gate_up(hidden_BTD), self.fused))
        return result
