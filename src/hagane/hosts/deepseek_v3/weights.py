"""Weights of deepseek_v3 checkpoints, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hagane.hosts.blocks import Weights, dense_from_host, dense_to_host, outer_from_host, outer_to_host
from hagane.hosts.latent import latent_from_host, latent_to_host
from hagane.model.config import ModelConfig


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters by canonical name -> (name, tensor) pairs under Hugging Face names."""
    yield from outer_to_host(state, config)
    for index in range(config.num_layers):
        yield from latent_to_host(state, config, index)
        yield from dense_to_host(state, config, index)


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours. Raises DataError when one is missing."""
    yield from outer_from_host(tensors, config)
    for index in range(config.num_layers):
        yield from latent_from_host(tensors, config, index)
        yield from dense_from_host(tensors, config, index)
