"""Weights of llama-like blocks under Hugging Face names, both ways. Ours keeps q, k, v and gate, up in one matrix each; they split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from hagane.errors import DataError
from hagane.hosts.base import attention
from hagane.hosts.mtp import joints_from_host, joints_to_host, rolled, unrolled, unrolled_state
from hagane.model.config import AttentionConfig, ExpertsConfig, ModelConfig

Weights = Iterator[tuple[str, Tensor]]
Part = Callable[[Mapping[str, Tensor], ModelConfig, int], Weights]  # weights, model, index of the layer

_RENAMED = {
    "mixer_norm.weight": "input_layernorm.weight",
    "mixer.output.weight": "self_attn.o_proj.weight",
    "mixer.query_norm.weight": "self_attn.q_norm.weight",
    "mixer.key_norm.weight": "self_attn.k_norm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}


def take(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor that must be there."""
    try:
        return tensors[name]
    except KeyError:
        raise DataError(f"the checkpoint has no tensor {name}: it is incomplete, or of another architecture than config.json says. Fetch it again.") from None


def outer_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Embedding, final norm and, unless tied, head."""
    yield "model.embed_tokens.weight", state["embedding.weight"]
    yield "model.norm.weight", state["norm.weight"]
    if not config.tied:
        yield "lm_head.weight", state["head.weight"]


def outer_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    yield "embedding.weight", take(tensors, "model.embed_tokens.weight")
    yield "norm.weight", take(tensors, "model.norm.weight")
    if not config.tied:
        yield "head.weight", take(tensors, "lm_head.weight")


def _renamed(mixer: AttentionConfig, names: Mapping[str, str]) -> dict[str, str]:
    return {ours: theirs for ours, theirs in names.items() if mixer.qk_norm or not ours.endswith(("query_norm.weight", "key_norm.weight"))}


def mixer_to_host(state: Mapping[str, Tensor], config: ModelConfig, index: int, names: Mapping[str, str] = _RENAMED) -> Weights:
    """Attention and the norms of a layer; `names` of all that is not queries, keys and values."""
    mixer, ours, theirs = attention(config, index), f"layers.{index}.", f"model.layers.{index}."
    sizes = [mixer.num_heads * mixer.head_dim] + [mixer.num_kv_heads * mixer.head_dim] * 2
    for letter, part in zip("qkv", torch.split(state[ours + "mixer.qkv.weight"], sizes), strict=True):
        yield f"{theirs}self_attn.{letter}_proj.weight", part
    for source, target in _renamed(mixer, names).items():
        yield theirs + target, state[ours + source]


def mixer_from_host(tensors: Mapping[str, Tensor], config: ModelConfig, index: int, names: Mapping[str, str] = _RENAMED) -> Weights:
    ours, theirs = f"layers.{index}.", f"model.layers.{index}."
    yield ours + "mixer.qkv.weight", torch.cat([take(tensors, f"{theirs}self_attn.{letter}_proj.weight") for letter in "qkv"])
    for target, source in _renamed(attention(config, index), names).items():
        yield ours + target, take(tensors, theirs + source)


def dense_to_host(state: Mapping[str, Tensor], config: ModelConfig, index: int, part: tuple[str, str] = ("", "")) -> Weights:
    """The SwiGLU feed-forward of a layer, or the `part` of it that is one."""
    ours, theirs = f"layers.{index}.ffn.{part[0]}", f"model.layers.{index}.mlp.{part[1]}"
    gate, up = state[ours + "gate_up.weight"].chunk(2)
    yield theirs + "gate_proj.weight", gate
    yield theirs + "up_proj.weight", up
    yield theirs + "down_proj.weight", state[ours + "down.weight"]


def dense_from_host(tensors: Mapping[str, Tensor], config: ModelConfig, index: int, part: tuple[str, str] = ("", "")) -> Weights:
    ours, theirs = f"layers.{index}.ffn.{part[0]}", f"model.layers.{index}.mlp.{part[1]}"
    yield ours + "gate_up.weight", torch.cat([take(tensors, f"{theirs}{half}_proj.weight") for half in ("gate", "up")])
    yield ours + "down.weight", take(tensors, theirs + "down_proj.weight")


def experts_to_host(state: Mapping[str, Tensor], config: ModelConfig, index: int, router: str = "gate.weight") -> Weights:
    """Router and experts of a layer, one matrix per expert as in published checkpoints (transformers fuses them on loading)."""
    ours, theirs = f"layers.{index}.ffn.", f"model.layers.{index}.mlp."
    yield theirs + router, state[ours + "router.weight"]
    for expert, (gate_up, down) in enumerate(zip(state[ours + "gate_up"], state[ours + "down"], strict=True)):
        gate, up = gate_up.chunk(2)
        yield f"{theirs}experts.{expert}.gate_proj.weight", gate
        yield f"{theirs}experts.{expert}.up_proj.weight", up
        yield f"{theirs}experts.{expert}.down_proj.weight", down


def experts_from_host(tensors: Mapping[str, Tensor], num_experts: int, index: int, router: str = "gate.weight") -> Weights:
    """From one matrix per expert, or from the fused form that transformers holds in memory."""
    ours, theirs = f"layers.{index}.ffn.", f"model.layers.{index}.mlp."
    yield ours + "router.weight", take(tensors, theirs + router)
    if theirs + "experts.gate_up_proj" in tensors:
        yield ours + "gate_up", tensors[theirs + "experts.gate_up_proj"]
        yield ours + "down", take(tensors, theirs + "experts.down_proj")
        return
    names = [f"{theirs}experts.{expert}." for expert in range(num_experts)]
    pairs = [torch.cat([take(tensors, f"{name}{part}_proj.weight") for part in ("gate", "up")]) for name in names]
    yield ours + "gate_up", torch.stack(pairs)
    yield ours + "down", torch.stack([take(tensors, name + "down_proj.weight") for name in names])


SHARED = ("shared.", "shared_experts.")
CORRECTION = "gate.e_score_correction_bias"


def biased_to_host(state: Mapping[str, Tensor], config: ModelConfig, index: int, router: str = "gate.weight", bias: str = CORRECTION) -> Weights:
    """The feed-forward of a layer of a host whose experts have a selection bias (zero where ours is balanced by a loss) and shared ones."""
    ffn = config.layers[index].ffn
    if not isinstance(ffn, ExpertsConfig):
        yield from dense_to_host(state, config, index)
        return
    yield from experts_to_host(state, config, index, router)
    yield from dense_to_host(state, config, index, SHARED)
    yield f"model.layers.{index}.mlp.{bias}", state[f"layers.{index}.ffn.router.bias_E"] if ffn.balance == "bias" else torch.zeros(ffn.num_experts)


def biased_from_host(tensors: Mapping[str, Tensor], config: ModelConfig, index: int, router: str = "gate.weight", bias: str = CORRECTION) -> Weights:
    ffn = config.layers[index].ffn
    if not isinstance(ffn, ExpertsConfig):
        yield from dense_from_host(tensors, config, index)
        return
    yield from experts_from_host(tensors, ffn.num_experts, index, router)
    yield from dense_from_host(tensors, config, index, SHARED)
    if ffn.balance == "bias":
        yield f"layers.{index}.ffn.router.bias_E", take(tensors, f"model.layers.{index}.mlp.{bias}")


def modular_to_host(state: Mapping[str, Tensor], config: ModelConfig, mixer: Part, ffn: Part) -> Weights:
    """A whole model, in a host that keeps the modules for multi-token prediction as layers behind the last one: `mixer` and `ffn` of each."""
    yield from outer_to_host(state, config)
    further, whole = unrolled_state(state, config), unrolled(config)
    for index in range(whole.num_layers):
        yield from mixer(further, whole, index)
        yield from ffn(further, whole, index)
    yield from joints_to_host(state, config)


def modular_from_host(tensors: Mapping[str, Tensor], config: ModelConfig, mixer: Part, ffn: Part) -> Weights:
    """The way back. Raises DataError when a tensor is missing."""
    yield from outer_from_host(tensors, config)
    whole = unrolled(config)
    for index in range(whole.num_layers):
        yield from rolled(mixer(tensors, whole, index), config)
        yield from rolled(ffn(tensors, whole, index), config)
    yield from joints_from_host(tensors, config)
