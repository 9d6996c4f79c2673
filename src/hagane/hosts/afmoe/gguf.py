"""An afmoe as llama.cpp reads it: three windowed layers, then one that sees the whole document, and embeddings always scaled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hagane.hosts.base import attention, dense_of, routed_of
from hagane.hosts.gguf import Gguf, Metadata, biased, llama_like, sigmoid_metadata
from hagane.hosts.sigmoid import width_fields
from hagane.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

PERIOD = 4  # layers from one that sees the whole document to the next; it turns heads in all others, whatever the file says


def reason(config: ModelConfig) -> str | None:
    for index in range(config.num_layers):
        whole = attention(config, index).window is None
        if whole != ((index + 1) % PERIOD == 0):
            said = "no window" if whole else "mixer.window"
            return f"llama.cpp's afmoe sees the whole document in every fourth layer and no other (model.pattern.full_every = 4); layer {index} has {said}"
    return None


def metadata(config: ModelConfig) -> Metadata:
    window = attention(config).window
    assert window is not None, "`reason` was asked"
    swa = {"attention.sliding_window": window, "attention.sliding_window_pattern": PERIOD}
    return llama_like(config, width_fields(config)["intermediate_size"]) | sigmoid_metadata(routed_of(config)[0], len(dense_of(config))) | swa


def adapt(name: str, tensor: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Embeddings that are not scaled are written smaller by what llama.cpp multiplies them with, and a head that shares them apart."""
    if name != "model.embed_tokens.weight" or config.embedding_scale != 1.0:
        yield from biased(name, tensor, config)
        return
    yield name, tensor * config.width**-0.5
    if config.tied:
        yield "lm_head.weight", tensor


GGUF = Gguf("afmoe", metadata, reason, adapt)
