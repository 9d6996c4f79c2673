"""Exact counts of a ModelConfig: parameters, forward FLOPs, cache bytes. No torch; checked against the built model.

Conventions: embedding and head count as parameters, active ones too; a multiply-add is two FLOPs; attention is counted
causally (what the model needs, not what a kernel that computes masked scores spends); norms, rotations, softmax and
the embedding look-up, all O(width) per token, are left out of the FLOPs. A training step is three forward passes.
"""

from __future__ import annotations

from collections.abc import Callable

from hagane.model.config import AttentionConfig, DenseConfig, ExpertsConfig, ModelConfig


def _mixer_matrices(width: int, mixer: AttentionConfig) -> int:
    return width * mixer.head_dim * (2 * mixer.num_heads + 2 * mixer.num_kv_heads)


def _norms(config: ModelConfig) -> int:
    per_head = sum(2 * layer.mixer.head_dim for layer in config.layers if layer.mixer.qk_norm)
    return config.width * (2 * config.num_layers + 1) + per_head


def parts(config: ModelConfig, *, active: bool = False) -> dict[str, int]:
    """Parameters by part: embedding, mixers, dense, experts, routers, norms, head (0 when tied). `active`: what one token uses."""
    dense = sum(3 * config.width * layer.ffn.hidden for layer in config.layers if isinstance(layer.ffn, DenseConfig))
    routed = [layer.ffn for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)]
    return {
        "embedding": config.vocabulary_size * config.width,
        "mixers": sum(_mixer_matrices(config.width, layer.mixer) for layer in config.layers),
        "dense": dense,
        "experts": sum(3 * config.width * ffn.hidden * (ffn.top_k if active else ffn.num_experts) for ffn in routed),
        "routers": sum(config.width * ffn.num_experts for ffn in routed),
        "norms": _norms(config),
        "head": 0 if config.tied else config.vocabulary_size * config.width,
    }


def num_parameters(config: ModelConfig) -> int:
    """Trained parameters. The state of bias balancing (`load_E`, `bias_E`) is not trained and not counted."""
    return sum(parts(config).values())


def num_active_parameters(config: ModelConfig) -> int:
    """Parameters one token uses: top_k of the experts, everything else; embedding and head counted whole."""
    return sum(parts(config, active=True).values())


def mean_seen(context: int, window: int | None) -> float:
    """Tokens a query sees on average over one causal document of `context` tokens: the mean of min(i, window), i = 1..context."""
    window = min(window or context, context)
    return (window * (window + 1) / 2 + (context - window) * window) / context


def flops_per_token(config: ModelConfig, context: int) -> float:
    """FLOPs of a forward pass per token in a document of `context` tokens, the head included. Training is three times this."""
    return batch_flops(config, 1, 1, lambda window: mean_seen(context, window))


def batch_flops(config: ModelConfig, num_tokens: int, num_targets: int, seen: Callable[[int | None], float]) -> float:
    """FLOPs of a forward pass over packed documents: what its tokens, its targets (the head) and the pairs in attention need.

    `seen(window)` is the number of pairs of a query and a key it sees, summed over the batch. Padding is in none of the three.
    """
    used = parts(config, active=True)
    matrices = used["mixers"] + used["dense"] + used["experts"] + used["routers"]
    # scores and mixing: two multiply-adds per head dimension and seen token
    attention = sum(2 * seen(layer.mixer.window) * layer.mixer.num_heads * layer.mixer.head_dim for layer in config.layers)
    return 2 * (matrices * num_tokens + config.vocabulary_size * config.width * num_targets + attention)


def cache_bytes_per_token(config: ModelConfig, bytes_per_value: int = 2) -> int:
    """Bytes one more token takes in the cache of all layers. Windowed layers are counted whole: their cache keeps every token."""
    return sum(2 * layer.mixer.num_kv_heads * layer.mixer.head_dim * bytes_per_value for layer in config.layers)
