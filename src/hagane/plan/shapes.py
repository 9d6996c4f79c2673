"""Shapes a pattern can take: the ladder of sizes that the plan chooses from, and the exact shape a recipe asks for."""

from __future__ import annotations

from hagane.errors import RecipeError
from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, ExpertsConfig, LatentConfig, LayerConfig, MixerConfig, ModelConfig, RopeConfig
from hagane.recipe.schema import ModelSettings, PatternSettings, SizeSettings

# Width -> depth. Small models are deeper than width / 64: a carry or a comparison takes a few steps of composition. At width 192 three
# layers see a third more tokens than four in the same time, and know more (docs/notebook.md, "depth of small models"). From 512 on it is
# the ratio width / depth of 64 that GPT-3 and Llama share.
LADDER: tuple[tuple[int, int], ...] = (
    (64, 3), (96, 4), (128, 4), (192, 3), (256, 5), (320, 6), (384, 6), (448, 7), (512, 8), (640, 10), (768, 12), (1024, 16), (1280, 20), (1536, 24),
    (2048, 32), (2560, 32), (3072, 32), (4096, 32), (5120, 40), (6144, 48), (8192, 64),
)  # fmt: skip


def rounded(value: float, multiple: int) -> int:
    """`value` rounded to a multiple, at least one of them."""
    return max(multiple, round(value / multiple) * multiple)


def shape(pattern: PatternSettings, size: SizeSettings, *, width: int, num_layers: int, vocabulary_size: int, context: int) -> ModelConfig:
    """The model of `pattern` at a width and depth; every field given in `size` wins. Raises RecipeError where they contradict.

    Where `size` leaves the depth open there are layers of every kind: as many as the pattern has before it repeats, at least.
    """
    width, num_layers = size.width or width, size.num_layers or max(num_layers, pattern.deltas + 1)
    # eight heads at least: small models learn to copy and to align sooner with many narrow heads (docs/notebook.md, "heads of small models")
    head_dim = pattern.head_dim if size.num_heads or width >= 8 * pattern.head_dim else max(16, width // 8)
    num_heads = size.num_heads or max(1, width // head_dim)
    multiple = 32 if width < 1024 else 128
    attention = (_latent if pattern.mixer == "latent" else _attention)(pattern, size, width, num_heads, head_dim)
    mixers = _in_order(pattern, attention, width, num_layers)
    return ModelConfig(
        vocabulary_size=size.vocabulary_size or vocabulary_size, width=width, layers=_layers(pattern, size, mixers, width, multiple),
        tied=pattern.tied, norm_epsilon=pattern.norm_epsilon, init_std=pattern.init_std, context=context,
    )  # fmt: skip


def _layers(pattern: PatternSettings, size: SizeSettings, mixers: list[MixerConfig], width: int, multiple: int) -> tuple[LayerConfig, ...]:
    """Dense layers, or routed ones behind the first dense ones. A given width of the feed-forward is that of one expert where there are any."""
    dense = rounded(width * pattern.ffn_ratio, multiple)
    if pattern.ffn == "dense":
        return tuple(LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=size.ffn_hidden or dense)) for mixer in mixers)
    if pattern.dense_layers >= len(mixers):
        raise RecipeError(f"model.pattern.dense_layers = {pattern.dense_layers} leaves no layer with experts of the {len(mixers)} there are.")
    hidden = size.ffn_hidden or rounded(width * pattern.expert_ratio, multiple)
    experts = ExpertsConfig(
        num_experts=pattern.num_experts, top_k=pattern.top_k, hidden=hidden, score=pattern.score, scaling=pattern.scaling,
        num_groups=pattern.num_groups, top_groups=pattern.top_groups, shared_hidden=pattern.shared_experts * hidden, balance=pattern.balance,
        aux_coefficient=pattern.aux_coefficient, z_coefficient=pattern.z_coefficient,
    )  # fmt: skip
    first = [LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=dense)) for mixer in mixers[: pattern.dense_layers]]
    routed = [LayerConfig(mixer=mixer, ffn=experts, post_ffn_norm=pattern.post_experts_norm) for mixer in mixers[pattern.dense_layers :]]
    return (*first, *routed)


