"""Tiny models of every kind, and batches of packed documents."""

import pytest
import torch

from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, ExpertsConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.decoder import Decoder

DENSE = DenseConfig(hidden=40)
EXPERTS = ExpertsConfig(num_experts=6, top_k=2, hidden=20)
DELTA = DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=6)


def tiny_config(kind="dense", *, window=None, num_layers=2, tied=False, qk_norm=True, head_dim=8, query_ranks=(None, 10), **experts):
    """kind: dense, experts, latent (attention, before dense) or delta (every second layer, from the first); window: of these layers; query_ranks likewise."""
    ffn = EXPERTS.model_copy(update=experts) if kind == "experts" else DENSE
    mixers = [AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=head_dim, qk_norm=qk_norm, window=w) for w in (window, None)]
    if kind == "latent":
        mixers = [
            LatentConfig(num_heads=4, query_rank=rank, kv_rank=12, nope_dim=head_dim, rope_dim=4, value_dim=head_dim) for rank in query_ranks
        ]
    if kind == "delta":
        mixers = [DELTA, mixers[1].model_copy(update={"gate": "sigmoid", "partial_rotary": head_dim // 2})]
    layers = tuple(LayerConfig(mixer=mixers[index % 2], ffn=ffn) for index in range(num_layers))
    return ModelConfig(vocabulary_size=61, width=24, layers=layers, tied=tied, context=64, init_std=0.2)


def build(config, seed=0):
    model = Decoder(config)
    model.init_weights(seed)
    with torch.no_grad():  # norm weights that are not one, so that forgetting one shows
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.fixture(scope="session")
def config():
    """config(kind, **settings) -> a tiny ModelConfig."""
    return tiny_config


@pytest.fixture(scope="session")
def tiny():
    """tiny(kind, **settings) -> a Decoder with random weights."""
    return lambda kind="dense", seed=0, **settings: build(tiny_config(kind, **settings), seed)
