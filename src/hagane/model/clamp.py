"""Adaptive entropy clamping of a router: entropies are kept in bands, with a pull that grows while they are outside.

Of the routing distributions p_t of a layer's tokens over E outcomes, and the shares f of their choices: the marginal entropy h_m = H(m) / log E,
m = (mean_t p_t + f) / 2, says how evenly outcomes are used, and falls where a router collapses; the conditional entropy h_c = mean_t H(p_t) / log E
says how decided tokens are. Wanted are h_m >= marginal_low and conditional_low <= h_c <= conditional_high. Choices are half of m because
only the order of probabilities decides them: a router may spread its probability evenly and still choose the same experts for every token
(docs/notebook.md, "Entropy clamping").

Per bound there is a multiplier a, moved once per optimizer step by dual ascent: log a += rate · violation, within limits, the violation negative
inside the band. It is judged by a running mean of entropies of whole batches over all processes, not of micro-steps. While that mean is outside, the loss of a
bound is a · violation of the batch, which is negative for a batch that is inside; while it is inside, exactly nothing. So that it is linear in the batch, and
no split changes the result, the marginal entropy is replaced by its tangent at the m of the previous step: -Σ_e p_e log m_e, whose gradient is that
of H where m is the mean of p alone, and goes past the choices to the probabilities as that of the Switch loss does. No published
method of this name was found; the form is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hagane.model.config import EntropyClamp

SMOOTHING = 0.9
"""Of the running means: about ten steps, as many as dual ascent takes to change a multiplier noticeably."""

TINY = 1e-20
BOUNDS = ("marginal_low", "conditional_low", "conditional_high")


def token_entropy(share_NE: Tensor) -> Tensor:
    """H of every row in nats (N,), with a gradient that stays finite where a share is zero."""
    return -(share_NE * share_NE.clamp(min=TINY).log()).sum(-1)


class Clamp(nn.Module):
    """State of one router's clamp; all of it is part of a checkpoint. `*_B` are the three bounds, in the order of `BOUNDS`."""

    marginal_E: Tensor
    entropy_2: Tensor
    log_multiplier_B: Tensor

    def __init__(self, config: EntropyClamp, num_outcomes: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        self.log_outcomes = math.log(num_outcomes)
        self.register_buffer("marginal_E", torch.empty(num_outcomes, device=device))  # of the previous step
        self.register_buffer("entropy_2", torch.empty(2, device=device))  # running means of h_m and h_c
        self.register_buffer("log_multiplier_B", torch.empty(len(BOUNDS), device=device))
        self.reset()

    def reset(self) -> None:
        """As before the first step: inside the bands."""
        self.marginal_E.fill_(1.0 / self.marginal_E.shape[0])
        self.entropy_2[0] = 1.0
        self.entropy_2[1] = (self.config.conditional_low + self.config.conditional_high) / 2
        self.log_multiplier_B.fill_(math.log(self.config.start))

    def violations(self) -> Tensor:
        """How far outside its band each bound is; negative inside."""
        marginal, conditional = self.entropy_2
        return torch.stack([self.config.marginal_low - marginal, self.config.conditional_low - conditional, conditional - self.config.conditional_high])

    def loss_sum(self, probability_E: Tensor, entropy_sum: Tensor, num_tokens: Tensor) -> Tensor:
        """The loss times the number of tokens, from sums over tokens: of p (E,) and of H(p_t) in nats. Zero, and its gradient too, while the running means are
        inside the bands."""
        marginal_sum = -(probability_E * self.marginal_E.clamp(min=TINY).log()).sum() / self.log_outcomes
        conditional_sum = entropy_sum / self.log_outcomes
        config = self.config
        outside = torch.stack([
            config.marginal_low * num_tokens - marginal_sum, config.conditional_low * num_tokens - conditional_sum,
            conditional_sum - config.conditional_high * num_tokens,
        ])  # fmt: skip
        multiplier_B = torch.where(self.violations() > 0, self.log_multiplier_B.exp(), 0.0)
        return (multiplier_B * outside).sum()

    @torch.no_grad()
    def step(self, probability_E: Tensor, entropy_sum: Tensor, num_tokens: Tensor, load_E: Tensor, reduce: Callable[[Tensor], Tensor]) -> None:
        """Once per optimizer step, with the sums over the batch, which `reduce` adds over all processes; `load_E` are the shares of all choices already."""
        sums = reduce(torch.cat([probability_E.detach(), entropy_sum.detach()[None], num_tokens[None]]).to(self.marginal_E))
        count = sums[-1].clamp(min=1)
        marginal_E = (sums[:-2] / count + load_E) / 2
        entropy_2 = torch.stack([torch.special.entr(marginal_E).sum(), sums[-2] / count]) / self.log_outcomes
        seen = sums[-1] > 0
        self.marginal_E.copy_(torch.where(seen, marginal_E, self.marginal_E))
        self.entropy_2.copy_(torch.where(seen, torch.lerp(entropy_2, self.entropy_2, SMOOTHING), self.entropy_2))
        moved_B = self.log_multiplier_B + self.config.rate * self.violations()
        moved_B = moved_B.clamp(math.log(self.config.lowest), math.log(self.config.highest))
        self.log_multiplier_B.copy_(torch.where(seen, moved_B, self.log_multiplier_B))
