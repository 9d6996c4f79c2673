"""Weights of deepseek_v3 checkpoints, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hagane.hosts.blocks import Weights, biased_from_host, biased_to_host, modular_from_host, modular_to_host
from hagane.hosts.latent import latent_from_host, latent_to_host
from hagane.model.config import ModelConfig


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters and selection biases by canonical name -> (name, tensor) pairs under Hugging Face names, one matrix per expert."""
    return modular_to_host(state, config, latent_to_host, biased_to_host)


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours, selection biases among them. Raises DataError when one is missing."""
    return modular_from_host(tensors, config, latent_from_host, biased_from_host)
