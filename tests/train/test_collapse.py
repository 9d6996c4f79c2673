"""Training that begins collapsed: all tokens share a direction that the routers' first experts love."""

import pytest
import torch
from toy_training import phase

from hagane.model.config import AttentionConfig, EntropyClamp, ExpertsConfig, LayerConfig, ModelConfig
from hagane.train.probe import random_step
from hagane.train.stepper import Stepper


def trained_from_collapse(clamped: bool) -> list[int]:
    """Experts without a token, at every step."""
    clamp = EntropyClamp(rate=0.3) if clamped else None
    ffn = ExpertsConfig(num_experts=6, top_k=2, hidden=16, aux_coefficient=0.0, z_coefficient=0.0, entropy_clamp=clamp)
    layers = (LayerConfig(mixer=AttentionConfig(num_heads=2, num_kv_heads=1, head_dim=16), ffn=ffn),)
    stepper = Stepper(ModelConfig(vocabulary_size=97, width=32, layers=layers, context=16), device="cpu", dtype="float32", compiled=False, seed=0)
    with torch.no_grad():
        direction_D = torch.ones(32) / 32**0.5
        stepper.decoder.embedding.weight += 0.5 * direction_D
        stepper.decoder.layers[0].ffn.router.weight[:2] += 0.5 * direction_D
    dead = []
    for index in range(150):
        result = stepper.step(random_step(97, 8, 16, seed=index % 8), phase(clip=10.0), 1e-3)
        dead.append(int((result.stats.layers[0].count_E == 0).sum()))
    return dead


@pytest.mark.parametrize("clamped", [True, False])
def test_dead_experts_come_back_with_the_clamp_alone(clamped: bool) -> None:
    dead = trained_from_collapse(clamped)
    assert min(dead[:3]) == 4, "two of six take everything"
    assert (max(dead[-20:]) == 0) == clamped
