"""A qwen3 as llama.cpp reads it: every layer sees the whole text."""

from __future__ import annotations

from hagane.hosts.gguf import Gguf, Metadata, llama_like
from hagane.model.config import ModelConfig


def reason(config: ModelConfig) -> str | None:
    index = next((index for index, layer in enumerate(config.layers) if layer.mixer.window is not None), None)
    return None if index is None else f"llama.cpp's qwen3 has no sliding window; layer {index} has window = {config.layers[index].mixer.window}"


def metadata(config: ModelConfig) -> Metadata:
    return llama_like(config, config.layers[0].ffn.hidden)


GGUF = Gguf("qwen3", metadata, reason)
