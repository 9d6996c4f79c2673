"""What a release needs of a model, asked before anything is spent: a published architecture that holds it, and llama.cpp where GGUF files are demanded.

No torch here.
"""

from __future__ import annotations

from hagane.errors import RecipeError
from hagane.hosts import HOSTS, host_for
from hagane.hosts.gguf import unfit
from hagane.model.config import ModelConfig
from hagane.model.extend import extended
from hagane.plan.shapes import shape
from hagane.recipe.schema import Recipe, SizeSettings


def usual_shape(recipe: Recipe, size: SizeSettings) -> ModelConfig:
    """A model of the recipe's pattern, to ask with before a size is chosen; what `size` gives holds."""
    return shape(recipe.model.pattern, size, width=256, num_layers=4, vocabulary_size=4096, context=recipe.train.context)


def refuse_unheld(recipe: Recipe, config: ModelConfig) -> None:
    """Raise RecipeError where no host can hold a model of this recipe at the end of its stages, or llama.cpp cannot and `release.gguf` demands it."""
    if recipe.extend.share > 0:
        config = extended(config, recipe.extend.factor, recipe.extend.method)
    host = HOSTS[host_for(config)]
    if recipe.release.gguf is True and (reason := unfit(host, config)) is not None:
        raise RecipeError(f"release.gguf = true cannot be done: {reason}. Set it to false, or change model.pattern.")
