"""Tiny models of every kind, and batches of packed documents."""

import pytest
import torch

from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, ExpertsConfig, IndexConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.decoder import Decoder

DENSE = DenseConfig(hidden=40)
EXPERTS = ExpertsConfig(num_experts=6, top_k=2, hidden=20)
SIGMOID = ExpertsConfig(num_experts=8, top_k=3, hidden=20, score="sigmoid", balance="bias", shared_hidden=20, num_groups=4, top_groups=2, scaling=2.0)
DELTA = DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=6)


def tiny_config(kind="dense", *, window=None, num_layers=2, tied=False, qk_norm=True, head_dim=8, query_ranks=(None, 10), **experts):
    """kind: dense, experts, latent (before dense), indexed (latent, by a fixed number of keys and by an adaptive one), gated (latent
    with gates on values and norms), delta (every second layer, from the first) or sandwich (all that afmoe has).

    window: of every second layer, from the first; query_ranks likewise.
    """
    ffn = EXPERTS.model_copy(update=experts) if kind == "experts" else DENSE
    mixers = [AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=head_dim, qk_norm=qk_norm, window=w) for w in (window, None)]
    if kind == "latent":
        mixers = [
            LatentConfig(num_heads=4, query_rank=rank, kv_rank=12, nope_dim=head_dim, rope_dim=4, value_dim=head_dim) for rank in query_ranks
        ]
    if kind == "indexed":
        indexers = [IndexConfig(num_heads=8, head_dim=6, top_k=3, share=share) for share in (None, 0.6)]
        mixers = [LatentConfig(num_heads=4, query_rank=10, kv_rank=12, nope_dim=head_dim, rope_dim=4, value_dim=head_dim, index=index) for index in indexers]
    if kind == "gated":
        gate = {"gate": "sigmoid", "query_rank": 10}
        mixers = [LatentConfig(num_heads=4, kv_rank=12, nope_dim=head_dim, rope_dim=4, value_dim=head_dim, **gate)] * 2
    if kind == "delta":
        mixers = [DELTA, mixers[1].model_copy(update={"gate": "sigmoid", "partial_rotary": head_dim // 2})]
    ranks = {"mixer_norm_rank": 4, "ffn_norm_rank": 6} if kind == "gated" else {}
    layers = tuple(LayerConfig(mixer=mixers[index % 2], ffn=ffn, **ranks) for index in range(num_layers))
    if kind == "sandwich":
        sigmoid = SIGMOID.model_copy(update=experts)
        gated = [mixer.model_copy(update={"gate": "sigmoid", **({} if mixer.window else {"rope": None})}) for mixer in mixers]
        layers = tuple(LayerConfig(mixer=gated[index % 2], ffn=sigmoid, post_mixer_norm=True, post_ffn_norm=True) for index in range(num_layers))
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
