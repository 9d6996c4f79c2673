"""A tiny model of every host, each with all that sets the host apart, for tests of what other engines read."""

from __future__ import annotations

import torch
from torch import Tensor

from hagane.model.config import (
    AttentionConfig,
    DeltaConfig,
    DenseConfig,
    ExpertsConfig,
    IndexConfig,
    LatentConfig,
    LayerConfig,
    MixerConfig,
    ModelConfig,
    RopeConfig,
    YarnConfig,
)
from hagane.model.decoder import Decoder

DENSE = DenseConfig(hidden=48)
SOFTMAX = ExpertsConfig(num_experts=4, top_k=2, hidden=16)
SHARED = ExpertsConfig(num_experts=4, top_k=2, hidden=16, shared_hidden=24, shared_gate=True)
SIGMOID = ExpertsConfig(num_experts=4, top_k=2, hidden=16, score="sigmoid", balance="bias", aux_coefficient=0.0, shared_hidden=16, scaling=1.5)
GROUPED = SIGMOID.model_copy(update={"num_experts": 8, "num_groups": 4, "top_groups": 2, "shared_hidden": 32, "normalise": False})
PLAIN = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8)
NORMED = PLAIN.model_copy(update={"qk_norm": True})
PARTIAL = PLAIN.model_copy(update={"partial_rotary": 4})
GATED = PARTIAL.model_copy(update={"qk_norm": True, "gate": "sigmoid"})
WINDOWED = NORMED.model_copy(update={"gate": "sigmoid", "window": 6})
WHOLE = WINDOWED.model_copy(update={"window": None, "rope": None})
DELTA = DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=8)
YARN = YarnConfig(factor=4.0, original_context=32, mscale=0.8, mscale_all_dim=1.2)


def latent(**settings: object) -> LatentConfig:
    return LatentConfig.model_validate({"num_heads": 4, "query_rank": 12, "kv_rank": 16, "nope_dim": 6, "rope_dim": 8, "value_dim": 10, **settings})


def layers(mixer: MixerConfig, *ffns: DenseConfig | ExpertsConfig) -> list[LayerConfig]:
    return [LayerConfig(mixer=mixer, ffn=ffn) for ffn in ffns]


def gated(mixer: LatentConfig, *ffns: DenseConfig | ExpertsConfig, rank: int = 4) -> list[LayerConfig]:
    """Layers with gates on their norms, as axk2's."""
    return [LayerConfig(mixer=mixer, ffn=ffn, mixer_norm_rank=rank, ffn_norm_rank=None if isinstance(ffn, DenseConfig) else rank) for ffn in ffns]


def sandwiched(mixers: list[AttentionConfig], ffns: list[DenseConfig | ExpertsConfig]) -> list[LayerConfig]:
    """Layers with norms after both halves, as afmoe's."""
    return [LayerConfig(mixer=mixer, ffn=ffn, post_mixer_norm=True, post_ffn_norm=True) for mixer, ffn in zip(mixers, ffns, strict=True)]


def model(parts: list[LayerConfig], **settings: object) -> ModelConfig:
    return ModelConfig.model_validate({"vocabulary_size": 320, "width": 32, "context": 192, "init_std": 0.12, **settings, "layers": tuple(parts)})


INDEX = IndexConfig(num_heads=8, head_dim=16, top_k=12)
CONFIGS = {
    "llama": model(layers(PLAIN, DENSE, DENSE)),
    "qwen3": model(layers(NORMED, DENSE, DENSE), tied=True),
    "qwen3_moe": model(layers(NORMED, SOFTMAX, SOFTMAX)),
    "glm4_moe": model(layers(PARTIAL, DENSE, SIGMOID, SIGMOID)),
    "afmoe": model(sandwiched([WINDOWED, WINDOWED, WINDOWED, WHOLE], [DENSE, SIGMOID, SIGMOID, SIGMOID]), embedding_scale=32**0.5),
    "deepseek_v3": model(layers(latent(), DENSE, GROUPED, GROUPED)),
    "axk1": model([
        LayerConfig(mixer=latent(rope=RopeConfig(yarn=YARN)), ffn=ffn, post_ffn_norm=ffn is GROUPED) for ffn in (DENSE, GROUPED, GROUPED)
    ]),
    "deepseek_v32": model(layers(latent(index=INDEX), DENSE, GROUPED, GROUPED)),
    "axk2": model(gated(latent(index=INDEX, gate="sigmoid"), DENSE, GROUPED, GROUPED)),
    "qwen3_next": model([LayerConfig(mixer=mixer, ffn=SHARED) for mixer in (DELTA, DELTA, DELTA, GATED)]),
}  # fmt: skip
"""By host."""


def masters(config: ModelConfig) -> dict[str, Tensor]:
    """Float32 masters: random, norms that are not one, biases that choose other experts."""
    decoder = Decoder(config)
    decoder.init_weights(1)
    generator = torch.Generator().manual_seed(0)
    state = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    state = {name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator) if tensor.dim() == 1 else tensor for name, tensor in state.items()}
    return {**state, **{name: 0.1 * torch.randn(bias.shape, generator=generator) for name, bias in decoder.selection_biases().items()}}
