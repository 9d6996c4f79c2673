"""From logits to the next token: greedy, or drawn with a temperature and a nucleus (Holtzman et al. 2019).

Every draw is a pure function of (seed, prompt, number of the token): there is no state to keep, and neither the batch
size nor the neighbours of a row change what it draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy; `top_p` keeps the smallest set of tokens with that much probability."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature {self.temperature} is negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is not in (0, 1]")

    def choose(self, logits_BV: Tensor, prompt_B: NDArray[np.int64], step_B: NDArray[np.int64]) -> Tensor:
        """Next token (B,) int64 of every row. `prompt_B` and `step_B` say which draw of which prompt a row is at."""
        if self.temperature == 0:
            return logits_BV.argmax(-1)
        draw_B = torch.from_numpy(uniform(self.seed, prompt_B, step_B)).to(logits_BV.device)
        # float64 where the device has it: a float32 running sum over a large vocabulary loses its small terms
        probability_BV = (logits_BV / self.temperature).softmax(-1).double()
        if self.top_p == 1:
            return _invert(probability_BV, draw_B)
        sorted_BV, token_BV = probability_BV.sort(dim=-1, descending=True, stable=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV
        kept_BV = torch.where(before_BV < self.top_p, sorted_BV, 0.0)
        chosen_B: Tensor = token_BV.gather(1, _invert(kept_BV, draw_B)[:, None])[:, 0]
        return chosen_B


def _invert(weight_BV: Tensor, draw_B: Tensor) -> Tensor:
    """The first index at which the running sum of the weights passes draw x total; it always has a weight."""
    total_BV = weight_BV.cumsum(-1)
    whole_B = total_BV[:, -1]
    # rounding must not put the draw on the whole itself, which no sum passes
    threshold_B = torch.minimum(draw_B * whole_B, torch.nextafter(whole_B, torch.zeros_like(whole_B)))
    return torch.searchsorted(total_BV, threshold_B[:, None], right=True)[:, 0]


def uniform(seed: int, prompt_B: NDArray[np.int64], step_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers in [0, 1), one per (prompt, step): SplitMix64 (Steele et al. 2014) over the three integers."""
    state = np.full(prompt_B.shape, seed & 0xFFFF_FFFF_FFFF_FFFF, dtype=np.uint64)
    for part in (prompt_B, step_B):
        state = _mix(state + part.astype(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E37_79B9_7F4A_7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return state ^ (state >> np.uint64(31))
