"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): small caches for many heads.

A token leaves one latent vector c (kv_rank) and one rotated key r (rope_dim) that all heads share. Head n has the key
[K_n c, r] and the value V_n c. Two forms of one function:

- expanded: keys and values of all heads are made from the latents, then ordinary attention. For training, and for long pieces of
  a prompt.
- absorbed: q·(K_n c) = (K_nᵀ q)·c, so queries go to the latent space instead and every head attends to the same kv_rank + rope_dim
  values; what comes back goes through V_n. For decoding, where the cache is long and the new tokens are few.

With a gate (A.X K2, SK Telecom 2026) the values of every head are multiplied with a sigmoid before the output matrix. It and the queries are then made from
two vectors, the latent of the queries normed and the same as it is.

With an indexer (`indexer`) a query reads only the keys chosen for it. Written out, that is another mask, and the packed kernel takes the
choice beside its own; decoding a few tokens, the absorbed form reads the chosen tokens out of the cache and nothing else.

The norms of both latents use 1e-6 whatever the model's epsilon is, as in the published code of every host.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.kernels.attention import attend_chosen, attend_packed
from hagane.model.attention import ContextExchange, attend, local_context
from hagane.model.config import LatentConfig
from hagane.model.indexer import Indexer, IndexStats, Probe
from hagane.model.layer_cache import KeyValueCache, LayerCache
from hagane.model.linear import Linear
from hagane.model.norm import RMSNorm
from hagane.model.rope import rotate
from hagane.model.sequence import View, seen_keys

LATENT_EPSILON = 1e-6
GATHERED_TOKENS = 16  # new tokens per row up to which each query's chosen keys are copied together: faster to 64 and more, but the copies take memory


