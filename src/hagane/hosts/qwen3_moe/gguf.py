"""A qwen3_moe as llama.cpp reads it: experts in every layer, and the weights of the chosen ones always divided by their sum."""

from __future__ import annotations

from hagane.hosts.gguf import Gguf, Metadata, experts_metadata, llama_like
from hagane.model.config import ExpertsConfig, ModelConfig


def reason(config: ModelConfig) -> str | None:
    for index, layer in enumerate(config.layers):
        if not isinstance(layer.ffn, ExpertsConfig):
            return f"llama.cpp's qwen3moe has experts in every layer; layer {index} has ffn.kind = 'dense'"
        if not layer.ffn.normalise:
            return "llama.cpp's qwen3moe divides the weights of the chosen experts by their sum; this model has ffn.normalise = false"
    return None


def metadata(config: ModelConfig) -> Metadata:
    ffn = config.layers[0].ffn
    assert isinstance(ffn, ExpertsConfig)  # `reason` was asked
    # the width of a dense layer is read although there is none: as in config.json
    return llama_like(config, ffn.hidden * ffn.top_k) | experts_metadata(ffn)


GGUF = Gguf("qwen3moe", metadata, reason)
