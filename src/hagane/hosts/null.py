"""Weights of null experts, both ways: hosts hold experts of zeros in their place.

An expert whose matrices are zero adds weight · 0. It is chosen, weighed and counted in the sum that normalises weights as the null expert
was, so the model is exactly the same. Its price is what null experts save: hosts store these matrices and multiply with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from hagane.model.config import ExpertsConfig, ModelConfig


def _layers(config: ModelConfig) -> Iterator[tuple[str, ExpertsConfig]]:
    """The name that the feed-forward's weights begin with, of every layer with null experts."""
    named = [*((f"layers.{index}", layer) for index, layer in enumerate(config.layers)), *((f"mtp.{k}.block", one) for k, one in enumerate(config.mtp_layers))]
    for name, layer in named:
        if isinstance(layer.ffn, ExpertsConfig) and layer.ffn.null_experts:
            yield f"{name}.ffn.", layer.ffn


def as_held(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The weights by canonical name, with experts of zeros behind the others: those of `base.as_held(config)`. Null experts have no bias."""
    held = dict(state)
    for name, ffn in _layers(config):
        for part in ("gate_up", "down"):
            weight = state[name + part]
            held[name + part] = torch.cat([weight, weight.new_zeros(ffn.null_experts, *weight.shape[1:])])
        if (bias := name + "router.bias_E") in state:
            held[bias] = F.pad(state[bias], (0, ffn.null_experts))
    return held


def as_ours(held: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The way back: without the experts of zeros."""
    state = dict(held)
    for name, ffn in _layers(config):
        for part in ("gate_up", "down", "router.bias_E"):
            if name + part in held:
                state[name + part] = held[name + part][: ffn.num_experts]
    return state