def _latent(pattern: PatternSettings, size: SizeSettings, width: int, num_heads: int, head_dim: int) -> MixerConfig:
    """Ranks go with the width, as wide as the feed-forward's steps; the parts of a head with the head."""
    if size.num_kv_heads is not None:
        raise RecipeError(f"model.size.num_kv_heads = {size.num_kv_heads} is of grouped-query attention, but model.pattern.mixer = 'latent'. Leave it out.")
    multiple = 32 if width < 1024 else 128
    return LatentConfig(
        num_heads=num_heads, query_rank=rounded(width * pattern.query_ratio, multiple) if pattern.query_ratio else None,
        kv_rank=rounded(width * pattern.kv_ratio, multiple), nope_dim=head_dim, rope_dim=rounded(head_dim * pattern.rope_ratio, 2), value_dim=head_dim,
        rope=RopeConfig(theta=pattern.rope_theta),
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
    """The mixer of every layer: `deltas` of Gated DeltaNet, then one of attention, and again."""
    if pattern.deltas == 0:
        return [attention] * num_layers
    if num_layers <= pattern.deltas:
        raise RecipeError(
            f"model.size.num_layers = {num_layers} leaves no layer of attention: model.pattern.deltas = {pattern.deltas} come before the first. "
            f"Take {pattern.deltas + 1} layers or more."
        )
    head_dim = pattern.delta_head_dim if width >= 8 * pattern.delta_head_dim else max(16, width // 8)  # many narrow heads, as for attention
    num_key_heads = max(1, width // head_dim)
    delta = DeltaConfig(num_key_heads=num_key_heads, num_value_heads=num_key_heads * pattern.value_heads_per_key_head, key_dim=head_dim, value_dim=head_dim)
    return [attention if (index + 1) % (pattern.deltas + 1) == 0 else delta for index in range(num_layers)]


def published(model: ModelSettings, context: int) -> ModelConfig | None:
    """The shape that the recipe publishes, or None where it leaves width, depth or vocabulary open."""
    size = model.size
    if size.width is None or size.num_layers is None or size.vocabulary_size is None:
        return None
    return shape(model.pattern, size, width=size.width, num_layers=size.num_layers, vocabulary_size=size.vocabulary_size, context=context)


def candidates(pattern: PatternSettings, pinned: SizeSettings, *, vocabulary_size: int, context: int) -> list[ModelConfig]:
    """Every rung of the ladder in this pattern; pinned settings hold in all of them, so duplicates are dropped."""
    found: list[ModelConfig] = []
    for width, num_layers in LADDER:
        config = shape(pattern, pinned, width=width, num_layers=num_layers, vocabulary_size=vocabulary_size, context=context)
        if config not in found:
            found.append(config)
    return found


def shape_key(config: ModelConfig, rows: int, context: int, dtype: str) -> str:
    """Names a training step in the machine profile: what decides its speed, nothing else."""
    layers = "".join(f"{'+' * (index > 0)}{_layer_key(layer)}{f'*{count}' * (count < config.num_layers)}" for index, (layer, count) in enumerate(_runs(config)))
    return f"w{config.width}l{config.num_layers}{layers}v{config.vocabulary_size}{'t' if config.tied else ''}-{rows}x{context}-{dtype}"


def _runs(config: ModelConfig) -> list[tuple[LayerConfig, int]]:
    """Kinds of layer and how many there are of each, in the order they first come: the order of layers does not change a step's time."""
    kinds = dict.fromkeys(config.layers)
    return [(kind, config.layers.count(kind)) for kind in kinds]


def _layer_key(layer: LayerConfig) -> str:
    if isinstance(layer.ffn, DenseConfig):
        ffn = f"f{layer.ffn.hidden}"
    else:
        ffn = f"e{layer.ffn.num_experts}k{layer.ffn.top_k}f{layer.ffn.hidden}{f's{layer.ffn.shared_hidden}' if layer.ffn.shared_hidden else ''}"
    norms = f"n{layer.post_mixer_norm:d}{layer.post_ffn_norm:d}" if layer.post_mixer_norm or layer.post_ffn_norm else ""
    return f"{layer.mixer.key}{ffn}{norms}"
