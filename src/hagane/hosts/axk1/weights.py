"""Weights of axk1 checkpoints, both ways."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping

import torch
from torch import Tensor

from hagane.hosts.blocks import CORRECTION, Weights, take
from hagane.hosts.deepseek_v3 import weights as deepseek_v3
from hagane.model.config import ExpertsConfig, ModelConfig


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters and selection biases by canonical name -> (name, tensor) pairs under Hugging Face names, one matrix per expert."""
    yield from deepseek_v3.weights_to_host(state, config)
    for index, layer in enumerate(config.layers):
        if layer.post_ffn_norm:
            yield f"model.layers.{index}.post_mlp_layernorm.weight", state[f"layers.{index}.post_ffn_norm.weight"]


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours. Raises DataError when one is missing.

    The published model has no selection biases: they are zero then.
    """
    biases = {
        f"model.layers.{index}.mlp.{CORRECTION}": torch.zeros(layer.ffn.num_experts)
        for index, layer in enumerate(config.layers)
        if isinstance(layer.ffn, ExpertsConfig)
    }
    # not copied: what nobody asks `tensors` for must be found
    yield from deepseek_v3.weights_from_host(ChainMap(tensors, biases), config)  # type: ignore[arg-type]  # it is only read
    for index, layer in enumerate(config.layers):
        if layer.post_ffn_norm:
            in_memory = f"model.layers.{index}.mlp.post_mlp_layernorm.weight"  # where transformers holds it
            name = in_memory if in_memory in tensors else f"model.layers.{index}.post_mlp_layernorm.weight"
            yield f"layers.{index}.post_ffn_norm.weight", take(tensors, name)
