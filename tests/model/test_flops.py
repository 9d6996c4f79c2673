"""Counted FLOPs against torch's own counter, which sees every matrix product and attention that runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hagane.model.config import AttentionConfig, DenseConfig, ExpertsConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.count import batch_flops
from hagane.model.decoder import Decoder
from hagane.model.sequence import Sequence

WIDTH, ROWS, CONTEXT = 64, 2, 128
ATTENTION = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=16)
MIXERS = {
    "attention": ATTENTION,
    "window": ATTENTION.model_copy(update={"window": 32}),
    "gate, partial rotation, norms": ATTENTION.model_copy(update={"gate": "sigmoid", "partial_rotary": 8, "qk_norm": True}),
    "latent": LatentConfig(num_heads=4, query_rank=24, kv_rank=32, nope_dim=16, rope_dim=8, value_dim=24),
    "latent without a rank of queries": LatentConfig(num_heads=4, kv_rank=32, nope_dim=16, rope_dim=8, value_dim=24),
}
FFNS = {
    "dense": DenseConfig(hidden=160),
    "softmax": ExpertsConfig(num_experts=8, top_k=2, hidden=96),
    "sigmoid, shared": ExpertsConfig(num_experts=8, top_k=3, hidden=96, score="sigmoid", balance="bias", shared_hidden=64),
    "shared with a gate": ExpertsConfig(num_experts=8, top_k=2, hidden=96, shared_hidden=64, shared_gate=True),
    "groups": ExpertsConfig(num_experts=8, top_k=2, hidden=96, score="sigmoid", num_groups=4, top_groups=2),
}


def kernels(ffn: DenseConfig | ExpertsConfig) -> dict[object, object]:
    """What our own kernels compute, by the shapes they are given."""

    def grouped(rows: tuple[int, ...], weight: tuple[int, ...], *_: object, **__: object) -> int:
        """Each row meets the matrix of one expert; `rows` are filled up to whole steps, which a model does not ask for."""
        assert rows[0] >= ROWS * CONTEXT * ffn.top_k
        return 2 * ROWS * CONTEXT * ffn.top_k * weight[-1] * weight[-2]

    def attended(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: object, **__: object) -> int:
        """Scores and mixing of every pair of a row: (B, T, H, D)."""
        rows, tokens, heads, width = query
        return 2 * rows * heads * tokens * key[1] * (width + value[3])

    return {torch.ops.hagane.grouped_linear: grouped, torch.ops.hagane.attend_packed: attended}


def counted(config: ModelConfig) -> int:
    """FLOPs of a forward pass over two whole rows, the head included."""
    model = Decoder(config)
    model.init_weights(seed=0)
    token_BT = torch.randint(config.vocabulary_size, (ROWS, CONTEXT), generator=torch.Generator().manual_seed(0))
    position_BT = torch.arange(CONTEXT).expand(ROWS, CONTEXT).contiguous()
    sequence = Sequence(position_BT=position_BT, document_BT=torch.zeros(ROWS, CONTEXT, dtype=torch.long))
    with FlopCounterMode(display=False, custom_mapping=kernels(config.layers[0].ffn)) as counter, torch.no_grad():
        model.head.logits(model(token_BT, sequence).hidden_BTD)
    return counter.get_total_flops()


def config_of(mixer, ffn) -> ModelConfig:
    return ModelConfig(vocabulary_size=300, width=WIDTH, layers=(LayerConfig(mixer=mixer, ffn=ffn),) * 2, context=CONTEXT)


@pytest.mark.parametrize("ffn", FFNS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_every_product_is_counted(mixer, ffn):
    """With every pair of a row counted on both sides: how many of them a query sees is `mean_seen`'s, tested on its own."""
    config = config_of(MIXERS[mixer], FFNS[ffn])
    tokens = ROWS * CONTEXT
    assert batch_flops(config, tokens, tokens, lambda window: tokens * CONTEXT) == counted(config)
