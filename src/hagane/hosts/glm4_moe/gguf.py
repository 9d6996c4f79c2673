"""A glm4_moe as llama.cpp reads it: the same, part of each head turned, groups of experts too."""

from __future__ import annotations

from hagane.hosts.base import dense_of, routed_of
from hagane.hosts.gguf import Gguf, Metadata, biased, llama_like, sigmoid_metadata
from hagane.hosts.sigmoid import width_fields
from hagane.model.config import ModelConfig


def metadata(config: ModelConfig) -> Metadata:
    return llama_like(config, width_fields(config)["intermediate_size"]) | sigmoid_metadata(routed_of(config)[0], len(dense_of(config)))


GGUF = Gguf("glm4moe", metadata, adapt=biased)
