"""Grouped-query attention (Ainslie et al. 2023), causal within documents, optionally with QK-norm and a window.

Whole rows on a CPU go through a kernel of our own that reads only the keys a query sees (`kernels.attention`). Everything else
takes a mask: generation with a cache, written out on a CPU, where the compiled form beats the library's fused kernel with a mask;
and CUDA, by scaled_dot_product_attention.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.kernels.attention import attend_eagerly, attend_packed
from hagane.kernels.elementwise import rotate_heads
from hagane.model.config import AttentionConfig
from hagane.model.layer_cache import KeyValueCache, LayerCache
from hagane.model.linear import Linear
from hagane.model.norm import RMSNorm
from hagane.model.rope import rotate
from hagane.model.sequence import View

ContextExchange = Callable[[Tensor, Tensor, View], tuple[Tensor, Tensor, View]]


def local_context(key_BTKH: Tensor, value_BTKH: Tensor, view: View) -> tuple[Tensor, Tensor, View]:
    """The whole context is here: nothing to exchange."""
    return key_BTKH, value_BTKH, view


def attend(query_BNTH: Tensor, key_BKSH: Tensor, value_BKSV: Tensor, mask_BTS: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale q·k) · v with a float32 softmax; heads N share K keys; scale None is 1 / sqrt(H). Returns (B, N, T, V)."""
    rows, num_heads, length, head_dim = query_BNTH.shape
    num_kv_heads, span = key_BKSH.shape[1], key_BKSH.shape[2]
    group = num_heads // num_kv_heads
    if query_BNTH.device.type == "cuda":
        # expanded, not enable_gqa: the memory-efficient kernel, the one that takes a mask, has no grouped form
        key, value = (x.repeat_interleave(group, dim=1) if group > 1 else x for x in (key_BKSH, value_BKSV))
        return F.scaled_dot_product_attention(query_BNTH, key, value, attn_mask=mask_BTS[:, None], scale=scale)
    query_BKMH = query_BNTH.reshape(rows, num_kv_heads, group * length, head_dim)
    score_BKGTS = (query_BKMH @ key_BKSH.transpose(2, 3)).view(rows, num_kv_heads, group, length, span).float()
    score_BKGTS = score_BKGTS * (head_dim**-0.5 if scale is None else scale)
    # the lowest finite number, not -inf: a padding query that sees nothing must not become NaN
    score_BKGTS = torch.where(mask_BTS[:, None, None], score_BKGTS, torch.finfo(torch.float32).min)
    weight_BKGTS = score_BKGTS.softmax(-1).to(value_BKSV.dtype)
    mixed_BKMV = weight_BKGTS.view(rows, num_kv_heads, group * length, span) @ value_BKSV
    return mixed_BKMV.view(rows, num_heads, length, -1)


class Attention(nn.Module):
    """The mixer of kind `attention`. Queries, keys and values come from one matrix, in this order along its rows.

    A layer without rotary positions is told apart by its view, an output gate by its own matrix (`gate.weight`).
    """

    def __init__(self, width: int, config: AttentionConfig, norm_epsilon: float, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.qkv = Linear(width, (config.num_heads + 2 * config.num_kv_heads) * config.head_dim, device)
        self.query_norm = RMSNorm(config.head_dim, norm_epsilon, device) if config.qk_norm else None
        self.key_norm = RMSNorm(config.head_dim, norm_epsilon, device) if config.qk_norm else None
        self.gate = Linear(width, config.num_heads * config.head_dim, device) if config.gate == "sigmoid" else None
        self.output = Linear(config.num_heads * config.head_dim, width, device)
        self.fused = False  # see `norm`
        self.context_exchange: ContextExchange = local_context  # context parallelism gathers keys and values here

    def _heads(self, qkv_BTC: Tensor, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, N, H), keys and values (B, T, K, H), normed and turned."""
        query_norm, key_norm = self.query_norm, self.key_norm
        if self.fused and view.cosine_BTR is not None and view.sine_BTR is not None:
            of_query, of_key = (None if norm is None else norm.weight for norm in (query_norm, key_norm))
            epsilon = 0.0 if query_norm is None else query_norm.epsilon
            return rotate_heads(qkv_BTC, view.cosine_BTR, view.sine_BTR, of_query, of_key, self.num_heads, self.num_kv_heads, epsilon)
        heads_BTNH = qkv_BTC.view(*qkv_BTC.shape[:2], -1, self.head_dim)
        query, key, value = torch.split(heads_BTNH, [self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=2)
        if query_norm is not None and key_norm is not None:
            query, key = query_norm(query), key_norm(key)
        if view.cosine_BTR is not None and view.sine_BTR is not None:
            query, key = (rotate(x, view.cosine_BTR, view.sine_BTR) for x in (query, key))
        return query, key, value

    def forward(self, hidden_BTD: Tensor, view: View, cache: LayerCache | None = None) -> tuple[Tensor, None]:
        rows, length, _ = hidden_BTD.shape
        query, key, value = self._heads(self.qkv(hidden_BTD), view)
        key, value, view = self.context_exchange(key, value, view)
        if view.first_BT is not None:
            mixed_BTNH = attend_eagerly(query, key, value, view.first_BT) if self.fused else attend_packed(query, key, value, view.first_BT)[0]
        else:
            assert view.mask_BTS is not None
            key, value = key.transpose(1, 2), value.transpose(1, 2)
            if cache is not None:
                assert isinstance(cache, KeyValueCache)
                key, value = cache.append(key, value)
            mixed_BTNH = attend(query.transpose(1, 2), key, value, view.mask_BTS).transpose(1, 2)
        mixed_BTD = mixed_BTNH.reshape(rows, length, -1)
        if self.gate is not None:
            mixed_BTD = (mixed_BTD.float() * self.gate(hidden_BTD).float().sigmoid()).to(mixed_BTD.dtype)
        return self.output(mixed_BTD), None
