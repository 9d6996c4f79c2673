"""Weights of qwen3_next checkpoints, both ways.

Norms are published as what is added to one, but for the one after Gated DeltaNet; ours hold the sum. The query and the gate of an
attention head stand together in the published matrix.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hagane.hosts.blocks import (
    Weights,
    dense_from_host,
    dense_to_host,
    experts_from_host,
    experts_to_host,
    mixer_from_host,
    mixer_to_host,
    outer_from_host,
    outer_to_host,
    take,
)
from hagane.hosts.qwen3_next.delta import delta_from_host, delta_to_host
from hagane.model.config import AttentionConfig, DeltaConfig, ExpertsConfig, ModelConfig


def around_zero(name: str) -> bool:
    """Whether a published tensor is a norm of what is added to one."""
    return name == "model.norm.weight" or name.endswith(("layernorm.weight", "q_norm.weight", "k_norm.weight"))


def _around_one(name: str) -> bool:
    """Whether a parameter of ours is such a norm, of the sum."""
    return name.endswith("norm.weight") and not name.endswith("output_norm.weight")


def _gate_to_host(weights: Weights, state: Mapping[str, Tensor], mixer: AttentionConfig, index: int) -> Weights:
    """The query's matrix with the gate's rows after those of the same head."""
    for name, tensor in weights:
        if name.endswith("q_proj.weight"):
            heads = [part.reshape(mixer.num_heads, mixer.head_dim, -1) for part in (tensor, state[f"layers.{index}.mixer.gate.weight"])]
            tensor = torch.cat(heads, dim=1).flatten(0, 1)
        yield name, tensor


def _attention_from_host(tensors: Mapping[str, Tensor], config: ModelConfig, mixer: AttentionConfig, index: int) -> Weights:
    for name, tensor in mixer_from_host(tensors, config, index):
        if name.endswith("mixer.qkv.weight"):
            width, others = mixer.num_heads * mixer.head_dim, 2 * mixer.num_kv_heads * mixer.head_dim
            fused, rest = torch.split(tensor, [2 * width, others])
            query, gate = (part.flatten(0, 1) for part in fused.reshape(mixer.num_heads, 2, mixer.head_dim, -1).unbind(1))
            yield f"layers.{index}.mixer.gate.weight", gate
            tensor = torch.cat([query, rest])
        yield name, tensor


def _shared_to_host(state: Mapping[str, Tensor], index: int) -> Weights:
    """The shared expert and its gate."""
    ours, theirs = f"layers.{index}.ffn.", f"model.layers.{index}.mlp."
    gate, up = state[ours + "shared.gate_up.weight"].chunk(2)
    yield theirs + "shared_expert.gate_proj.weight", gate
    yield theirs + "shared_expert.up_proj.weight", up
    yield theirs + "shared_expert.down_proj.weight", state[ours + "shared.down.weight"]
    yield theirs + "shared_expert_gate.weight", state[ours + "shared_gate.weight"]


def _shared_from_host(tensors: Mapping[str, Tensor], index: int) -> Weights:
    ours, theirs = f"layers.{index}.ffn.", f"model.layers.{index}.mlp."
    yield ours + "shared.gate_up.weight", torch.cat([take(tensors, f"{theirs}shared_expert.{part}_proj.weight") for part in ("gate", "up")])
    yield ours + "shared.down.weight", take(tensors, theirs + "shared_expert.down_proj.weight")
    yield ours + "shared_gate.weight", take(tensors, theirs + "shared_expert_gate.weight")


def _named_by_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    yield from outer_to_host(state, config)
    for index, layer in enumerate(config.layers):
        if isinstance(layer.mixer, DeltaConfig):
            yield from delta_to_host(state, layer.mixer, index)
        elif isinstance(layer.mixer, AttentionConfig):
            yield from _gate_to_host(mixer_to_host(state, config, index), state, layer.mixer, index)
        if isinstance(layer.ffn, ExpertsConfig):
            yield from experts_to_host(state, config, index)
            yield from _shared_to_host(state, index)
        else:
            yield from dense_to_host(state, config, index)


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters by canonical name -> (name, tensor) pairs under Hugging Face names."""
    for name, tensor in _named_by_host(state, config):
        yield name, tensor - 1 if around_zero(name) else tensor


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours. Raises DataError when one is missing."""
    for name, tensor in _named_by_us(tensors, config):
        # a sum in bfloat16 would round what is added away
        yield name, tensor.float() + 1 if _around_one(name) else tensor


def _named_by_us(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    yield from outer_from_host(tensors, config)
    for index, layer in enumerate(config.layers):
        if isinstance(layer.mixer, DeltaConfig):
            yield from delta_from_host(tensors, layer.mixer, index)
        elif isinstance(layer.mixer, AttentionConfig):
            yield from _attention_from_host(tensors, config, layer.mixer, index)
        if isinstance(layer.ffn, ExpertsConfig):
            yield from experts_from_host(tensors, layer.ffn.num_experts, index)
            yield from _shared_from_host(tensors, index)
        else:
            yield from dense_from_host(tensors, config, index)
