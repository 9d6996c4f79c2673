"""The kinds of mixer, and what the decoder asks of each: one entry per kind in `_KINDS`, one function per kind in `count`.

A mixer is a module with `forward(hidden_BTD, view, cache=None) -> (hidden_BTD, stats)`; what it writes to the residual stream goes
through a matrix named `output`, which `initial` scales with depth, and its norms are named `…norm`. Its cache is a `LayerCache`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from hagane.kernels.attention import serves
from hagane.model.attention import Attention
from hagane.model.config import AttentionConfig, LatentConfig, MixerConfig, ModelConfig
from hagane.model.delta import Delta, DeltaCache
from hagane.model.latent import LatentAttention, kernel_dim
from hagane.model.layer_cache import KeyValueCache, LayerCache, WindowCache

Device = torch.device | str | None


class Kind(NamedTuple):
    """`build(width, config, norm_epsilon, device)`; `cache(rows, length, config, dtype, device)`; `takes_first(config, device, dtype)`.

    The last says in which form the mixer wants to know who sees whom outside of generation: `View.first_BT` or else `mask_BTS`.
    """

    build: Callable[[int, Any, float, Device], nn.Module]
    cache: Callable[[int, int, Any, torch.dtype, Device], LayerCache]
    takes_first: Callable[[Any, torch.device, torch.dtype], bool]


def _attention_cache(rows: int, length: int, config: AttentionConfig, dtype: torch.dtype, device: Device) -> LayerCache:
    heads = config.num_kv_heads, config.head_dim
    if config.window is not None:
        return WindowCache(rows, length, config.window, heads, heads, dtype, device)
    return KeyValueCache(rows, length, heads, heads, dtype, device)


def _latent(width: int, config: LatentConfig, norm_epsilon: float, device: Device) -> nn.Module:
    return LatentAttention(width, config, device)  # its norms have an epsilon of their own


def _latent_cache(rows: int, length: int, config: LatentConfig, dtype: torch.dtype, device: Device) -> LayerCache:
    """One key for all heads; the value of a token is the first part of its key, so in its place is the key of the indexer, or nothing."""
    return KeyValueCache(rows, length, (1, config.kv_rank + config.rope_dim), (1, config.index.head_dim if config.index else 0), dtype, device)


_KINDS: dict[str, Kind] = {
    "attention": Kind(Attention, _attention_cache, lambda config, device, dtype: serves(device, dtype, config.head_dim)),
    "latent": Kind(_latent, _latent_cache, lambda config, device, dtype: serves(device, dtype, kernel_dim(config))),
    "delta": Kind(Delta, lambda rows, length, config, dtype, device: DeltaCache(rows, config, device), lambda config, device, dtype: True),
}


def build_mixer(width: int, config: MixerConfig, norm_epsilon: float, device: Device = None) -> nn.Module:
    """The mixer of a layer, not initialised."""
    return _KINDS[config.kind].build(width, config, norm_epsilon, device)


def layer_cache(rows: int, length: int, config: MixerConfig, dtype: torch.dtype, device: Device) -> LayerCache:
    """An empty cache of this mixer for `rows` sequences of up to `length` tokens."""
    return _KINDS[config.kind].cache(rows, length, config, dtype, device)


def layer_caches(rows: int, length: int, config: ModelConfig, dtype: torch.dtype, device: Device) -> list[LayerCache]:
    """One per layer."""
    return [layer_cache(rows, length, layer.mixer, dtype, device) for layer in config.layers]


def takes_first(config: MixerConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this mixer reads `View.first_BT` on such tensors, and not `View.mask_BTS`."""
    return _KINDS[config.kind].takes_first(config, device, dtype)
