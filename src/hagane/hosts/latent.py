"""Weights of latent attention under DeepSeek's names, both ways.

Published checkpoints turn neighbouring dimensions against each other, ours turn the two halves: the rows that make rotated
dimensions stand in another order, which scores, sums over all of them, do not see.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hagane.hosts.blocks import Weights, take
from hagane.model.config import LatentConfig, LayerConfig, ModelConfig

_RENAMED = {
    "mixer.kv_norm.weight": "self_attn.kv_a_layernorm.weight",
    "mixer.kv_up.weight": "self_attn.kv_b_proj.weight",
    "mixer.output.weight": "self_attn.o_proj.weight",
}
_QUERY_NORM = {"mixer.query_norm.weight": "self_attn.q_a_layernorm.weight"}
_NORMS = {"mixer_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_GATED_NORM = {".norm.weight": ".norm.weight", ".down.weight": ".W_down.weight", ".up.weight": ".W_up.weight"}  # A.X K2's
_IN_MEMORY = {".W_down.": ".mlp.fc1.", ".W_up.": ".mlp.fc2.", ".q_b_proj.": ".q_gate_proj."}  # as transformers calls them of A.X K2, not as they are published


def _neighbours(rows: Tensor, *, back: bool = False) -> Tensor:
    """(..., P, inputs): dimension i beside dimension i + P/2, or `back` to halves."""
    if back:
        return torch.cat((rows[..., 0::2, :], rows[..., 1::2, :]), dim=-2)
    first, second = rows.chunk(2, dim=-2)
    return torch.stack((first, second), dim=-2).flatten(-3, -2)


def _rotated_last(matrix: Tensor, mixer: LatentConfig, num_heads: int, *, back: bool = False) -> Tensor:
    """The last rope_dim rows of every head of a matrix in the other order."""
    heads = matrix.reshape(num_heads, -1, matrix.shape[-1])
    kept = heads.shape[1] - mixer.rope_dim
    return torch.cat((heads[:, :kept], _neighbours(heads[:, kept:], back=back)), dim=1).flatten(0, 1)


def _renamed(mixer: LatentConfig, layer: LayerConfig) -> dict[str, str]:
    names = _RENAMED | (_QUERY_NORM if mixer.query_rank else {})
    for (ours, theirs), rank in zip(_NORMS.items(), (layer.mixer_norm_rank, layer.ffn_norm_rank), strict=True):
        names |= {ours + part: theirs + of_theirs for part, of_theirs in (_GATED_NORM if rank else {".weight": ".weight"}).items()}
    return names


def _fused(query: Tensor, gate: Tensor, mixer: LatentConfig) -> Tensor:
    """Queries and gate as A.X K2 has them in one matrix: of every head the queries' rows, then the gate's."""
    heads = [matrix.view(mixer.num_heads, -1, matrix.shape[-1]) for matrix in (query, gate)]
    return torch.cat(heads, dim=1).flatten(0, 1)


def _parted(fused: Tensor, mixer: LatentConfig) -> tuple[Tensor, Tensor]:
    """The way back: queries, gate."""
    query, gate = torch.split(fused.view(mixer.num_heads, -1, fused.shape[-1]), [mixer.qk_dim, mixer.value_dim], dim=1)
    return query.flatten(0, 1), gate.flatten(0, 1)


def _mixer(config: ModelConfig, index: int) -> LatentConfig:
    mixer = config.layers[index].mixer
    assert isinstance(mixer, LatentConfig), "can_hold is asked first"
    return mixer


def latent_to_host(state: Mapping[str, Tensor], config: ModelConfig, index: int) -> Weights:
    """Latent attention and both norms of a layer."""
    mixer, ours, theirs = _mixer(config, index), f"layers.{index}.", f"model.layers.{index}."
    down = state[ours + "mixer.down.weight"]
    if mixer.query_rank:
        yield theirs + "self_attn.q_a_proj.weight", down[: mixer.query_rank]
        down = down[mixer.query_rank :]
    source, target = ("query_up", "q_b_proj") if mixer.query_rank else ("query", "q_proj")
    query = _rotated_last(state[f"{ours}mixer.{source}.weight"], mixer, mixer.num_heads)
    yield f"{theirs}self_attn.{target}.weight", query if mixer.gate == "none" else _fused(query, state[ours + "mixer.gate.weight"], mixer)
    yield theirs + "self_attn.kv_a_proj_with_mqa.weight", _rotated_last(down, mixer, 1)
    for source, target in _renamed(mixer, config.layers[index]).items():
        yield theirs + target, state[ours + source]


def latent_from_host(tensors: Mapping[str, Tensor], config: ModelConfig, index: int) -> Weights:
    mixer, ours, theirs = _mixer(config, index), f"layers.{index}.", f"model.layers.{index}."
    down = [_rotated_last(take(tensors, theirs + "self_attn.kv_a_proj_with_mqa.weight"), mixer, 1, back=True)]
    if mixer.query_rank:
        down = [take(tensors, theirs + "self_attn.q_a_proj.weight"), *down]
    yield ours + "mixer.down.weight", torch.cat(down)
    target, source = ("query_up", "q_b_proj") if mixer.query_rank else ("query", "q_proj")
    query = _either(tensors, f"{theirs}self_attn.{source}.weight")
    if mixer.gate == "sigmoid":
        query, gate = _parted(query, mixer)
        yield ours + "mixer.gate.weight", gate
    yield f"{ours}mixer.{target}.weight", _rotated_last(query, mixer, mixer.num_heads, back=True)
    for target, source in _renamed(mixer, config.layers[index]).items():
        yield ours + target, _either(tensors, theirs + source)


def _either(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor under its published name, or under that of transformers' modules."""
    for published, in_memory in _IN_MEMORY.items():
        if published in name and name not in tensors and name.replace(published, in_memory) in tensors:
            return tensors[name.replace(published, in_memory)]
    return take(tensors, name)
