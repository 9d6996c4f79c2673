"""Lightning indexer: which keys a query reads (DeepSeek-V3.2-Exp, 2025, "DeepSeek Sparse Attention", section 2.1).

A few small heads score every key that a query sees, I(t, s) = Σ_j w(t, j) · relu(q(t, j) · k(s)), and the query reads the best
`top_k` of them; with `share`, only as many of those as hold that share of softmax(I(t, ·)). Of equal scores the earlier key is read: keys that
no head turns to all score zero. Hosts leave that to their library, whose choice depends on the width of the scores; `library_ties` does as they
do, in a batch of one.
All heads share one key per token. Choosing has no gradient, so the indexer learns from attention alone: Σ_t KL(p(t) ‖ softmax(I(t))),
p(t) the mean of the heads' attention, over the keys that were read, or over all in the warm-up. Its inputs are detached and its scores
float32. Scores of all heads exist for a block of queries at a time, and the gradient of the divergence is made with its value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hagane.model.config import IndexConfig
from hagane.model.linear import Linear
from hagane.model.norm import LayerNorm
from hagane.model.rope import rotate
from hagane.model.sequence import View
from hagane.recipe.types import IndexMode

KEY_EPSILON = 1e-6  # of the keys' LayerNorm, as in the published code
BLOCK = 128  # queries whose scores of all heads exist at once


def is_indexers(name: str) -> bool:
    """Whether a parameter of this canonical name is an indexer's."""
    return ".mixer.indexer." in name


class IndexStats(NamedTuple):
    """Sums over the real tokens of a batch, float32; add them over micro-steps and processes. The first carries gradient."""

    divergence_sum: Tensor  # KL of the indexer from attention, nats
    read_sum: Tensor  # keys read
    num_tokens: Tensor


class Probe(NamedTuple):
    """What the indexer makes of tokens: queries and weights of its heads, and the one key."""

    query_BTJH: Tensor
    weight_BTJ: Tensor  # float32, the scale of the scores included
    key_BSH: Tensor


def index_scores(query_BTJH: Tensor, weight_BTJ: Tensor, key_BSH: Tensor) -> Tensor:
    """I(t, s), float32 (B, T, S)."""
    met_BTJS = _met(query_BTJH, key_BSH).relu()
    return (weight_BTJ[:, :, None] @ met_BTJS)[:, :, 0]


def _met(query_BTJH: Tensor, key_BSH: Tensor) -> Tensor:
    rows, length, num_heads, head_dim = query_BTJH.shape
    products = query_BTJH.float().reshape(rows, length * num_heads, head_dim) @ key_BSH.float().transpose(1, 2)
    return products.view(rows, length, num_heads, -1)


def choose(score_BTS: Tensor, seen_BTS: Tensor, config: IndexConfig, *, library_ties: bool = False) -> Tensor:
    """The keys that each query reads, bool (B, T, S): the best of those it sees, ties to the earlier. A query must see one."""
    score_BTS = torch.where(seen_BTS, score_BTS, -torch.inf)
    best_BTK, slot_BTK = score_BTS.topk(min(config.top_k, score_BTS.shape[-1]), dim=-1)
    if library_ties and config.share is None:
        return torch.zeros_like(seen_BTS).scatter(-1, slot_BTK, True) & seen_BTS
    if config.share is None:
        num_read_BT1 = torch.full_like(best_BTK[..., :1], best_BTK.shape[-1], dtype=torch.int64)
    else:
        held_BTK = (best_BTK - score_BTS.logsumexp(-1, keepdim=True)).exp().cumsum(-1)
        num_read_BT1 = ((held_BTK < config.share).sum(-1, keepdim=True) + 1).clamp(max=best_BTK.shape[-1])
    last_BT1 = best_BTK.gather(-1, num_read_BT1 - 1)
    above_BTS, equal_BTS = score_BTS > last_BT1, score_BTS == last_BT1
    room_BT1 = num_read_BT1 - above_BTS.sum(-1, keepdim=True)
    return seen_BTS & (above_BTS | (equal_BTS & (equal_BTS.cumsum(-1) <= room_BT1)))


