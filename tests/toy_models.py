"""Tiny random models and a small tokenizer, for every test that generates."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, ExpertsConfig, LayerConfig, ModelConfig, RopeConfig
from hagane.model.decoder import Decoder
from hagane.tokenizer.bpe import train_tokenizer

TEXTS = ["The cat sat on the mat and 12 birds sang.", "三千四百二十一と書いてください。", "Hur många dagar är det till den 3 mars?", "What is 1234 + 987?"] * 20


@cache
def toy_tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 320)


def toy_config(ffn: str = "dense", *, qk_norm: bool = True, tied: bool = True, vocabulary_size: int = 320) -> ModelConfig:
    mixer = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, qk_norm=qk_norm, rope=RopeConfig(theta=10_000.0))
    if ffn == "delta":
        delta = DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=8)
        mixers = [delta, mixer.model_copy(update={"gate": "sigmoid", "partial_rotary": 4})]
        layers = tuple(LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=48)) for mixer in mixers)
        return ModelConfig(vocabulary_size=vocabulary_size, width=32, layers=layers, tied=tied, context=192, init_std=0.3)
    feed = DenseConfig(hidden=48) if ffn == "dense" else ExpertsConfig(num_experts=4, top_k=2, hidden=16)
    return ModelConfig(vocabulary_size=vocabulary_size, width=32, layers=(LayerConfig(mixer=mixer, ffn=feed),) * 2, tied=tied, context=192, init_std=0.3)


def toy_decoder(ffn: str = "dense", seed: int = 0, **settings: object) -> Decoder:
    """Random weights, large enough that greedy text does not repeat one token; norms that are not one, so that forgetting one shows."""
    return randomised(toy_config(ffn, **settings), seed)  # type: ignore[arg-type]


def randomised(config: ModelConfig, seed: int = 0) -> Decoder:
    """A decoder of this shape with such weights."""
    decoder = Decoder(config)
    decoder.init_weights(seed)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return decoder.eval().requires_grad_(False)


def save_model(folder: Path, decoder: Decoder) -> Path:
    """What a training stage leaves: float32 masters and the description of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}, folder / "weights.safetensors")
    (folder / "model.json").write_text(decoder.config.model_dump_json(), encoding="utf-8")
    return folder