def kernel_dim(config: LatentConfig) -> int:
    """Width of a head in the packed kernel, which knows one width for queries, keys and values, in multiples of 8: the rest is zeros."""
    return -(-max(config.qk_dim, config.value_dim) // 8) * 8


def absorbing_pays(config: LatentConfig, num_new: int, span: int) -> bool:
    """Whether the absorbed form needs fewer multiply-adds for `num_new` tokens per row that see `span`."""
    made = config.kv_rank * (config.nope_dim + config.value_dim)  # per head, through K and V
    absorbed = num_new * (made + span * (2 * config.kv_rank + config.rope_dim))
    expanded = span * (made + num_new * (config.qk_dim + config.value_dim))
    return absorbed < expanded


def _widened(heads: Tensor, wide: int) -> Tensor:
    """Zeros behind the last dimension, which change neither scores nor what is mixed."""
    return heads if heads.shape[-1] == wide else F.pad(heads, (0, wide - heads.shape[-1]))


class LatentAttention(nn.Module):
    """The mixer of kind `latent`.

    `down` makes, in this order, the latent of the queries (where they have one), the latent of keys and values, and the shared
    key. `query` (from the hidden state) or `query_up` (from its latent) makes nope_dim then rope_dim values per head, `kv_up`
    nope_dim of the key then value_dim per head, `gate` (from both forms of the latent, as `query_up` then) value_dim per head.
    """

    def __init__(self, width: int, config: LatentConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        num_heads, query_rank = config.num_heads, config.query_rank
        self.down = Linear(width, (query_rank or 0) + config.kv_rank + config.rope_dim, device)
        self.query_norm = RMSNorm(query_rank, LATENT_EPSILON, device) if query_rank else None
        if query_rank:
            forms = 1 if config.gate == "none" else 2
            self.query_up = Linear(forms * query_rank, num_heads * config.qk_dim, device)
        else:
            self.query = Linear(width, num_heads * config.qk_dim, device)
        self.kv_norm = RMSNorm(config.kv_rank, LATENT_EPSILON, device)
        self.kv_up = Linear(config.kv_rank, num_heads * (config.nope_dim + config.value_dim), device)
        self.gate = Linear(2 * query_rank, num_heads * config.value_dim, device) if config.gate == "sigmoid" and query_rank else None
        self.output = Linear(num_heads * config.value_dim, width, device)
        self.indexer = Indexer(width, query_rank, config.index, device) if config.index is not None and query_rank else None
        self.score_scale = config.qk_dim**-0.5 * (config.rope.yarn.score_factor if config.rope.yarn else 1.0)
        self.context_exchange: ContextExchange = local_context  # context parallelism gathers latents, shared keys and the indexer's keys here

    def forward(self, hidden_BTD: Tensor, view: View, cache: LayerCache | None = None) -> tuple[Tensor, IndexStats | None]:
        config = self.config
        rows, length, _ = hidden_BTD.shape
        query_latent, latent_BTC, shared_BTP = self.down(hidden_BTD).split([config.query_rank or 0, config.kv_rank, config.rope_dim], dim=-1)
        unnormed = query_latent
        if self.query_norm is not None:
            query_latent = self.query_norm(query_latent)
        forms_BTC = query_latent if self.gate is None else torch.cat((query_latent, unnormed), dim=-1)
        query = self.query(hidden_BTD) if self.query_norm is None else self.query_up(forms_BTC)
        plain_BTNH, turned_BTNP = query.view(rows, length, -1, config.qk_dim).split([config.nope_dim, config.rope_dim], dim=-1)
        assert view.cosine_BTR is not None
        assert view.sine_BTR is not None
        turned_BTNP = rotate(turned_BTNP, view.cosine_BTR, view.sine_BTR)
        latent_BT1C = self.kv_norm(latent_BTC)[:, :, None]
        shared_BT1P = rotate(shared_BTP[:, :, None], view.cosine_BTR, view.sine_BTR)
        probe = None
        if self.indexer is not None and (cache is not None or self.indexer.mode != "dense"):  # a cache keeps what it makes of every token
            probe = self.indexer(hidden_BTD, query_latent, view)
            shared_BT1P = torch.cat((shared_BT1P, probe.key_BSH[:, :, None].to(shared_BT1P.dtype)), dim=-1)  # they travel together
        latent_BT1C, shared_BT1P, view = self.context_exchange(latent_BT1C, shared_BT1P, view)
        stats: IndexStats | None = None
        if cache is None:
            shared_BT1P, index_BT1H = shared_BT1P.tensor_split([config.rope_dim], dim=-1)
            if probe is not None:
                probe = probe._replace(key_BSH=index_BT1H[:, :, 0])
                if self.indexer is not None and self.indexer.mode == "warmup":  # else, having travelled with keys that learn, zeros go back through the model
                    shared_BT1P = shared_BT1P.detach()
            mixed_BTNV, stats = self._uncached(plain_BTNH, turned_BTNP, latent_BT1C, shared_BT1P, probe, view)
        else:
            assert isinstance(cache, KeyValueCache)
            token_B1TE = torch.cat((latent_BT1C, shared_BT1P), dim=-1).transpose(1, 2)
            # a key of every token, whose first part is also its value; in the values' place the indexer's keys
            seen_B1SE, index_B1SH = cache.append(*token_B1TE.tensor_split([config.kv_rank + config.rope_dim], dim=-1))
            if probe is not None:
                probe = probe._replace(key_BSH=index_B1SH[:, 0])
            mixed_BTNV = self._cached(plain_BTNH, turned_BTNP, seen_B1SE, probe, view)
        mixed_BTM = mixed_BTNV.reshape(rows, length, -1)
        if self.gate is not None:
            mixed_BTM = (mixed_BTM * torch.sigmoid(self.gate(forms_BTC).float())).to(mixed_BTM.dtype)
        return self.output(mixed_BTM), stats

    def _uncached(
        self, plain_BTNH: Tensor, turned_BTNP: Tensor, latent_BS1C: Tensor, shared_BS1P: Tensor, probe: Probe | None, view: View
    ) -> tuple[Tensor, IndexStats | None]:
        heads = self.heads(plain_BTNH, turned_BTNP, latent_BS1C, shared_BS1P)
        if probe is None or self.indexer is None or self.indexer.mode == "dense":
            return self.mixed(*heads, view), None
        among_BTS = seen_keys(view, latent_BS1C.shape[1])
        chosen_BTS = None
        if self.indexer.mode == "sparse":
            among_BTS = chosen_BTS = self.indexer.chosen(probe, among_BTS)
        stats = None
        if self.training and torch.is_grad_enabled():
            stats = self.indexer.learn(probe, heads[0], heads[1], among_BTS, view.real_BT, self.score_scale)
        return self.mixed(*heads, view, chosen_BTS), stats

    def _cached(self, plain_BTNH: Tensor, turned_BTNP: Tensor, seen_B1SE: Tensor, probe: Probe | None, view: View) -> Tensor:
        config, length = self.config, plain_BTNH.shape[1]
        chosen_BTS = None
        if probe is not None and self.indexer is not None and self.indexer.mode == "sparse":
            assert view.mask_BTS is not None
            chosen_BTS = self.indexer.chosen(probe, view.mask_BTS)
            if length <= GATHERED_TOKENS and self.indexer.config.top_k < seen_B1SE.shape[2]:
                return self.gathered(plain_BTNH, turned_BTNP, seen_B1SE, chosen_BTS, self.indexer.config.top_k)
        if absorbing_pays(config, length, seen_B1SE.shape[2]):
            return self.absorbed(plain_BTNH, turned_BTNP, seen_B1SE, view.mask_BTS if chosen_BTS is None else chosen_BTS)
        latent_BS1C, shared_BS1P = seen_B1SE.transpose(1, 2).tensor_split([config.kv_rank], dim=-1)
        return self.mixed(*self.heads(plain_BTNH, turned_BTNP, latent_BS1C, shared_BS1P), view, chosen_BTS)

    def heads(self, plain_BTNH: Tensor, turned_BTNP: Tensor, latent_BS1C: Tensor, shared_BS1P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head: the expanded form."""
        config = self.config
        rows, span = latent_BS1C.shape[:2]
        key_value = self.kv_up(latent_BS1C).view(rows, span, config.num_heads, -1)
        key_plain, value_BSNV = key_value.split([config.nope_dim, config.value_dim], dim=-1)
        key_BSNH = torch.cat((key_plain, shared_BS1P.expand(-1, -1, config.num_heads, -1)), dim=-1)
        return torch.cat((plain_BTNH, turned_BTNP), dim=-1), key_BSNH, value_BSNV

    def mixed(self, query_BTNH: Tensor, key_BSNH: Tensor, value_BSNV: Tensor, view: View, chosen_BTS: Tensor | None = None) -> Tensor:
        """Attention over what a query sees, or of that only over what is chosen for it. Returns (B, T, N, value_dim)."""
        if view.first_BT is None:
            mask_BTS = view.mask_BTS if chosen_BTS is None else chosen_BTS
            assert mask_BTS is not None
            key, value = key_BSNH.transpose(1, 2), value_BSNV.transpose(1, 2)
            return attend(query_BTNH.transpose(1, 2), key, value, mask_BTS, self.score_scale).transpose(1, 2)
        wide = kernel_dim(self.config)  # the kernel divides scores by its root
        query, key, value = (_widened(x, wide) for x in (query_BTNH * (self.score_scale * wide**0.5), key_BSNH, value_BSNV))
        if chosen_BTS is None:
            mixed_BTNW: Tensor = attend_packed(query, key, value, view.first_BT)[0]
        else:
            mixed_BTNW = attend_chosen(query, key, value, view.first_BT, chosen_BTS)[0]
        return mixed_BTNW[..., : self.config.value_dim]

    def _in_latent_space(self, plain_BTNH: Tensor, turned_BTNP: Tensor) -> Tensor:
        """Queries of the absorbed form (B, N, T, E)."""
        key_NHC = self.kv_up.weight.view(self.config.num_heads, -1, self.config.kv_rank)[:, : self.config.nope_dim]
        return torch.cat((plain_BTNH.transpose(1, 2) @ key_NHC, turned_BTNP.transpose(1, 2)), dim=-1)

    def _values(self, mixed_BNTC: Tensor) -> Tensor:
        """What came back from latent space as values of every head (B, T, N, V)."""
        value_NVC = self.kv_up.weight.view(self.config.num_heads, -1, self.config.kv_rank)[:, self.config.nope_dim :]
        return (mixed_BNTC @ value_NVC.transpose(1, 2)).transpose(1, 2)

    def absorbed(self, plain_BTNH: Tensor, turned_BTNP: Tensor, key_B1SE: Tensor, mask_BTS: Tensor | None) -> Tensor:
        """The same with one key of E = kv_rank + rope_dim values for all heads, whose first part is also the value."""
        assert mask_BTS is not None
        query_BNTE = self._in_latent_space(plain_BTNH, turned_BTNP)
        return self._values(attend(query_BNTE, key_B1SE, key_B1SE[..., : self.config.kv_rank], mask_BTS, self.score_scale))

    def gathered(self, plain_BTNH: Tensor, turned_BTNP: Tensor, key_B1SE: Tensor, chosen_BTS: Tensor, top_k: int) -> Tensor:
        """The absorbed form over the chosen keys alone, at most `top_k` of them a query."""
        rows, length = chosen_BTS.shape[:2]
        kept_BTK, slot_BTK = chosen_BTS.to(torch.uint8).topk(min(top_k, chosen_BTS.shape[2]), dim=-1)
        row_B11 = torch.arange(rows, device=slot_BTK.device)[:, None, None]
        key_M1KE = key_B1SE[:, 0][row_B11, slot_BTK].flatten(0, 1)[:, None]
        query_BNTE = self._in_latent_space(plain_BTNH, turned_BTNP)
        query_MN1E = query_BNTE.transpose(1, 2).flatten(0, 1)[:, :, None]
        mixed_MN1C = attend(query_MN1E, key_M1KE, key_M1KE[..., : self.config.kv_rank], kept_BTK.bool().flatten(0, 1)[:, None], self.score_scale)
        return self._values(mixed_MN1C.view(rows, length, self.config.num_heads, -1).transpose(1, 2))
