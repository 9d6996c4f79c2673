"""Exact counts of a ModelConfig: parameters, forward FLOPs, cache bytes. No torch; checked against the built model.

Conventions: embedding and head count as parameters, active ones too; a multiply-add is two FLOPs; attention is counted
causally (what the model needs, not what a kernel that computes masked scores spends); norms, rotations, softmax and
the embedding look-up, all O(width) per token, are left out of the FLOPs. A training step is three forward passes, but for
indexers (`training_flops`).
The modules for multi-token prediction are no part of the model that answers: they are counted apart, and in training.
A kind of mixer is counted by one function, listed in `_MIXERS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, ExpertsConfig, LatentConfig, LayerConfig, MixerConfig, ModelConfig
from hagane.recipe.types import IndexMode

WINDOW_STEP = 32
"""A windowed layer's cache holds its window rounded up to a multiple of this (`linear.SHAPE_STEP`, which needs torch)."""


@dataclass(frozen=True)
class MixerCounts:
    """One mixer in numbers: parameters, forward FLOPs, what its cache keeps of a row, and the widths that memory is planned with."""

    matrices: int  # weights every token is multiplied with
    vectors: int  # all other parameters: norms, biases, decays
    pair_flops: int  # per query and key that it reads, all heads: scores and mixing
    num_heads: int  # upper limit of tensor parallelism; each sees every key once
    query: int  # values per token: queries
    mixed: int  # values per token that come out of the mixing
    key_value: int  # values per token: keys and values together, as the mixing reads them
    reads: int | None = None  # keys a query reads at most, its window or what an indexer leaves; None: all it sees
    index_matrices: int = 0  # of the matrices, an indexer's
    index_flops: int = 0  # per query and key that it sees, whether it reads it or not: an indexer's scores
    target_flops: int = 0  # per query and key that an indexer learns on: attention's scores once more, as what it is to be like
    token_flops: int = 0  # per token, besides matrices and pairs: what a recurrent state costs
    latent: int = 0  # values per token that queries, keys and values are made from (MLA)
    cached: int = 0  # values one more token takes in the cache
    held: int | None = None  # tokens the cache keeps of a row at most
    state_bytes: int = 0  # of a row's cache, whatever its length
    kept: int = 0  # two-byte values per token kept for the backward pass besides queries, keys, values and what is mixed


