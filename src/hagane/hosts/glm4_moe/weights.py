"""Weights of glm4_moe checkpoints, both ways. The layers that predict further tokens, behind the others in published ones, are not read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hagane.hosts.blocks import Weights, biased_from_host, biased_to_host, mixer_from_host, mixer_to_host, outer_from_host, outer_to_host
from hagane.model.config import ModelConfig


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters by canonical name -> (name, tensor) pairs under Hugging Face names, one matrix per expert. Parts are views of ours."""
    yield from outer_to_host(state, config)
    for index in range(config.num_layers):
        yield from mixer_to_host(state, config, index)
        yield from biased_to_host(state, config, index)


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours. Raises DataError when one is missing."""
    yield from outer_from_host(tensors, config)
    for index in range(config.num_layers):
        yield from mixer_from_host(tensors, config, index)
        yield from biased_from_host(tensors, config, index)