class _Divergence(torch.autograd.Function):
    """Σ_t KL(p(t) ‖ softmax(I(t)) over `among`), and the gradients of queries, weights and keys, computed along with it.

    p(t) is the mean over heads of softmax(scale · q·k) over the same keys; N heads share K heads of keys.
    """

    @staticmethod
    def forward(
        ctx: Any, query_BTJH: Tensor, weight_BTJ: Tensor, key_BSH: Tensor, their_query_BTNE: Tensor, their_key_BSKE: Tensor, among_BTS: Tensor, real_BT: Tensor,
        scale: float,
    ) -> Tensor:  # fmt: skip
        total = torch.zeros((), device=query_BTJH.device)
        key_gradient = torch.zeros(key_BSH.shape, dtype=torch.float32, device=key_BSH.device)
        query_gradients, weight_gradients = [], []
        wide_key = key_BSH.float()
        for start in range(0, query_BTJH.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            query, weight, among, real = query_BTJH[:, block].float(), weight_BTJ[:, block], among_BTS[:, block], real_BT[:, block, None]
            met_BTJS = _met(query, key_BSH)
            score_BTS = torch.where(among, (weight[:, :, None] @ met_BTJS.relu())[:, :, 0], -torch.inf)
            log_share_BTS = score_BTS - score_BTS.logsumexp(-1, keepdim=True)
            target_BTS = _attention(their_query_BTNE[:, block], their_key_BSKE, among, scale)
            surprise = torch.where(target_BTS > 0, target_BTS * (target_BTS.clamp(min=1e-30).log() - log_share_BTS), 0.0)
            total = total + (surprise * real).sum()
            slope_BTS = (log_share_BTS.exp() - target_BTS) * real
            weight_gradients.append((met_BTJS.relu() @ slope_BTS[..., None])[..., 0])
            slope_BTJS = torch.where(met_BTJS > 0, weight[..., None] * slope_BTS[:, :, None], 0.0)
            query_gradients.append((slope_BTJS.flatten(1, 2) @ wide_key).view(query.shape))
            key_gradient = key_gradient + slope_BTJS.flatten(1, 2).transpose(1, 2) @ query.flatten(1, 2)
        query_gradient = torch.cat(query_gradients, dim=1)
        ctx.save_for_backward(query_gradient.to(query_BTJH.dtype), torch.cat(weight_gradients, dim=1), key_gradient.to(key_BSH.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, weight, key = ctx.saved_tensors
        return query * gradient.to(query.dtype), weight * gradient, key * gradient.to(key.dtype), None, None, None, None, None


def _attention(query_BTNE: Tensor, key_BSKE: Tensor, among_BTS: Tensor, scale: float) -> Tensor:
    """Mean over heads of softmax(scale · q·k) over the keys `among`, float32 (B, T, S)."""
    rows, length, num_heads, width = query_BTNE.shape
    num_kv_heads = key_BSKE.shape[2]
    query = query_BTNE.view(rows, length, num_kv_heads, -1, width).permute(0, 2, 3, 1, 4).reshape(rows, num_kv_heads, -1, width)
    score_BKMS = (query @ key_BSKE.permute(0, 2, 3, 1)).float() * scale
    score_BNTS = score_BKMS.view(rows, num_heads, length, -1)
    return torch.where(among_BTS[:, None], score_BNTS, torch.finfo(torch.float32).min).softmax(-1).mean(1)


class Indexer(nn.Module):
    """`query` makes the heads' queries from the latent vector of attention's queries, `key` the key and `weigh` the heads' weights from the
    hidden state. The leading dimensions of queries and keys turn with the position, as many as attention's."""

    def __init__(self, width: int, query_rank: int, config: IndexConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        self.query = Linear(query_rank, config.num_heads * config.head_dim, device)
        self.key = Linear(width, config.head_dim, device)
        self.key_norm = LayerNorm(config.head_dim, KEY_EPSILON, device)
        self.weigh = Linear(width, config.num_heads, device)
        # sparse: queries read what is chosen, and it learns on that; dense: they read all, it learns nothing; warmup, together: they read all, it learns on all
        self.mode: IndexMode = "sparse"
        self.library_ties = False

    def forward(self, hidden_BTD: Tensor, latent_BTQ: Tensor, view: View) -> Probe:
        """From the layer's input and the latent vector of its queries, both detached."""
        hidden_BTD, latent_BTQ = hidden_BTD.detach(), latent_BTQ.detach()
        assert view.cosine_BTR is not None
        assert view.sine_BTR is not None
        query_BTJH = self.query(latent_BTQ).view(*hidden_BTD.shape[:2], self.config.num_heads, self.config.head_dim)
        key_BT1H = self.key_norm(self.key(hidden_BTD))[:, :, None]
        query_BTJH, key_BT1H = (rotate(heads, view.cosine_BTR, view.sine_BTR) for heads in (query_BTJH, key_BT1H))
        scale = (self.config.num_heads * self.config.head_dim) ** -0.5
        weight_BTJ = nn.functional.linear(hidden_BTD.float(), self.weigh.weight.float()) * scale
        return Probe(query_BTJH, weight_BTJ, key_BT1H[:, :, 0])

    @torch.no_grad()
    def chosen(self, probe: Probe, seen_BTS: Tensor) -> Tensor:
        """The keys that each query reads, of those it sees: bool (B, T, S)."""
        if self.config.share is None and self.config.top_k >= seen_BTS.shape[2]:
            return seen_BTS
        room = seen_BTS.shape[2]
        if self.library_ties:  # its choice goes by the width of the scores, where a host has no room for tokens to come
            seen_BTS = seen_BTS[..., : int(seen_BTS.flatten(0, 1).any(0).nonzero()[-1]) + 1]
        width, parts = seen_BTS.shape[2], []
        for start in range(0, seen_BTS.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            scores = index_scores(probe.query_BTJH[:, block], probe.weight_BTJ[:, block], probe.key_BSH[:, :width])
            parts.append(choose(scores, seen_BTS[:, block], self.config, library_ties=self.library_ties))
        chosen_BTS = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return nn.functional.pad(chosen_BTS, (0, room - width)) if width < room else chosen_BTS

    def learn(self, probe: Probe, query_BTNE: Tensor, key_BSKE: Tensor, among_BTS: Tensor, real_BT: Tensor, scale: float) -> IndexStats:
        """Statistics of a batch: how far the indexer is from what attention's queries and keys made of the keys `among`, and how many those are."""
        divergence: Tensor = _Divergence.apply(*probe, query_BTNE.detach(), key_BSKE.detach(), among_BTS, real_BT, scale)  # type: ignore[no-untyped-call]
        return IndexStats(divergence, (among_BTS.sum(-1) * real_BT).sum(), real_BT.sum())
