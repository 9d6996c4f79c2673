"""Weights of deepseek_v3 checkpoints, both ways."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hagane.hosts.blocks import Weights, dense_from_host, dense_to_host, experts_from_host, experts_to_host, outer_from_host, outer_to_host, take
from hagane.hosts.latent import latent_from_host, latent_to_host
from hagane.hosts.mtp import joints_from_host, joints_to_host, rolled, unrolled, unrolled_state
from hagane.model.config import ExpertsConfig, ModelConfig

BIAS = "gate.e_score_correction_bias"


def ffn_to_host(state: Mapping[str, Tensor], config: ModelConfig, index: int) -> Weights:
    """The feed-forward of a layer: dense, or routed experts with their selection bias and the shared expert."""
    ffn = config.layers[index].ffn
    if not isinstance(ffn, ExpertsConfig):
        yield from dense_to_host(state, config, index)
        return
    ours, theirs = f"layers.{index}.ffn.", f"model.layers.{index}.mlp."
    yield from experts_to_host(state, config, index)
    bias_E = state.get(ours + "router.bias_E")  # not there where a loss balances
    yield theirs + BIAS, torch.zeros(ffn.num_experts) if bias_E is None else bias_E
    gate, up = state[ours + "shared.gate_up.weight"].chunk(2)
    yield theirs + "shared_experts.gate_proj.weight", gate
    yield theirs + "shared_experts.up_proj.weight", up
    yield theirs + "shared_experts.down_proj.weight", state[ours + "shared.down.weight"]


def ffn_from_host(tensors: Mapping[str, Tensor], config: ModelConfig, index: int) -> Weights:
    ffn = config.layers[index].ffn
    if not isinstance(ffn, ExpertsConfig):
        yield from dense_from_host(tensors, config, index)
        return
    ours, theirs = f"layers.{index}.ffn.", f"model.layers.{index}.mlp."
    yield from experts_from_host(tensors, ffn.num_experts, index)
    if ffn.balance == "bias":
        yield ours + "router.bias_E", take(tensors, theirs + BIAS)
    yield ours + "shared.gate_up.weight", torch.cat([take(tensors, f"{theirs}shared_experts.{part}_proj.weight") for part in ("gate", "up")])
    yield ours + "shared.down.weight", take(tensors, theirs + "shared_experts.down_proj.weight")


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters and selection biases by canonical name -> (name, tensor) pairs under Hugging Face names, one matrix per expert."""
    yield from outer_to_host(state, config)
    further, whole = unrolled_state(state, config), unrolled(config)
    for index in range(whole.num_layers):
        yield from latent_to_host(further, whole, index)
        yield from ffn_to_host(further, whole, index)
    yield from joints_to_host(state, config)


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours, selection biases among them. Raises DataError when one is missing."""
    yield from outer_from_host(tensors, config)
    whole = unrolled(config)
    for index in range(whole.num_layers):
        yield from rolled(latent_from_host(tensors, whole, index), config)
        yield from rolled(ffn_from_host(tensors, whole, index), config)
    yield from joints_from_host(tensors, config)
