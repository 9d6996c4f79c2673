"""Weights of Gated DeltaNet under Qwen3-Next's names, both ways.

Published matrices go by key head: the query, the key, and the values and z of the value heads that share them, then the next key
head; beta and decay likewise. Ours go by part: all queries, all keys, all values, all z.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hagane.hosts.blocks import Weights, take
from hagane.model.config import DeltaConfig

_RENAMED = {
    "mixer_norm.weight": "input_layernorm.weight",
    "mixer.A_log": "linear_attn.A_log",
    "mixer.dt_bias": "linear_attn.dt_bias",
    "mixer.output_norm.weight": "linear_attn.norm.weight",
    "mixer.output.weight": "linear_attn.out_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}


def _by_head(matrix: Tensor, mixer: DeltaConfig, widths: list[int]) -> Tensor:
    """Rows by part, `widths` of each part per key head -> rows by key head."""
    parts = torch.split(matrix, [mixer.num_key_heads * width for width in widths])
    return torch.cat([part.reshape(mixer.num_key_heads, -1, matrix.shape[-1]) for part in parts], dim=1).flatten(0, 1)


def by_part(matrix: Tensor, mixer: DeltaConfig, fused: str) -> Tensor:
    """The way back, for the matrix of a name in `_FUSED`."""
    widths = _widths(mixer)[fused]
    heads = matrix.reshape(mixer.num_key_heads, sum(widths), matrix.shape[-1])
    return torch.cat([part.flatten(0, 1) for part in torch.split(heads, widths, dim=1)])


def _widths(mixer: DeltaConfig) -> dict[str, list[int]]:
    """The fused matrices and what each holds per key head."""
    group = mixer.num_value_heads // mixer.num_key_heads
    return {"qkvz": [mixer.key_dim, mixer.key_dim, group * mixer.value_dim, group * mixer.value_dim], "ba": [group, group]}


_FUSED = {"qkvz": "mixer.qkvz.weight", "ba": "mixer.rates.weight"}


def delta_to_host(state: Mapping[str, Tensor], mixer: DeltaConfig, index: int) -> Weights:
    """The mixer and both norms of a layer."""
    ours, theirs = f"layers.{index}.", f"model.layers.{index}."
    for name, widths in _widths(mixer).items():
        yield f"{theirs}linear_attn.in_proj_{name}.weight", _by_head(state[ours + _FUSED[name]], mixer, widths)
    yield theirs + "linear_attn.conv1d.weight", state[ours + "mixer.conv"][:, None]
    for source, target in _RENAMED.items():
        yield theirs + target, state[ours + source]


def delta_from_host(tensors: Mapping[str, Tensor], mixer: DeltaConfig, index: int) -> Weights:
    ours, theirs = f"layers.{index}.", f"model.layers.{index}."
    for name in _FUSED:
        yield ours + _FUSED[name], by_part(take(tensors, f"{theirs}linear_attn.in_proj_{name}.weight"), mixer, name)
    yield ours + "mixer.conv", take(tensors, theirs + "linear_attn.conv1d.weight")[:, 0]
    for target, source in _RENAMED.items():
        yield ours + target, take(tensors, theirs + source)
