"""Counted FLOPs against torch's own counter, which sees every product and attention that runs: forward, and a whole step as the stepper takes it.

What is computed beyond what a model needs is stated where it is counted. Elementwise products, such as the convolution of Gated DeltaNet, are seen by no
counter.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hagane.data.batch import Batch
from hagane.data.source import StepData
from hagane.model import count, experts
from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, ExpertsConfig, IndexConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.count import batch_flops, mean_seen, mixer_counts, parts, training_flops
from hagane.model.decoder import Decoder
from hagane.model.sequence import Sequence
from hagane.plan.cost import training_flops_per_token
from hagane.recipe.types import Phase
from hagane.train.health import SAMPLED
from hagane.train.stepper import Stepper, StepResult

WIDTH, ROWS, CONTEXT = 64, 2, 128
TOKENS = ROWS * CONTEXT
ATTENTION = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=16)
MIXERS = {
    "attention": ATTENTION,
    "window": ATTENTION.model_copy(update={"window": 32}),
    "gate, partial rotation, norms": ATTENTION.model_copy(update={"gate": "sigmoid", "partial_rotary": 8, "qk_norm": True}),
    "latent": LatentConfig(num_heads=4, query_rank=24, kv_rank=32, nope_dim=16, rope_dim=8, value_dim=24),
    "latent without a rank of queries": LatentConfig(num_heads=4, kv_rank=32, nope_dim=16, rope_dim=8, value_dim=24),
    "delta": DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=16, value_dim=8),
}
FFNS = {
    "dense": DenseConfig(hidden=160),
    "softmax": ExpertsConfig(num_experts=8, top_k=2, hidden=96),
    "sigmoid, shared": ExpertsConfig(num_experts=8, top_k=3, hidden=96, score="sigmoid", balance="bias", shared_hidden=64),
    "shared with a gate": ExpertsConfig(num_experts=8, top_k=2, hidden=96, shared_hidden=64, shared_gate=True),
    "groups": ExpertsConfig(num_experts=8, top_k=2, hidden=96, score="sigmoid", num_groups=4, top_groups=2),
}
PAIRS = TOKENS * CONTEXT  # those of a row that no query sees included: the counter takes products whole
TOP_K = 40
INDEXED = LatentConfig(
    num_heads=4, query_rank=24, kv_rank=32, nope_dim=16, rope_dim=8, value_dim=24, index=IndexConfig(num_heads=3, head_dim=16, top_k=TOP_K)
)
NULL = ExpertsConfig(num_experts=8, top_k=3, hidden=96, null_experts=4, mean_experts=1.75)


def attended(query, key, value, *_, **__):
    """Scores and mixing of every pair of a row: (B, T, H, D)."""
    rows, tokens, heads, width = query
    return 2 * rows * heads * tokens * key[1] * (width + value[3])


def attended_backward(gradient, *rest, **_):
    """Two products for each of the forward pass; that the scores are made again is the kernel's saving of memory."""
    return 2 * attended(*rest)


def scanned(wanted, reading, key, *_, **__):
    """The state of every chunk read and written: (N, B, V, C, W) and (N, B, V, C, H)."""
    return 2 * 2 * torch.Size(wanted).numel() * key[-1]


def scanned_backward(d_written, d_states, d_end, reading, key, whole, written, *_, **__):
    return 2 * scanned(written, reading, key)


def raw(formula):
    """A formula that is given tensors, not their shapes."""
    formula._get_raw = True
    return formula


def grouped(rows, weight, end, transpose, **_):
    return 2 * int(end[-1]) * weight.shape[1] * weight.shape[2]


def grouped_outer(left, right, end, **_):
    return 2 * int(end[-1]) * left.shape[1] * right.shape[1]


def product(left, right, **_):
    """But for float64: the running sum of decays, made by a product."""
    return 0 if left.dtype == torch.float64 else 2 * left.numel() * right.shape[-1]


ops, aten = torch.ops.hagane, torch.ops.aten
KERNELS = {
    ops.grouped_linear: raw(grouped), ops.grouped_outer: raw(grouped_outer), ops.attend_packed: attended, ops.attend_packed_backward: attended_backward,
    ops.attend_chosen: attended, ops.attend_chosen_backward: attended_backward, ops.delta_scan: scanned, ops.delta_scan_backward: scanned_backward,
    aten.linalg_solve_triangular: lambda system, right, **_: torch.Size(right).numel() * 2 * system[-1],  # as if of a whole square
    aten.addmm_: lambda total, left, right, **_: 2 * left[0] * left[1] * right[1],
    aten.mm: raw(product), aten.bmm: raw(product),
}  # fmt: skip


@pytest.fixture(autouse=True)
def whole_squares(monkeypatch):
    """Rows of experts are not filled up, and of a chunk of Gated DeltaNet every pair is counted on both sides."""
    monkeypatch.setattr(experts, "row_step", lambda *_: 1)
    monkeypatch.setattr(count, "_met", lambda mixer: mixer.chunk)
    mixer_counts.cache_clear()
    yield
    mixer_counts.cache_clear()


def forward(config: ModelConfig) -> int:
    """FLOPs of a forward pass over two whole rows, the head included."""
    model = Decoder(config)
    model.init_weights(seed=0)
    token_BT = torch.randint(config.vocabulary_size, (ROWS, CONTEXT), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False, custom_mapping=KERNELS) as counter, torch.no_grad():
        model.head.logits(model(token_BT, Sequence.plain(ROWS, CONTEXT)).hidden_BTD)
    return counter.get_total_flops()


def config_of(mixer, ffn) -> ModelConfig:
    return ModelConfig(vocabulary_size=300, width=WIDTH, layers=(LayerConfig(mixer=mixer, ffn=ffn),) * 2, context=CONTEXT)


