"""Weights of glm4_moe checkpoints, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hagane.hosts.blocks import Weights, biased_from_host, biased_to_host, mixer_from_host, mixer_to_host, outer_from_host, outer_to_host
from hagane.hosts.mtp import joints_from_host, joints_to_host, rolled, unrolled, unrolled_state
from hagane.model.config import ModelConfig


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters by canonical name -> (name, tensor) pairs under Hugging Face names, one matrix per expert. Parts are views of ours."""
    yield from outer_to_host(state, config)
    further, whole = unrolled_state(state, config), unrolled(config)
    for index in range(whole.num_layers):
        yield from mixer_to_host(further, whole, index)
        yield from biased_to_host(further, whole, index)
    yield from joints_to_host(state, config)


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours. Raises DataError when one is missing."""
    yield from outer_from_host(tensors, config)
    whole = unrolled(config)
    for index in range(whole.num_layers):
        yield from rolled(mixer_from_host(tensors, whole, index), config)
        yield from rolled(biased_from_host(tensors, whole, index), config)
    yield from joints_from_host(tensors, config)
