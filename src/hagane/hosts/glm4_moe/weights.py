"""Weights of glm4_moe checkpoints, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hagane.hosts.blocks import Weights, biased_from_host, biased_to_host, mixer_from_host, mixer_to_host, modular_from_host, modular_to_host
from hagane.model.config import ModelConfig


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters by canonical name -> (name, tensor) pairs under Hugging Face names, one matrix per expert. Parts are views of ours."""
    return modular_to_host(state, config, mixer_to_host, biased_to_host)


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours. Raises DataError when one is missing."""
    return modular_from_host(tensors, config, mixer_from_host, biased_from_host)