def step(config: ModelConfig, index="sparse") -> tuple[float, StepResult]:
    """FLOPs of one training step over two whole rows, and its result."""
    generator = torch.Generator().manual_seed(0)
    token_BT, target_BT = (torch.randint(config.vocabulary_size, (ROWS, CONTEXT), generator=generator) for _ in range(2))
    position_BT = torch.arange(CONTEXT).expand(ROWS, CONTEXT).contiguous()
    document_BT, weight_BT = torch.zeros(ROWS, CONTEXT, dtype=torch.int32), torch.ones(ROWS, CONTEXT)
    sources = torch.zeros(ROWS, dtype=torch.int32)
    batch = Batch(token_BT, target_BT, weight_BT, position_BT, document_BT, sources, ("text",), (0, 1), (0, 1), float(TOKENS), TOKENS)
    stepper = Stepper(config, device="cpu", dtype="float32", compiled=False, seed=0)
    phase = Phase(
        name="pretrain", collection="text", mixture={"text": 1.0}, context=CONTEXT, rows=ROWS, accumulation=1, num_steps=1, learning_rate=1e-3, index=index
    )
    with FlopCounterMode(display=False, custom_mapping=KERNELS) as counter:
        result = stepper.step(StepData(0, (batch,), float(TOKENS), TOKENS), phase, 1e-3)
    return counter.get_total_flops(), result


def expected(config: ModelConfig, index="sparse") -> float:
    return training_flops(config, TOKENS, TOKENS, lambda limit: PAIRS, index)


@pytest.mark.parametrize("ffn", FFNS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_every_product_is_counted_and_a_step_is_three_forward_passes(mixer, ffn):
    """With every pair of a row counted on both sides: how many of them a query sees is `mean_seen`'s, tested on its own."""
    config = config_of(MIXERS[mixer], FFNS[ffn])
    convolution = 2 * 2 * TOKENS * MIXERS[mixer].channels * MIXERS[mixer].taps if mixer == "delta" else 0  # element by element: no counter sees it
    assert forward(config) == batch_flops(config, TOKENS, TOKENS, lambda limit: PAIRS) - convolution
    assert step(config)[0] == expected(config) - 3 * convolution == 3 * forward(config)


def test_modules_for_further_tokens_are_counted():
    layer = LayerConfig(mixer=ATTENTION, ffn=FFNS["softmax"])
    config = config_of(ATTENTION, FFNS["dense"]).model_copy(update={"mtp_layers": (layer, layer)})
    assert step(config)[0] == expected(config)


def test_null_experts_cost_what_was_chosen():
    """The plan counts the mean that they are to leave; a step's own count differs by the experts that it used."""
    config = config_of(ATTENTION, NULL)
    flops, result = step(config)
    used = sum(float(layer.count_E.sum()) for layer in result.stats.layers if layer is not None)
    planned = 2 * TOKENS * NULL.mean_used
    looked_at = 2 * min(SAMPLED, TOKENS) * config.vocabulary_size * WIDTH  # logits of a sample once more, for the meter
    assert used != planned
    assert flops == expected(config) + 3 * 2 * 3 * WIDTH * NULL.hidden * (used - planned) + looked_at


@pytest.mark.parametrize("ffn", ["dense", "sigmoid, shared"])
@pytest.mark.parametrize("index", ["dense", "warmup", "together", "sparse"])
def test_indexers_cost_what_they_do_in_a_phase(index, ffn):
    config = config_of(INDEXED, FFNS[ffn])
    counts, blocks = mixer_counts(WIDTH, INDEXED), 2
    flops, _ = step(config, index)
    # of the gradient of a sum of weighted scores, the part for the scores is made element by element
    unseen = blocks * 2 * INDEXED.index.num_heads * PAIRS if index != "dense" else 0
    # scores by which keys are chosen are made again to learn on them
    again = blocks * counts.index_flops * PAIRS if index == "sparse" else 0
    assert flops == expected(config, index) - unseen + again


def test_what_indexers_cost_by_hand():
    """A token of a document of 1,000 reads 40 at most; its forward pass alone is what a plain one costs, with the indexer's scores of all."""
    config = config_of(INDEXED, DenseConfig(hidden=160))
    plain = config_of(INDEXED.model_copy(update={"index": None}), DenseConfig(hidden=160))
    pair, matrices, scores = 2 * 4 * (24 + 24), 24 * 3 * 16 + WIDTH * (16 + 3), 2 * 3 * (16 + 1)
    seen, read = mean_seen(1000, None), mean_seen(1000, TOP_K)
    dense = training_flops_per_token(config, 1000, "dense")
    assert dense == training_flops_per_token(plain, 1000)
    learns = 2 * 2 * matrices + scores * seen  # and its matrices once more for their gradients
    assert training_flops_per_token(config, 1000) - dense == pytest.approx(
        2 * (3 * pair * (read - seen) + learns + (2 * scores + 2 * 4 * 24) * read)
    )
    assert training_flops_per_token(config, 1000, "warmup") - dense / 3 == pytest.approx(2 * (learns + (2 * scores + 2 * 4 * 24) * seen))


def test_the_part_of_a_step_that_is_the_embedding():
    """It counts as parameters and takes no products: a step of a model of three quarters embedding is not three quarters of its parameters."""
    config = config_of(ATTENTION, DenseConfig(hidden=160))
    wide = config.model_copy(update={"vocabulary_size": 10_000, "tied": False})
    products = sum(value for name, value in parts(wide).items() if name not in ("embedding", "norms"))
    attention = 2 * mixer_counts(WIDTH, ATTENTION).pair_flops * mean_seen(CONTEXT, None)
    assert training_flops_per_token(wide, CONTEXT) == pytest.approx(3 * (2 * products + attention))
