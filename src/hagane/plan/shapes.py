"""Shapes a pattern can take: the ladder of sizes that the plan chooses from, and the exact shape a recipe asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from hagane.errors import RecipeError
from hagane.model.config import (
    BIAS_RATE,
    AttentionConfig,
    DeltaConfig,
    DenseConfig,
    EntropyClamp,
    ExpertsConfig,
    IndexConfig,
    LatentConfig,
    LayerConfig,
    MixerConfig,
    ModelConfig,
    RopeConfig,
)
from hagane.model.count import cache_bytes_per_token, num_active_parameters, num_parameters, parts
from hagane.plan.amounts import amount
from hagane.recipe.schema import USUAL_TOP_K, ModelSettings, PatternSettings, SizeSettings
from hagane.recipe.types import first_reason

# Width -> depth. Small models are deeper than width / 64: a carry or a comparison takes a few steps of composition. At width 192 three
# layers see a third more tokens than four in the same time, and know more (docs/notebook.md, "depth of small models"). From 512 on it is
# the ratio width / depth of 64 that GPT-3 and Llama share.
LADDER: tuple[tuple[int, int], ...] = (
    (64, 3), (96, 4), (128, 4), (192, 3), (256, 5), (320, 6), (384, 6), (448, 7), (512, 8), (640, 10), (768, 12), (1024, 16), (1280, 20), (1536, 24),
    (2048, 32), (2560, 32), (3072, 32), (4096, 32), (5120, 40), (6144, 48), (8192, 64),
)  # fmt: skip


EXPERT_COUNTS, SPARSEST = (4, 8, 16, 32, 64, 128, 256, 512), 64  # that the plan chooses from, at most so many times those that a token uses
TOP_KS = (USUAL_TOP_K, 4, 8)  # likewise, together as wide as USUAL_TOP_K: eight are Qwen3's and DeepSeek-V3's
USUAL_EXPERTS = 8  # where a recipe leaves them open and nothing is chosen: the runs of a ladder

# Of models too narrow for eight heads of the pattern's size. Narrower heads learn no more and cost more: at width 192 eight of 24 lose 2 % against three of
# 64 in the same time (docs/notebook.md, "Heads of small models").
SMALL_HEAD = 64


def rounded(value: float, multiple: int) -> int:
    """`value` rounded to a multiple, at least one of them."""
    return max(multiple, round(value / multiple) * multiple)


def shape(pattern: PatternSettings, size: SizeSettings, *, width: int, num_layers: int, vocabulary_size: int, context: int) -> ModelConfig:
    """The model of `pattern` at a width and depth; every field given in `size` wins. Raises RecipeError where they contradict.

    Where `size` leaves the depth open, there are layers of every kind. Where the pattern leaves the number of experts open, it is USUAL_EXPERTS if that can be.
    """
    try:
        return _shape(pattern, size, width, num_layers, vocabulary_size, context)
    except ValidationError as error:
        raise RecipeError(f"model.pattern and model.size contradict each other: {first_reason(error)}.") from None


def _shape(pattern: PatternSettings, size: SizeSettings, width: int, num_layers: int, vocabulary_size: int, context: int) -> ModelConfig:
    width, num_layers = size.width or width, _depth(pattern, size, num_layers)
    head_dim = pattern.head_dim if size.num_heads or width >= 8 * pattern.head_dim else max(16, min(SMALL_HEAD, pattern.head_dim, width // 4 * 2))
    num_heads = size.num_heads or max(1, width // head_dim)
    attention = (_latent if pattern.mixer == "latent" else _attention)(pattern, size, width, num_heads, head_dim)
    pairs = zip(_in_order(pattern, attention, width, num_layers), _feed_forwards(pattern, size, width, num_layers), strict=True)
    made: dict[tuple[int, int], LayerConfig] = {}  # one object for each kind of layer
    layers = tuple(made.get((id(one), id(ffn))) or made.setdefault((id(one), id(ffn)), _layer(pattern, one, ffn)) for one, ffn in pairs)
    return ModelConfig(
        vocabulary_size=size.vocabulary_size or vocabulary_size, width=width, layers=layers, mtp_layers=(_predicting(layers),) * pattern.mtp_layers,
        tied=pattern.tied, embedding_scale=width**0.5 if pattern.scaled_embedding else 1.0, norm_epsilon=pattern.norm_epsilon, init_std=pattern.init_std,
        embedding_std=None if pattern.tied else pattern.embedding_std, context=context,
    )  # fmt: skip


def _layer(pattern: PatternSettings, mixer: MixerConfig, ffn: DenseConfig | ExpertsConfig) -> LayerConfig:
    routed, rank = isinstance(ffn, ExpertsConfig), pattern.gated_norm_rank or None
    after_ffn = pattern.sandwich_norms or (pattern.post_experts_norm and routed)
    return LayerConfig(
        mixer=mixer, ffn=ffn, post_mixer_norm=pattern.sandwich_norms, post_ffn_norm=after_ffn, mixer_norm_rank=rank, ffn_norm_rank=rank if routed else None
    )  # fmt: skip


def _predicting(layers: tuple[LayerConfig, ...]) -> LayerConfig:
    """The block of a module for multi-token prediction: as the last layer that sees the whole document, which is what hosts expect."""
    return next((layer for layer in reversed(layers) if layer.mixer.kind != "delta" and layer.mixer.window is None), layers[-1])


def _depth(pattern: PatternSettings, size: SizeSettings, num_layers: int) -> int:
    """As many layers as asked for, or enough for the pattern. Raises RecipeError where `size` has too few."""
    needed = max(pattern.dense_layers + 1, pattern.full_every if pattern.window else 1, 1 if size.num_layers else pattern.deltas + 1)
    if size.num_layers is not None and size.num_layers < needed:
        which = f"full_every = {pattern.full_every}" if needed > pattern.dense_layers + 1 else f"dense_layers = {pattern.dense_layers}"
        raise RecipeError(f"model.size.num_layers = {size.num_layers} is too few for model.pattern.{which}. Take {needed} layers or more.")
    return size.num_layers or max(num_layers, needed)


def _feed_forwards(pattern: PatternSettings, size: SizeSettings, width: int, num_layers: int) -> list[DenseConfig | ExpertsConfig]:
    """Of every layer, the dense ones first."""
    multiple = 32 if width < 1024 else 128
    if pattern.ffn == "dense":
        return [DenseConfig(hidden=size.ffn_hidden or rounded(width * pattern.ffn_ratio, multiple))] * num_layers
    hidden = size.ffn_hidden or rounded(width * pattern.expert_ratio, multiple)
    routed = ExpertsConfig(
        num_experts=_usual_experts(pattern), top_k=pattern.top_k or USUAL_TOP_K, hidden=hidden, score=pattern.score, scaling=pattern.scaling,
        normalise=pattern.normalise, num_groups=pattern.num_groups, top_groups=pattern.top_groups, shared_hidden=pattern.shared_experts * hidden,
        shared_gate=pattern.shared_gate, balance=pattern.balance, aux_coefficient=pattern.aux_coefficient, z_coefficient=pattern.z_coefficient,
        bias_rate=BIAS_RATE if pattern.bias_rate is None else pattern.bias_rate, null_experts=pattern.null_experts, mean_experts=pattern.mean_experts,
        entropy_clamp=_clamp(pattern),
    )  # fmt: skip
    dense = DenseConfig(hidden=size.dense_hidden or rounded(width * pattern.ffn_ratio, multiple))
    return [dense] * pattern.dense_layers + [routed] * (num_layers - pattern.dense_layers)


def expert_counts(pattern: PatternSettings) -> tuple[int, ...]:
    """Numbers of routed experts the plan may choose for a pattern: the one it gives, or those of EXPERT_COUNTS of which a token uses half to 1 / SPARSEST."""
    if pattern.num_experts is not None:
        return (pattern.num_experts,)
    top_k = pattern.top_k or USUAL_TOP_K
    least = pattern.num_groups * max(2, math.ceil(2 * top_k / pattern.num_groups), math.ceil(top_k / pattern.top_groups))
    return tuple(count for count in EXPERT_COUNTS if least <= count <= SPARSEST * top_k and count % pattern.num_groups == 0) or (least,)


def top_ks(pattern: PatternSettings) -> tuple[int, ...]:
    """Numbers of experts a token may use that the plan may choose: the one a pattern gives, or all of TOP_KS that leave half of a given number out and fit
    into its groups.

    With null experts, of which a token uses a mean number, it is the usual one.
    """
    if pattern.top_k is not None or pattern.null_experts:
        return (pattern.top_k or USUAL_TOP_K,)
    most = math.inf if pattern.num_experts is None else pattern.num_experts * min(0.5, pattern.top_groups / pattern.num_groups)
    return (USUAL_TOP_K, *(top_k for top_k in TOP_KS[1:] if top_k <= most))


def experts_of(config: ModelConfig) -> int:
    """Routed experts of a layer that has some; 0 in a dense model."""
    return max((layer.ffn.num_experts for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)), default=0)


def top_k_of(config: ModelConfig) -> int:
    """Of them, those that a token uses; 0 in a dense model."""
    return max((layer.ffn.top_k for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)), default=0)


def granularity_of(config: ModelConfig) -> float:
    """How many experts are together as wide as a dense feed-forward, 8/3 of the width (Krajewski et al. 2024: d_ff / d_expert); 0 in a dense model."""
    hidden = next((layer.ffn.hidden for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)), 0)
    return 8 / 3 * config.width / hidden if hidden else 0.0


def shape_facts(config: ModelConfig) -> dict[str, Any]:
    """A shape for scripts, under the names of the settings in model.size and model.pattern that ask for it, with its parameters."""
    return {
        "width": config.width, "num_layers": config.num_layers, "num_experts": experts_of(config), "top_k": top_k_of(config),
        "ffn_hidden": config.layers[-1].ffn.hidden, "vocabulary_size": config.vocabulary_size, "num_parameters": num_parameters(config),
        "num_active_parameters": num_active_parameters(config), "parts": parts(config), "cache_bytes_per_token": cache_bytes_per_token(config, config.context),
    }  # fmt: skip


def parts_line(config: ModelConfig) -> str:
    """Parameters by part and what decoding keeps, for the terminal."""
    cache = amount(cache_bytes_per_token(config, config.context), "B")
    return f"{', '.join(f'{name} {amount(count)}' for name, count in parts(config).items() if count)}; cache of decoding {cache} a token"


def _usual_experts(pattern: PatternSettings) -> int:
    counts = expert_counts(pattern)
    return USUAL_EXPERTS if pattern.num_experts is None and USUAL_EXPERTS in counts else counts[0]


def _clamp(pattern: PatternSettings) -> EntropyClamp | None:
    if not pattern.entropy_clamp:
        return None
    return EntropyClamp(
        marginal_low=pattern.marginal_entropy_low, conditional_low=pattern.conditional_entropy_low, conditional_high=pattern.conditional_entropy_high,
        rate=pattern.clamp_rate,
    )  # fmt: skip


def _windows(pattern: PatternSettings, mixer: MixerConfig, num_layers: int) -> list[MixerConfig]:
    """Of every layer: with a window, whole documents in every `full_every`-th layer."""
    if not pattern.window:
        return [mixer] * num_layers
    windowed = mixer.model_copy(update={"window": pattern.window})
    whole = mixer if pattern.full_positions else mixer.model_copy(update={"rope": None, "partial_rotary": None})
    return [windowed if (index + 1) % pattern.full_every else whole for index in range(num_layers)]


def _latent(pattern: PatternSettings, size: SizeSettings, width: int, num_heads: int, head_dim: int) -> MixerConfig:
    """Ranks go with the width, as wide as the feed-forward's steps; the parts of a head with the head."""
    if size.num_kv_heads is not None:
        raise RecipeError(f"model.size.num_kv_heads = {size.num_kv_heads} is of grouped-query attention, but model.pattern.mixer = 'latent'. Leave it out.")
    multiple, rope_dim = 32 if width < 1024 else 128, rounded(head_dim * pattern.rope_ratio, 2)
    index = IndexConfig(
        num_heads=pattern.index_heads, head_dim=max(pattern.index_head_dim, rope_dim), top_k=pattern.index_top_k, share=pattern.index_share or None
    ) if pattern.index_top_k else None  # fmt: skip
    return LatentConfig(
        num_heads=num_heads, query_rank=rounded(width * pattern.query_ratio, multiple) if pattern.query_ratio else None,
        kv_rank=rounded(width * pattern.kv_ratio, multiple), nope_dim=head_dim, rope_dim=rope_dim, value_dim=head_dim,
        rope=RopeConfig(theta=pattern.rope_theta), index=index, gate=pattern.attention_gate,
    )  # fmt: skip


