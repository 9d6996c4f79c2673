"""Choose experts per token: float32 softmax or sigmoid, groups, top k, and what keeps the load even.

Balancing by loss: the Switch loss (Fedus et al. 2021, eq. 4) per layer, E · Σ_e f_e · P_e with f the shares of all
choices (they sum to 1, as in Megatron; transformers lets them sum to top_k, and pools the layers before the product).
f comes from the *previous* step over all processes, detached: the loss is then linear in the batch, so that no split
into micro-steps or processes changes the result. Balancing by bias: scores decide the weights, scores + bias the choice, and
the bias moves against the load once per optimizer step (Wang et al. 2024, "Auxiliary-loss-free load balancing").
Sigmoid scores count in the losses and statistics as shares of their sum (DeepSeek-V3, 2024, eq. 18).
The z-loss is that of ST-MoE (Zoph et al. 2022, eq. 5). Statistics are returned, never stored: recomputation would count twice.

Null experts are outputs behind those of the experts. They count in the scores, the sum that normalises weights and the entropies, so
that experts of zeros would give the same result; they are balanced as one outcome, whose share of the choices leaves the experts the
budgeted mean per token. With a loss, f · P is divided by these shares. With a bias, an expert's moves in proportion to what
it lacks of its share of the budget, at most by the rate, and those of null experts stay at zero (after LongCat-Flash, 2025, eq. 2): the sign
alone would hold the median load, and the mean is the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.kernels.routing import route
from hagane.model.clamp import Clamp, token_entropy
from hagane.model.config import ExpertsConfig
from hagane.model.indexer import IndexStats

TINY = 1e-20
"""Added to sums of sigmoids, which may all be zero. As in the published implementations."""


class Choice(NamedTuple):
    """The experts of every token (N, K) int64 and their weights (N, K) float32. `computed_NK`: which are not null; None where all are not."""

    expert_NK: Tensor
    weight_NK: Tensor
    computed_NK: Tensor | None = None


class RouterStats(NamedTuple):
    """Sums over the real tokens of a batch; add them over micro-steps and processes. float32.

    `probability_E` and `z_sum` carry gradient, for the losses, and with clamping `entropy_sum`; the others are detached. What is of null
    experts is None where there are none.
    """

    count_E: Tensor  # choices per expert: sums to num_tokens · top_k, less the choices of null experts
    probability_E: Tensor  # softmax probability per output, or share of the sigmoid scores; null experts last
    z_sum: Tensor  # logsumexp(logits)²
    entropy_sum: Tensor  # entropy of these probabilities, nats
    num_tokens: Tensor
    used_H: Tensor | None = None  # tokens by number of experts used, 0..top_k
    used_N: Tensor | None = None  # experts used by every token, padding too: not a sum, put end to end where statistics are added

    def added(self, other: RouterStats) -> RouterStats:
        """Of both batches."""
        used_H = used_N = None
        if self.used_H is not None and self.used_N is not None:
            assert other.used_H is not None and other.used_N is not None
            used_H, used_N = self.used_H + other.used_H, torch.cat([self.used_N, other.used_N])
        return RouterStats(
            self.count_E + other.count_E, self.probability_E + other.probability_E, self.z_sum + other.z_sum, self.entropy_sum + other.entropy_sum,
            self.num_tokens + other.num_tokens, used_H, used_N,
        )  # fmt: skip

    def detached(self) -> RouterStats:
        return self._replace(probability_E=self.probability_E.detach(), z_sum=self.z_sum.detach(), entropy_sum=self.entropy_sum.detach())


@dataclass
class Stats:
    """Router statistics per layer, None where the feed-forward is dense; those of indexers, None where there is none or it does not learn."""

    layers: list[RouterStats | None]
    indexers: list[IndexStats | None] = field(default_factory=list)

    def __add__(self, other: Stats) -> Stats:
        pairs, index_pairs = zip(self.layers, other.layers, strict=True), zip(self.indexers, other.indexers, strict=True)
        return Stats(
            [None if a is None or b is None else a.added(b) for a, b in pairs],
            [None if a is None or b is None else IndexStats(*(x + y for x, y in zip(a, b, strict=True))) for a, b in index_pairs],
        )

    def detached(self) -> Stats:
        return Stats(
            [None if layer is None else layer.detached() for layer in self.layers],
            [None if layer is None else IndexStats(*(x.detach() for x in layer)) for layer in self.indexers],
        )

    def used(self) -> Tensor | None:
        """Experts used by every token, mean over the layers that have null ones (N,); None where none has."""
        layers = [layer.used_N for layer in self.layers if layer is not None and layer.used_N is not None]
        return torch.stack(layers).mean(0) if layers else None


def no_reduce(count: Tensor) -> Tensor:
    """One process: what it counted is the whole."""
    return count


class Router(nn.Module):
    """Scores and choices. Weight (E, D) float32, null experts last; the state is moved by `step` only.

    It is `load_E` (shares of the choices in the previous step; with null experts one more, of all of them), `bias_E` (of experts that are
    not null) and, with clamping, that of `clamp`.
    """

    load_E: Tensor
    bias_E: Tensor

    def __init__(self, width: int, config: ExpertsConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_outputs, width, device=device))
        self.register_buffer("load_E", torch.empty(config.num_experts + bool(config.null_experts), device=device))
        self.register_buffer("bias_E", torch.empty(config.num_experts, device=device))
        self.clamp = Clamp(config.entropy_clamp, config.num_outputs, device) if config.entropy_clamp is not None else None
        self.reset()
        self.fused = False  # see `norm`
        self.reduce: Callable[[Tensor], Tensor] = no_reduce  # a layout sums counts over processes here

    def forward(self, hidden_ND: Tensor, real_N: Tensor) -> tuple[Choice, RouterStats]:
        """Choices of every token and statistics of the real ones (`real_N` 1, padding 0)."""
        # float32: at bf16 two experts tie often enough to make the choice depend on the kernel
        logit_NE = F.linear(hidden_ND.float(), self.weight.float())
        if self.fused:
            return self._fused(logit_NE, real_N)
        logsum_N = logit_NE.logsumexp(-1)
        if self.config.score == "softmax":
            score_NE = share_NE = (logit_NE - logsum_N[:, None]).exp()
            entropy_N = torch.where(share_NE > 0, share_NE * (logsum_N[:, None] - logit_NE), 0.0).sum(-1)
        else:
            score_NE = logit_NE.sigmoid()
            share_NE = score_NE / (score_NE.sum(-1, keepdim=True) + TINY)
            entropy_N = token_entropy(share_NE) if self.clamp is not None else torch.special.entr(share_NE.detach()).sum(-1)
        num_experts, num_null = self.config.num_experts, self.config.null_experts
        bias_E = F.pad(self.bias_E, (0, num_null)) if num_null else self.bias_E
        expert_NK = self._rank(score_NE.detach() + bias_E).topk(self.config.top_k, dim=-1).indices
        weight_NK = self._weigh(score_NE.gather(1, expert_NK))
        chosen_NE = torch.zeros_like(score_NE).scatter(1, expert_NK, 1.0)[:, :num_experts]
        computed_NK = expert_NK < num_experts if num_null else None
        stats = RouterStats(
            count_E=(chosen_NE * real_N[:, None]).sum(0),
            probability_E=(share_NE * real_N[:, None]).sum(0),
            z_sum=(logsum_N.square() * real_N).sum(),
            entropy_sum=((entropy_N if self.clamp is not None else entropy_N.detach()) * real_N).sum(),
            num_tokens=real_N.sum(),
        )
        if computed_NK is not None:
            used_N = computed_NK.sum(-1)
            is_used_NH = used_N[:, None] == torch.arange(self.config.top_k + 1, device=used_N.device)
            stats = stats._replace(used_H=(is_used_NH * real_N[:, None]).sum(0), used_N=used_N.float())
        return Choice(expert_NK, weight_NK, computed_NK), stats

    def _fused(self, logit_NE: Tensor, real_N: Tensor) -> tuple[Choice, RouterStats]:
        """The same by the kernel of `kernels.routing`, which knows neither groups, nor null experts, nor clamping."""
        config = self.config
        expert_NK, weight_NK, count_E, probability_E, z_sum, entropy_sum = route(
            logit_NE, self.bias_E, real_N, config.top_k, config.score == "softmax", config.normalise, config.scaling
        )
        return Choice(expert_NK, weight_NK), RouterStats(count_E, probability_E, z_sum, entropy_sum, real_N.sum())

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
        if self.config.null_experts:
            num_experts = self.config.num_experts
            probability_E = torch.cat([stats.probability_E[:num_experts], stats.probability_E[num_experts:].sum()[None]])
            balance = (self.load_E * probability_E / self._wanted()).sum()
        else:
            balance = self.config.num_experts * (self.load_E * stats.probability_E).sum()
        loss_sum = self.config.aux_coefficient * balance + self.config.z_coefficient * stats.z_sum
        return loss_sum if self.clamp is None else loss_sum + self.clamp.loss_sum(stats.probability_E, stats.entropy_sum, stats.num_tokens)

    def _wanted(self) -> Tensor:
        """The shares of the choices that balancing aims at, shaped like `load_E`."""
        config = self.config
        wanted_E = torch.full_like(self.load_E, config.mean_used / (config.top_k * config.num_experts) if config.null_experts else 1.0 / config.num_experts)
        if config.null_experts:
            wanted_E[-1] = 1.0 - config.mean_used / config.top_k
        return wanted_E

    def reset(self) -> None:
        """As before the first step: the load that is wanted (the balancing loss then has no gradient), no bias."""
        self.load_E.copy_(self._wanted())
        self.bias_E.zero_()
        if self.clamp is not None:
            self.clamp.reset()

    @torch.no_grad()
    def step(self, stats: RouterStats) -> None:
        """Once per optimizer step, with the sums over the whole batch: remember the load, move the bias against it, and the clamp."""
        count_E = self.reduce(stats.count_E.detach().to(self.load_E))
        if self.config.null_experts:
            self._step_with_null(count_E, self.reduce(stats.num_tokens.detach().to(self.load_E)))
        else:
            total = count_E.sum()
            self.load_E.copy_(torch.where(total > 0, count_E / total.clamp(min=1), self.load_E))
            if self.config.balance == "bias":
                self.bias_E += self.config.bias_rate * (count_E.mean() - count_E).sign()
        if self.clamp is not None:
            num_null = self.config.null_experts
            each_E = torch.cat([self.load_E[:-1], (self.load_E[-1] / num_null).expand(num_null)]) if num_null else self.load_E
            self.clamp.step(stats.probability_E, stats.entropy_sum, stats.num_tokens, each_E, self.reduce)

    def _step_with_null(self, count_E: Tensor, num_tokens: Tensor) -> None:
        """The same where choices may be null: what experts do not get of them, null ones get."""
        total = self.config.top_k * num_tokens
        load_E = torch.cat([count_E, (total - count_E.sum())[None]]) / total.clamp(min=1)
        self.load_E.copy_(torch.where(total > 0, load_E, self.load_E))
        if self.config.balance == "bias":
            wanted = self.config.mean_used / self.config.num_experts * num_tokens
            self.bias_E += self.config.bias_rate * ((wanted - count_E) / wanted.clamp(min=TINY)).clamp(-1.0, 1.0)
