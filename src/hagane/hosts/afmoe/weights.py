"""Weights of afmoe checkpoints, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hagane.hosts.blocks import Weights, biased_from_host, biased_to_host, mixer_from_host, mixer_to_host, outer_from_host, outer_to_host
from hagane.model.config import ModelConfig

NAMES = {
    "mixer_norm.weight": "input_layernorm.weight",
    "mixer.output.weight": "self_attn.o_proj.weight",
    "mixer.gate.weight": "self_attn.gate_proj.weight",
    "mixer.query_norm.weight": "self_attn.q_norm.weight",
    "mixer.key_norm.weight": "self_attn.k_norm.weight",
    "post_mixer_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_mlp_layernorm.weight",
    "post_ffn_norm.weight": "post_mlp_layernorm.weight",
}
ROUTER, BIAS = "router.gate.weight", "expert_bias"


def weights_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters by canonical name -> (name, tensor) pairs under Hugging Face names, one matrix per expert. Parts are views of ours."""
    yield from outer_to_host(state, config)
    for index in range(config.num_layers):
        yield from mixer_to_host(state, config, index, NAMES)
        yield from biased_to_host(state, config, index, ROUTER, BIAS)


def weights_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Published tensors by name -> ours. Raises DataError when one is missing."""
    yield from outer_from_host(tensors, config)
    for index in range(config.num_layers):
        yield from mixer_from_host(tensors, config, index, NAMES)
        yield from biased_from_host(tensors, config, index, ROUTER, BIAS)