def _attention(pattern: PatternSettings, size: SizeSettings, width: int, num_heads: int, head_dim: int) -> MixerConfig:
    num_kv_heads = size.num_kv_heads or max(1, num_heads // pattern.heads_per_kv_head)
    while size.num_kv_heads is None and num_heads % num_kv_heads:
        num_kv_heads -= 1
    if num_heads % num_kv_heads:
        raise RecipeError(f"model.size.num_kv_heads = {num_kv_heads} does not divide the {num_heads} heads of width {width}. Set num_heads as well.")
    rotary_dim = rounded(head_dim * pattern.rotary_share, 2)
    return AttentionConfig(
        num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, qk_norm=pattern.qk_norm, rope=RopeConfig(theta=pattern.rope_theta),
        partial_rotary=None if rotary_dim >= head_dim else rotary_dim, gate=pattern.attention_gate,
    )  # fmt: skip


def _in_order(pattern: PatternSettings, attention: MixerConfig, width: int, num_layers: int) -> list[MixerConfig]:
    """The mixer of every layer: `deltas` of Gated DeltaNet, then one of attention, and again; or attention with and without a window."""
    if pattern.deltas == 0:
        return _windows(pattern, attention, num_layers)
    if num_layers <= pattern.deltas:
        raise RecipeError(
            f"model.size.num_layers = {num_layers} leaves no layer of attention: model.pattern.deltas = {pattern.deltas} come before the first. "
            f"Take {pattern.deltas + 1} layers or more."
        )
    head_dim = pattern.delta_head_dim if width >= 8 * pattern.delta_head_dim else max(16, width // 8)  # many narrow heads, each with its own state
    num_key_heads = max(1, width // head_dim)
    delta = DeltaConfig(num_key_heads=num_key_heads, num_value_heads=num_key_heads * pattern.value_heads_per_key_head, key_dim=head_dim, value_dim=head_dim)
    return [attention if (index + 1) % (pattern.deltas + 1) == 0 else delta for index in range(num_layers)]


def left_open(model: ModelSettings) -> list[str]:
    """Settings that a published shape needs and the recipe does not give."""
    names = [f"model.size.{name}" for name in ("width", "num_layers", "vocabulary_size") if getattr(model.size, name) is None]
    return [*names, *(["model.pattern.num_experts"] if model.pattern.ffn == "experts" and model.pattern.num_experts is None else [])]


def published(model: ModelSettings, context: int) -> ModelConfig | None:
    """The shape that the recipe publishes, or None where it leaves width, depth, vocabulary or the number of experts open."""
    size = model.size
    if left_open(model):
        return None
    assert size.width and size.num_layers and size.vocabulary_size  # for the type checker: none is open
    return shape(model.pattern, size, width=size.width, num_layers=size.num_layers, vocabulary_size=size.vocabulary_size, context=context)


def candidates(
    pattern: PatternSettings, pinned: SizeSettings, *, vocabulary_size: int, context: int, ladder: Sequence[tuple[int, int]] = LADDER
) -> list[ModelConfig]:
    """Every rung of the ladder in this pattern, with every number of experts it leaves open; pinned settings hold in all of them. Where it leaves open how many
    a token uses, they are USUAL_TOP_K: `finer` has the others."""
    patterns = [pattern]
    if pattern.ffn == "experts":
        patterns = [pattern.model_copy(update={"num_experts": count}) for count in expert_counts(pattern)]
    found: dict[tuple[int, int, int], ModelConfig] = {}  # what is pinned makes duplicates
    for width, num_layers in ladder:
        for one in patterns:
            config = shape(one, pinned, width=width, num_layers=num_layers, vocabulary_size=vocabulary_size, context=context)
            found.setdefault((config.width, config.num_layers, experts_of(config)), config)
    return [*found.values()]


def finer(pattern: PatternSettings, pinned: SizeSettings, ladder: Sequence[tuple[int, int]], *, vocabulary_size: int, context: int) -> list[ModelConfig]:
    """The same with finer experts, of which a token uses more: 4 or 8, where the pattern leaves that open."""
    ratio = pattern.expert_ratio * USUAL_TOP_K
    patterns = [pattern.model_copy(update={"top_k": top_k, "expert_ratio": ratio / top_k}) for top_k in top_ks(pattern)[1:]]
    return [config for one in patterns for config in candidates(one, pinned, vocabulary_size=vocabulary_size, context=context, ladder=ladder)]


def shape_key(config: ModelConfig, rows: int, context: int, dtype: str) -> str:
    """Names a training step in the machine profile: what decides its speed, nothing else."""
    layers = "".join(f"{'+' * (index > 0)}{_layer_key(layer)}{f'*{count}' * (count < config.num_layers)}" for index, (layer, count) in enumerate(_runs(config)))
    further = f"m{len(config.mtp_layers)}" if config.mtp_layers else ""
    return f"w{config.width}l{config.num_layers}{layers}{further}v{config.vocabulary_size}{'t' if config.tied else ''}-{rows}x{context}-{dtype}"


def _runs(config: ModelConfig) -> list[tuple[LayerConfig, int]]:
    """Kinds of layer and how many there are of each, in the order they first come: the order of layers does not change a step's time."""
    kinds = dict.fromkeys(config.layers)
    return [(kind, config.layers.count(kind)) for kind in kinds]


def _layer_key(layer: LayerConfig) -> str:
    if isinstance(layer.ffn, DenseConfig):
        ffn = f"f{layer.ffn.hidden}"
    else:
        ffn = f"e{layer.ffn.num_experts}k{layer.ffn.top_k}f{layer.ffn.hidden}{f's{layer.ffn.shared_hidden}' if layer.ffn.shared_hidden else ''}"
        if layer.ffn.null_experts:
            ffn += f"z{layer.ffn.null_experts}m{layer.ffn.mean_used:g}"
    norms = f"n{layer.post_mixer_norm:d}{layer.post_ffn_norm:d}" if layer.post_mixer_norm or layer.post_ffn_norm else ""
    gates = f"r{layer.mixer_norm_rank or 0}-{layer.ffn_norm_rank or 0}" if layer.mixer_norm_rank or layer.ffn_norm_rank else ""
    return f"{layer.mixer.key}{ffn}{norms}{gates}"
