"""Choose experts per token: float32 softmax or sigmoid, groups, top k, and what keeps the load even.

Balancing by loss: the Switch loss (Fedus et al. 2021, eq. 4) per layer, E · Σ_e f_e · P_e with f the shares of all
choices (they sum to 1, as in Megatron; transformers lets them sum to top_k, and pools the layers before the product).
f comes from the *previous* step over all processes, detached: the loss is then linear in the batch, so that no split
into micro-steps or processes changes the result. Balancing by bias: scores decide the weights, scores + bias the choice, and
the bias moves against the load once per optimizer step (Wang et al. 2024, "Auxiliary-loss-free load balancing").
Sigmoid scores count in the losses and statistics as shares of their sum (DeepSeek-V3, 2024, eq. 18).
The z-loss is that of ST-MoE (Zoph et al. 2022, eq. 5). Statistics are returned, never stored: recomputation would count twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.model.config import ExpertsConfig
from hagane.model.indexer import IndexStats

TINY = 1e-20
"""Added to sums of sigmoids, which may all be zero. As in the published implementations."""


class Choice(NamedTuple):
    """The experts of every token (N, K) int64 and their weights (N, K) float32."""

    expert_NK: Tensor
    weight_NK: Tensor


class RouterStats(NamedTuple):
    """Sums over the real tokens of a batch; add them over micro-steps and processes. float32.

    `probability_E` and `z_sum` carry gradient, for the losses; the others are detached.
    """

    count_E: Tensor  # choices per expert: sums to num_tokens · top_k
    probability_E: Tensor  # softmax probability per expert, or share of the sigmoid scores
    z_sum: Tensor  # logsumexp(logits)²
    entropy_sum: Tensor  # entropy of these probabilities, nats
    num_tokens: Tensor


@dataclass
class Stats:
    """Router statistics per layer, None where the feed-forward is dense; those of indexers, None where there is none or it does not learn."""

    layers: list[RouterStats | None]
    indexers: list[IndexStats | None] = field(default_factory=list)

    def __add__(self, other: Stats) -> Stats:
        pairs, index_pairs = zip(self.layers, other.layers, strict=True), zip(self.indexers, other.indexers, strict=True)
        return Stats(
            [None if a is None or b is None else RouterStats(*(x + y for x, y in zip(a, b, strict=True))) for a, b in pairs],
            [None if a is None or b is None else IndexStats(*(x + y for x, y in zip(a, b, strict=True))) for a, b in index_pairs],
        )

    def detached(self) -> Stats:
        return Stats(
            [None if layer is None else RouterStats(*(x.detach() for x in layer)) for layer in self.layers],
            [None if layer is None else IndexStats(*(x.detach() for x in layer)) for layer in self.indexers],
        )


def no_reduce(count: Tensor) -> Tensor:
    """One process: what it counted is the whole."""
    return count


class Router(nn.Module):
    """Scores and choices. Weight (E, D) float32; state `load_E` (shares of the previous step) and `bias_E`, moved by `step` only."""

    load_E: Tensor
    bias_E: Tensor

    def __init__(self, width: int, config: ExpertsConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, width, device=device))
        self.register_buffer("load_E", torch.empty(config.num_experts, device=device))
        self.register_buffer("bias_E", torch.empty(config.num_experts, device=device))
        self.reset()
        self.reduce: Callable[[Tensor], Tensor] = no_reduce  # a layout sums counts over processes here

    def forward(self, hidden_ND: Tensor, real_N: Tensor) -> tuple[Choice, RouterStats]:
        """Choices of every token and statistics of the real ones (`real_N` 1, padding 0)."""
        # float32: at bf16 two experts tie often enough to make the choice depend on the kernel
        logit_NE = F.linear(hidden_ND.float(), self.weight.float())
        logsum_N = logit_NE.logsumexp(-1)
        if self.config.score == "softmax":
            score_NE = share_NE = (logit_NE - logsum_N[:, None]).exp()
            surprise_NE = torch.where(share_NE > 0, share_NE * (logsum_N[:, None] - logit_NE), 0.0).detach()
        else:
            score_NE = logit_NE.sigmoid()
            share_NE = score_NE / (score_NE.sum(-1, keepdim=True) + TINY)
            surprise_NE = torch.special.entr(share_NE.detach())
        expert_NK = self._rank(score_NE.detach() + self.bias_E).topk(self.config.top_k, dim=-1).indices
        weight_NK = self._weigh(score_NE.gather(1, expert_NK))
        chosen_NE = torch.zeros_like(score_NE).scatter(1, expert_NK, 1.0)
        stats = RouterStats(
            count_E=(chosen_NE * real_N[:, None]).sum(0),
            probability_E=(share_NE * real_N[:, None]).sum(0),
            z_sum=(logsum_N.square() * real_N).sum(),
            entropy_sum=(surprise_NE.sum(-1) * real_N).sum(),
            num_tokens=real_N.sum(),
        )
        return Choice(expert_NK, weight_NK), stats

    def _rank(self, rank_NE: Tensor) -> Tensor:
        """Selection scores, those outside of the best groups minus infinity. A group is as good as its two best experts together."""
        groups = self.config.num_groups
        if groups == 1:
            return rank_NE
        rank_NGE = rank_NE.view(rank_NE.shape[0], groups, -1)
        best_NG = rank_NGE.topk(2, dim=-1).values.sum(-1).topk(self.config.top_groups, dim=-1).indices
        open_NG = torch.zeros(rank_NGE.shape[:2], dtype=torch.bool, device=rank_NE.device).scatter(1, best_NG, True)
        return torch.where(open_NG[..., None], rank_NGE, -torch.inf).flatten(1)

    def _weigh(self, weight_NK: Tensor) -> Tensor:
        """The chosen scores as the weights their experts' outputs get."""
        if self.config.normalise:
            total_N1 = weight_NK.sum(-1, keepdim=True)
            weight_NK = weight_NK / (total_N1 if self.config.score == "softmax" else total_N1 + TINY)
        return weight_NK if self.config.scaling == 1.0 else weight_NK * self.config.scaling

    def auxiliary_loss_sum(self, stats: RouterStats) -> Tensor:
        """Balancing and z losses times the number of tokens, with their coefficients."""
        balance = self.config.num_experts * (self.load_E * stats.probability_E).sum()
        return self.config.aux_coefficient * balance + self.config.z_coefficient * stats.z_sum

    def reset(self) -> None:
        """As before the first step: even load (the balancing loss then has no gradient), no bias."""
        self.load_E.fill_(1.0 / self.config.num_experts)
        self.bias_E.zero_()

    @torch.no_grad()
    def step(self, stats: RouterStats) -> None:
        """Once per optimizer step, with the sums over the whole batch: remember the load, move the bias against it."""
        count_E = self.reduce(stats.count_E.detach().to(self.load_E))
        total = count_E.sum()
        self.load_E.copy_(torch.where(total > 0, count_E / total.clamp(min=1), self.load_E))
        if self.config.balance == "bias":
            self.bias_E += self.config.bias_rate * (count_E.mean() - count_E).sign()
