"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): small caches for many heads.

A token leaves one latent vector c (kv_rank) and one rotated key r (rope_dim) that all heads share. Head n has the key
[K_n c, r] and the value V_n c. Two forms of one function:

- expanded: keys and values of all heads are made from the latents, then ordinary attention. For training, and for long pieces of
  a prompt.
- absorbed: q·(K_n c) = (K_nᵀ q)·c, so queries go to the latent space instead and every head attends to the same kv_rank + rope_dim
  values; what comes back goes through V_n. For decoding, where the cache is long and the new tokens are few.

The norms of both latents use 1e-6 whatever the model's epsilon is, as in the published code of every host.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.kernels.attention import attend_packed
from hagane.model.attention import ContextExchange, attend, local_context
from hagane.model.config import LatentConfig
from hagane.model.layer_cache import KeyValueCache, LayerCache
from hagane.model.linear import Linear
from hagane.model.norm import RMSNorm
from hagane.model.rope import rotate
from hagane.model.sequence import View

LATENT_EPSILON = 1e-6


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
    nope_dim of the key then value_dim per head.
    """

    def __init__(self, width: int, config: LatentConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        num_heads, query_rank = config.num_heads, config.query_rank
        self.down = Linear(width, (query_rank or 0) + config.kv_rank + config.rope_dim, device)
        self.query_norm = RMSNorm(query_rank, LATENT_EPSILON, device) if query_rank else None
        if query_rank:
            self.query_up = Linear(query_rank, num_heads * config.qk_dim, device)
        else:
            self.query = Linear(width, num_heads * config.qk_dim, device)
        self.kv_norm = RMSNorm(config.kv_rank, LATENT_EPSILON, device)
        self.kv_up = Linear(config.kv_rank, num_heads * (config.nope_dim + config.value_dim), device)
        self.output = Linear(num_heads * config.value_dim, width, device)
        self.score_scale = config.qk_dim**-0.5 * (config.rope.yarn.score_factor if config.rope.yarn else 1.0)
        self.context_exchange: ContextExchange = local_context  # context parallelism gathers latents and shared keys here

    def forward(self, hidden_BTD: Tensor, view: View, cache: LayerCache | None = None) -> tuple[Tensor, None]:
        config = self.config
        rows, length, _ = hidden_BTD.shape
        query_latent, latent_BTC, shared_BTP = self.down(hidden_BTD).split([config.query_rank or 0, config.kv_rank, config.rope_dim], dim=-1)
        query = self.query(hidden_BTD) if self.query_norm is None else self.query_up(self.query_norm(query_latent))
        plain_BTNH, turned_BTNP = query.view(rows, length, -1, config.qk_dim).split([config.nope_dim, config.rope_dim], dim=-1)
        assert view.cosine_BTR is not None
        assert view.sine_BTR is not None
        turned_BTNP = rotate(turned_BTNP, view.cosine_BTR, view.sine_BTR)
        latent_BT1C = self.kv_norm(latent_BTC)[:, :, None]
        shared_BT1P = rotate(shared_BTP[:, :, None], view.cosine_BTR, view.sine_BTR)
        latent_BT1C, shared_BT1P, view = self.context_exchange(latent_BT1C, shared_BT1P, view)
        if cache is None:
            mixed_BTNV = self.expanded(plain_BTNH, turned_BTNP, latent_BT1C, shared_BT1P, view)
        else:
            assert isinstance(cache, KeyValueCache)
            token_B1TE = torch.cat((latent_BT1C, shared_BT1P), dim=-1).transpose(1, 2)
            seen_B1SE, _ = cache.append(token_B1TE, token_B1TE[..., :0])  # a key of every token, whose first part is also its value
            if absorbing_pays(config, length, seen_B1SE.shape[2]):
                mixed_BTNV = self.absorbed(plain_BTNH, turned_BTNP, seen_B1SE, view)
            else:
                latent_BS1C, shared_BS1P = seen_B1SE.transpose(1, 2).tensor_split([config.kv_rank], dim=-1)
                mixed_BTNV = self.expanded(plain_BTNH, turned_BTNP, latent_BS1C, shared_BS1P, view)
        return self.output(mixed_BTNV.reshape(rows, length, -1)), None

    def expanded(self, plain_BTNH: Tensor, turned_BTNP: Tensor, latent_BS1C: Tensor, shared_BS1P: Tensor, view: View) -> Tensor:
        """Attention over keys and values of every head. Returns (B, T, N, value_dim)."""
        config = self.config
        rows, span = latent_BS1C.shape[:2]
        key_value = self.kv_up(latent_BS1C).view(rows, span, config.num_heads, -1)
        key_plain, value_BSNV = key_value.split([config.nope_dim, config.value_dim], dim=-1)
        key_BSNH = torch.cat((key_plain, shared_BS1P.expand(-1, -1, config.num_heads, -1)), dim=-1)
        query_BTNH = torch.cat((plain_BTNH, turned_BTNP), dim=-1)
        if view.first_BT is None:
            assert view.mask_BTS is not None
            key, value = key_BSNH.transpose(1, 2), value_BSNV.transpose(1, 2)
            return attend(query_BTNH.transpose(1, 2), key, value, view.mask_BTS, self.score_scale).transpose(1, 2)
        wide = kernel_dim(config)  # the kernel divides scores by its root
        query, key, value = (_widened(x, wide) for x in (query_BTNH * (self.score_scale * wide**0.5), key_BSNH, value_BSNV))
        mixed_BTNW: Tensor = attend_packed(query, key, value, view.first_BT)[0]
        return mixed_BTNW[..., : config.value_dim]

    def absorbed(self, plain_BTNH: Tensor, turned_BTNP: Tensor, key_B1SE: Tensor, view: View) -> Tensor:
        """The same with one key of E = kv_rank + rope_dim values for all heads, whose first part is also the value."""
        config = self.config
        assert view.mask_BTS is not None
        up_NUC = self.kv_up.weight.view(config.num_heads, -1, config.kv_rank)
        key_NHC, value_NVC = up_NUC[:, : config.nope_dim], up_NUC[:, config.nope_dim :]
        query_BNTE = torch.cat((plain_BTNH.transpose(1, 2) @ key_NHC, turned_BTNP.transpose(1, 2)), dim=-1)
        mixed_BNTC = attend(query_BNTE, key_B1SE, key_B1SE[..., : config.kv_rank], view.mask_BTS, self.score_scale)
        return (mixed_BNTC @ value_NVC.transpose(1, 2)).transpose(1, 2)