def _attention(width: int, mixer: AttentionConfig) -> MixerCounts:
    query, key_value = mixer.num_heads * mixer.head_dim, 2 * mixer.num_kv_heads * mixer.head_dim
    return MixerCounts(
        matrices=width * (2 * query + key_value + (query if mixer.gate == "sigmoid" else 0)),
        vectors=2 * mixer.head_dim if mixer.qk_norm else 0,
        pair_flops=4 * query,  # two multiply-adds per head dimension
        num_heads=mixer.num_heads, query=query, mixed=query, key_value=key_value, cached=key_value, reads=mixer.window,
        held=None if mixer.window is None else -(-mixer.window // WINDOW_STEP) * WINDOW_STEP,
    )  # fmt: skip


def _latent(width: int, mixer: LatentConfig) -> MixerCounts:
    """As it trains, with keys and values of every head made; decoding in the absorbed form does more per pair and less per token.

    An indexer counts as if every query read `top_k` keys (adaptive ones read fewer); its learning is of training alone (`training_flops`).
    Kept of it for the backward pass are queries and their float32 gradients.
    """
    query, mixed, latent = mixer.num_heads * mixer.qk_dim, mixer.num_heads * mixer.value_dim, (mixer.query_rank or 0) + mixer.kv_rank
    made = mixer.num_heads * (mixer.nope_dim + mixer.value_dim)
    queries = (mixer.query_rank or width) * query if mixer.gate == "none" else 2 * (mixer.query_rank or 0) * (query + mixed)
    plain = MixerCounts(
        matrices=width * (latent + mixer.rope_dim) + queries + mixer.kv_rank * made + mixed * width,
        vectors=latent, pair_flops=2 * (query + mixed), num_heads=mixer.num_heads, query=query, mixed=mixed, key_value=query + mixed,
        latent=latent + mixer.rope_dim, cached=mixer.kv_rank + mixer.rope_dim,
    )  # fmt: skip
    index = mixer.index
    if index is None:
        return plain
    scored = index.num_heads * index.head_dim
    matrices = (mixer.query_rank or 0) * scored + width * (index.head_dim + index.num_heads)
    return replace(
        plain, matrices=plain.matrices + matrices, vectors=plain.vectors + 2 * index.head_dim, reads=index.top_k,
        index_matrices=matrices, index_flops=2 * (scored + index.num_heads), target_flops=2 * query,
        cached=plain.cached + index.head_dim, kept=3 * (scored + index.head_dim),
    )  # fmt: skip


def _met(mixer: DeltaConfig) -> int:
    """Tokens of its chunk that a token meets, on average."""
    return (mixer.chunk + 1) // 2


def _delta(width: int, mixer: DeltaConfig) -> MixerCounts:
    """FLOPs are those of the form in chunks, within a chunk counted causally: a token meets (C + 1) / 2 of its C tokens.

    Per token: the convolution; products of keys with keys and with queries, per key head; per value head what the triangular system
    takes, values and keys, and reading what the chunk wrote; state read for the correction, for the output, and written.
    Decoding step by step takes 8 H W per value head instead of all but the first.
    Kept for the backward pass are the parts of that form, in float32: fitted to what the compiled mixer keeps at heads of 32, 64 and 128.
    """
    queries, values, met = mixer.num_key_heads * mixer.key_dim, mixer.num_value_heads * mixer.value_dim, _met(mixer)
    value_head = met * (mixer.key_dim + 2 * mixer.value_dim) + 3 * mixer.key_dim * mixer.value_dim
    return MixerCounts(
        matrices=width * (mixer.channels + 2 * values + 2 * mixer.num_value_heads),
        vectors=mixer.channels * mixer.taps + 2 * mixer.num_value_heads + mixer.value_dim,
        pair_flops=0, num_heads=mixer.num_key_heads, query=values, mixed=values, key_value=mixer.channels,
        token_flops=2 * (mixer.channels * mixer.taps + 2 * met * queries + mixer.num_value_heads * value_head),
        state_bytes=4 * (mixer.channels * (mixer.taps - 1) + values * mixer.key_dim),
        kept=mixer.num_value_heads * (15 * (mixer.key_dim + mixer.value_dim) + 5 * mixer.chunk),
    )  # fmt: skip


_MIXERS: dict[str, Callable[[int, Any], MixerCounts]] = {"attention": _attention, "latent": _latent, "delta": _delta}


@lru_cache(maxsize=4096)
def mixer_counts(width: int, mixer: MixerConfig) -> MixerCounts:
    """A mixer of any kind in a model of this width."""
    return _MIXERS[mixer.kind](width, mixer)


class Kind(NamedTuple):
    """A layer, what its mixer comes to, and how many there are of it."""

    layer: LayerConfig
    mixer: MixerCounts
    number: int


class _Layers:
    """Layers of a model, equal to no others: a plan asks ten times for the kinds of each of a hundred models, and to hash their fields takes longer than to
    count them."""

    def __init__(self, width: int, layers: tuple[LayerConfig, ...]) -> None:
        self.width, self.layers = width, layers

    def __hash__(self) -> int:
        return id(self.layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Layers) and self.layers is other.layers and self.width == other.width


@lru_cache(maxsize=1024)
def _kinds_of(of: _Layers) -> tuple[Kind, ...]:
    counts, layers = Counter(map(id, of.layers)), {id(layer): layer for layer in of.layers}
    return tuple(Kind(layer, mixer_counts(of.width, layer.mixer), counts[key]) for key, layer in layers.items())


def kinds(width: int, layers: tuple[LayerConfig, ...]) -> tuple[Kind, ...]:
    """Kinds of layers in a model of this width, told apart by identity: a pattern makes one object of each."""
    return _kinds_of(_Layers(width, layers))


def trained_kinds(config: ModelConfig) -> tuple[Kind, ...]:
    """Kinds of all layers that are trained: the model's and those of its modules for multi-token prediction."""
    return (*kinds(config.width, config.layers), *kinds(config.width, config.mtp_layers))


def _norms(config: ModelConfig) -> int:
    own = kinds(config.width, config.layers)
    in_blocks = sum(count * (2 + layer.post_mixer_norm + layer.post_ffn_norm) for layer, _, count in own)
    return config.width * (in_blocks + 1) + sum(count * mixer.vectors for _, mixer, count in own) + _norm_gates(config)


def _norm_gates(config: ModelConfig) -> int:
    """Weights of the gates on norms."""
    own = kinds(config.width, config.layers)
    return 2 * config.width * sum(count * ((layer.mixer_norm_rank or 0) + (layer.ffn_norm_rank or 0)) for layer, _, count in own)


def _dense(width: int, ffn: DenseConfig | ExpertsConfig) -> int:
    """Weights of a feed-forward that every token passes."""
    return 3 * width * ffn.hidden if isinstance(ffn, DenseConfig) else 3 * width * ffn.shared_hidden + width * ffn.shared_gate


def parts(config: ModelConfig, *, active: bool = False) -> dict[str, int]:
    """Parameters by part: embedding, mixers, dense (shared experts too), experts, routers, norms (their gates too), head (0 when tied).

    `active`: what one token uses, with null experts on average.
    """
    own = kinds(config.width, config.layers)
    routed = [(layer.ffn, count) for layer, _, count in own if isinstance(layer.ffn, ExpertsConfig)]
    return {
        "embedding": config.vocabulary_size * config.width,
        "mixers": sum(count * mixer.matrices for _, mixer, count in own),
        "dense": sum(count * _dense(config.width, layer.ffn) for layer, _, count in own),
        "experts": sum(count * round(3 * config.width * ffn.hidden * (ffn.mean_used if active else ffn.num_experts)) for ffn, count in routed),
        "routers": sum(count * config.width * ffn.num_outputs for ffn, count in routed),
        "norms": _norms(config),
        "head": 0 if config.tied else config.vocabulary_size * config.width,
    }


def table_parameters(config: ModelConfig) -> int:
    """Parameters of embedding and head, one table where they are tied: what loss laws leave out."""
    return config.vocabulary_size * config.width * (1 if config.tied else 2)


def num_parameters(config: ModelConfig) -> int:
    """Parameters of the model that answers. The state of balancing and clamping (`load_E`, `bias_E`, `clamp`) is not trained and not counted."""
    return sum(parts(config).values())


def num_active_parameters(config: ModelConfig) -> int:
    """Parameters one token uses: top_k of the experts, or the mean that null ones leave, and everything else; embedding and head counted whole."""
    return sum(parts(config, active=True).values())


def mtp_parts(config: ModelConfig, *, active: bool = False) -> dict[str, int]:
    """Parameters of the modules for multi-token prediction by part, projections too; embedding and head are the model's. Empty without."""
    count = len(config.mtp_layers)
    if not count:
        return {}
    blocks = parts(config.mtp_blocks, active=active)
    own = {name: blocks[name] for name in ("mixers", "dense", "experts", "routers", "norms")}
    # each has three norms beside its block's, and the blocks as a model have one
    return {**own, "norms": own["norms"] + (3 * count - 1) * config.width, "projections": 2 * config.width**2 * count}


def num_trained_parameters(config: ModelConfig) -> int:
    """Of the model as it is trained: `num_parameters`, and the modules for multi-token prediction."""
    return num_parameters(config) + sum(mtp_parts(config).values())


def mean_seen(context: int, window: int | None) -> float:
    """Tokens a query sees on average over one causal document of `context` tokens: the mean of min(i, window), i = 1..context."""
    window = min(window or context, context)
    return (window * (window + 1) / 2 + (context - window) * window) / context


def flops_per_token(config: ModelConfig, context: int, *, mtp: bool = False) -> float:
    """FLOPs of a forward pass per token in a document of `context` tokens, the head included."""
    return batch_flops(config, 1, 1, lambda window: mean_seen(context, window), mtp=mtp)


def pairs_flops(mixer: MixerCounts, seen: Callable[[int | None], float]) -> float:
    """FLOPs of what a mixer does with pairs of tokens; `seen` as for `batch_flops`."""
    return mixer.pair_flops * seen(mixer.reads) + (mixer.index_flops * seen(None) if mixer.index_flops else 0)


def batch_flops(config: ModelConfig, num_tokens: int, num_targets: int, seen: Callable[[int | None], float], *, mtp: bool = False) -> float:
    """FLOPs of a forward pass over packed documents: what its tokens, its targets (the head) and the pairs in attention need.

    `seen(limit)` is the number of pairs of a query and a key it sees, at most `limit` for each, summed over the batch. Padding is in none of
    the three.
    `mtp`: with the modules for multi-token prediction, which go through the head as well. That the last tokens of a document have
    nothing to predict there is left out of account.
    """
    if mtp and config.mtp_layers:
        count = len(config.mtp_layers)
        modules = batch_flops(config.mtp_blocks, num_tokens, count * num_targets, seen) + 4 * config.width**2 * count * num_tokens
        return batch_flops(config, num_tokens, num_targets, seen) + modules
    used = parts(config, active=True)
    matrices = used["mixers"] + used["dense"] + used["experts"] + used["routers"] + _norm_gates(config)
    mixing = sum(count * (pairs_flops(mixer, seen) + mixer.token_flops * num_tokens) for _, mixer, count in kinds(config.width, config.layers))
    return 2 * (matrices * num_tokens + config.vocabulary_size * config.width * num_targets) + mixing


def training_flops(config: ModelConfig, num_tokens: int, num_targets: int, seen: Callable[[int | None], float], index: IndexMode = "sparse") -> float:
    """FLOPs of a forward and backward pass over packed documents, the modules for multi-token prediction included; arguments as for `batch_flops`.

    Three forward passes: every product has two in the backward pass, the first layer's too, as the embedding is trained. Not what kernels compute a
    second time to save memory (attention's scores), nor the optimizer.
    `index` is what indexers do. dense: nothing, all queries read all they see. warmup: they learn on all that is seen, the model only runs forward.
    together: so does the model.
    sparse: they score all that is seen and learn on what is read. What they are made from is detached: their matrices have one product in the backward
    pass.
    """
    forward = batch_flops(config, num_tokens, num_targets, seen, mtp=True)
    mixers = [(mixer, count) for layer, mixer, count in trained_kinds(config) if isinstance(layer.mixer, LatentConfig) and layer.mixer.index is not None]
    if not mixers:
        return 3 * forward
    own = sum(count * (2 * mixer.index_matrices * num_tokens + mixer.index_flops * seen(None)) for mixer, count in mixers)
    unread = 0.0 if index == "sparse" else sum(count * mixer.pair_flops * (seen(None) - seen(mixer.reads)) for mixer, count in mixers)
    model = (forward - own + unread) * (1 if index == "warmup" else 3)
    if index == "dense":
        return model
    learning = 0.0
    for mixer, count in mixers:
        pairs = seen(mixer.reads if index == "sparse" else None)
        learning += count * (2 * mixer.index_matrices * num_tokens + (2 * mixer.index_flops + mixer.target_flops) * pairs)
    return model + own + learning


def cache_bytes(config: ModelConfig, length: int, bytes_per_value: int = 2) -> int:
    """Bytes the cache of all layers takes for a row of up to `length` tokens."""
    own = kinds(config.width, config.layers)
    return sum(count * (mixer.cached * min(length, mixer.held or length) * bytes_per_value + mixer.state_bytes) for _, mixer, count in own)


def cache_bytes_per_token(config: ModelConfig, context: int, bytes_per_value: int = 2) -> float:
    """Bytes the cache of all layers takes per token of a row of `context` tokens."""
    return cache_bytes(config, context, bytes_per_value) / context
