"""Every rebuilt system trains at laptop size: the smallest rung of its own recipe, with its optimizer, through all that its indexers go through."""

import math

import pytest
import torch
from toy_training import phase

from hagane.model.config import ExpertsConfig
from hagane.model.indexer import is_indexers
from hagane.plan.shapes import candidates
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.train.probe import random_step
from hagane.train.stepper import Stepper, StepResult

SYSTEMS = ("llm-jp-4-8b", "llm-jp-4-32b-a3b", "ax-k1", "neurosynth-7", "neurosynth-9", "amplimind-xl")
VOCABULARY, ROWS, CONTEXT, STEPS = 97, 8, 32, 6


def started(name: str) -> tuple[Stepper, dict[str, object]]:
    """The smallest model of a recipe before its first step, and the settings of its phases; without weight decay: what moves has a gradient."""
    recipe, _ = load_recipe(name)
    config = candidates(recipe.model.pattern, SizeSettings(), vocabulary_size=VOCABULARY, context=CONTEXT)[0]
    stepper = Stepper(config, device="cpu", dtype=recipe.train.dtype, compiled=False, seed=0, optimizer=recipe.train.optimizer)
    return stepper, {**recipe.train.of_phases(), "weight_decay": 0.0}


def state(stepper: Stepper) -> dict[str, torch.Tensor]:
    """Masters and what routers remember, as they are now."""
    return {name: value.clone() for name, value in [*stepper.optimizer.masters.items(), *stepper.decoder.router_state().items()]}


def trained(stepper: Stepper, settings: dict[str, object]) -> list[StepResult]:
    """Some steps on the same batch in every mode that the model's indexers have; those of the warm-up, when the indexers alone learn, are not given back."""
    data, results = random_step(VOCABULARY, ROWS, CONTEXT), []
    for index in ("dense", "warmup", "together", "sparse") if any(map(is_indexers, stepper.optimizer.masters)) else ("sparse",):
        for _ in range(STEPS):
            result = stepper.step(data, phase(**settings, index=index), 1e-2)
            assert all(math.isfinite(float(value)) for value in (result.loss, result.auxiliary_loss, result.mtp_loss, result.gradient_norm))
            results += [result] if index != "warmup" else []
    return results


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_smallest_of_a_system_trains_and_every_weight_learns(name: str) -> None:
    stepper, settings = started(name)
    before = state(stepper)
    results = trained(stepper, settings)
    after = state(stepper)
    assert results[-1].loss < results[0].loss - 0.5  # by 0.8 to 3.2 after these few steps
    assert [key for key in after if torch.equal(after[key], before[key]) and not key.endswith("bias_E")] == []
    for index, layer in enumerate(stepper.decoder.config.layers):
        if isinstance(layer.ffn, ExpertsConfig):
            key = f"layers.{index}.ffn.router.bias_E"
            assert torch.equal(after[key], before[key]) == (layer.ffn.balance == "loss")
            used_E = sum(result.stats.layers[index].count_E for result in results) > 0
            for key in (f"layers.{index}.ffn.{matrix}" for matrix in ("gate_up", "down")):
                moved_E = (after[key] != before[key]).flatten(1).any(1)
                assert int(used_E.sum()) >= layer.ffn.top_k and moved_E[used_E].all(), f"{key}: every expert that got a token"
    for one in results[-1].stats.indexers:
        if one is not None:
            assert 1 <= one.read_sum / one.num_tokens < (CONTEXT / 2 + 1) / 2, "fewer than the keys that a token of half a row sees: something is chosen"

