"""Weights of deepseek_v32 checkpoints, both ways.

The indexer turns its halves against each other as we do, unlike the attention beside it: its rows keep their order.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hagane.hosts.blocks import Weights, take
from hagane.hosts.deepseek_v3 import weights as deepseek_v3
from hagane.hosts.mtp import rolled, unrolled, unrolled_state
from hagane.model.config import ModelConfig

_INDEXER = {
    "query.weight": "wq_b.weight", "key.weight": "wk.weight", "key_norm.weight": "k_norm.weight", "key_norm.bias": "k_norm.bias",
    "weigh.weight": "weights_proj.weight",
}  # fmt: skip


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters and selection biases by canonical name -> (name, tensor) pairs under Hugging Face names, one matrix per expert."""
    yield from deepseek_v3.weights_to_host(state, config)
    further = unrolled_state(state, config)
    for index in range(unrolled(config).num_layers):
        for ours, theirs in _INDEXER.items():
            yield f"model.layers.{index}.self_attn.indexer.{theirs}", further[f"layers.{index}.mixer.indexer.{ours}"]


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours, selection biases among them. Raises DataError when one is missing."""
    yield from deepseek_v3.weights_from_host(tensors, config)
    for index in range(unrolled(config).num_layers):
        yield from rolled(_indexer_from_host(tensors, index), config)


def _indexer_from_host(tensors: Mapping[str, Tensor], index: int) -> Weights:
    for ours, theirs in _INDEXER.items():
        yield f"layers.{index}.mixer.indexer.{ours}", take(tensors, f"model.layers.{index}.self_attn.indexer.{theirs}")
