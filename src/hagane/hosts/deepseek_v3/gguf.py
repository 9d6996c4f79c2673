"""A deepseek_v3 as llama.cpp reads it: its deepseek2 in the absorbed form, one latent key for all heads.

llama.cpp norms the latents with the model's epsilon, where published code has one of its own, and scales the scores of interpolated positions in
its own way. Both are made up for in the weights, exactly: a norm does not see by how much its input was multiplied but through epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hagane.hosts.base import dense_of, routed_of
from hagane.hosts.gguf import Gguf, Metadata, biased, outer_metadata, rope_metadata, sigmoid_metadata
from hagane.hosts.sigmoid import width_fields
from hagane.model.config import LatentConfig, ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

LITE_LAYERS = (26, 27)  # by which llama.cpp tells DeepSeek-V2-Lite and its like, whose queries have no latent vector


def _mixer(config: ModelConfig) -> LatentConfig:
    mixer = config.layers[0].mixer
    assert isinstance(mixer, LatentConfig), "can_hold is asked first"
    return mixer


def reason(config: ModelConfig) -> str | None:
    if _mixer(config).query_rank is not None and config.num_layers in LITE_LAYERS:
        return f"llama.cpp's deepseek2 takes a model of {config.num_layers} layers for one without mixer.query_rank; this model has it"
    return None


def metadata(config: ModelConfig) -> Metadata:
    mixer, routed, dense = _mixer(config), routed_of(config), dense_of(config)
    # widths of experts are read although there are none
    experts = sigmoid_metadata(routed[0], len(dense)) if routed else {
        "expert_feed_forward_length": dense[0].hidden, "expert_shared_count": 0, "leading_dense_block_count": len(dense)
    }  # fmt: skip
    yarn = mixer.rope.yarn
    return {
        **outer_metadata(config, width_fields(config)["intermediate_size"] if routed else dense[0].hidden),
        "attention.head_count": mixer.num_heads,
        "attention.head_count_kv": 1,
        "attention.key_length": mixer.kv_rank + mixer.rope_dim,
        "attention.value_length": mixer.kv_rank,
        "attention.key_length_mla": mixer.qk_dim,
        "attention.value_length_mla": mixer.value_dim,
        "attention.q_lora_rank": mixer.query_rank or 0,
        "attention.kv_lora_rank": mixer.kv_rank,
        **rope_metadata(mixer.rope, mixer.rope_dim),
        **({} if yarn is None else {"rope.scaling.yarn_log_multiplier": 0.1 * _log_multiplier(mixer)}),
        **experts,
    }


def _log_multiplier(mixer: LatentConfig) -> float:
    """Without one llama.cpp makes what is turned longer; with any it does not, and scales scores by the square of 0.1 · this · ln(factor) + 1."""
    assert mixer.rope.yarn is not None
    return mixer.rope.yarn.mscale_all_dim or 1.0


def query_scales(mixer: LatentConfig) -> tuple[float, float]:
    """What the plain and the turned part of a query must be multiplied with for llama.cpp's scores to be ours."""
    rope = mixer.rope
    if rope.linear is not None:
        return ((1 + 0.1 * math.log(rope.linear)) ** -2,) * 2
    if rope.yarn is None:
        return 1.0, 1.0
    plain = rope.yarn.score_factor / (1 + 0.1 * _log_multiplier(mixer) * math.log(rope.yarn.factor)) ** 2
    return plain, plain * rope.yarn.rotation_factor**2


def adapt(name: str, tensor: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    import torch

    from hagane.model.latent import LATENT_EPSILON

    mixer, stretch = _mixer(config), (config.norm_epsilon / LATENT_EPSILON) ** 0.5
    if name.endswith("self_attn.q_a_proj.weight"):
        yield name, tensor * stretch
    elif name.endswith("self_attn.kv_a_proj_with_mqa.weight"):
        latent, shared = torch.split(tensor, [mixer.kv_rank, mixer.rope_dim])
        yield name, torch.cat((latent * stretch, shared))
    elif name.endswith(("self_attn.q_b_proj.weight", "self_attn.q_proj.weight")):
        parts = torch.split(tensor.reshape(mixer.num_heads, mixer.qk_dim, -1), [mixer.nope_dim, mixer.rope_dim], dim=1)
        yield name, torch.cat([part * scale for part, scale in zip(parts, query_scales(mixer), strict=True)], dim=1).flatten(0, 1)
    elif name.endswith("self_attn.kv_b_proj.weight"):
        heads = tensor.reshape(mixer.num_heads, mixer.nope_dim + mixer.value_dim, -1)
        key, value = torch.split(heads, [mixer.nope_dim, mixer.value_dim], dim=1)
        yield name.replace("kv_b_proj", "k_b_proj"), key.transpose(1, 2)
        yield name.replace("kv_b_proj", "v_b_proj"), value
    else:
        yield from biased(name, tensor, config)


GGUF = Gguf("deepseek2", metadata, reason, adapt, any_yarn=True)
