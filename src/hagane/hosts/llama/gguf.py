"""A llama as llama.cpp reads it: its rotary positions pair neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hagane.hosts.base import attention
from hagane.hosts.gguf import Gguf, Metadata, interleaved, llama_like
from hagane.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor


def metadata(config: ModelConfig) -> Metadata:
    return llama_like(config, config.layers[0].ffn.hidden)


def adapt(name: str, tensor: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    mixer = attention(config)
    heads = {"q_proj.weight": mixer.num_heads, "k_proj.weight": mixer.num_kv_heads}
    num_heads = next((count for ending, count in heads.items() if name.endswith(ending)), None)
    yield name, tensor if num_heads is None else interleaved(tensor, num_heads)


GGUF = Gguf("llama", metadata, adapt=adapt)
