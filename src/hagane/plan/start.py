"""Starting from a published checkpoint: what the recipe then no longer decides, and the identity of what is read. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from hagane.errors import RecipeError
from hagane.hosts.published import read_config
from hagane.model.config import ModelConfig
from hagane.recipe.schema import Recipe


def starting_folder(recipe: Recipe) -> Path | None:
    """The folder that the run starts from; None where it starts from initial weights."""
    return None if recipe.start.from_ is None else Path(recipe.start.from_)


def starting_model(recipe: Recipe) -> ModelConfig | None:
    """The model as its config.json describes it, whatever [model] says. Raises RecipeError where training asks for longer texts than it was made for."""
    folder = starting_folder(recipe)
    if folder is None:
        return None
    _, config, _ = read_config(folder)
    if recipe.train.context > config.context:
        raise RecipeError(
            f"train.context = {recipe.train.context} is more than the {config.context} tokens (max_position_embeddings) that {folder} was made for. Lower it."
        )
    return config


def refuse_conflicts(recipe: Recipe, pinned: Collection[str]) -> None:
    """Raise RecipeError where --set asks for a shape or a vocabulary beside that of the checkpoint. [model] of a recipe file yields, as to a budget."""
    if recipe.start.from_ is None:
        return
    for setting in sorted(pinned):
        if setting.startswith(("model.", "tokenizer.")):
            raise RecipeError(f"--set {setting} contradicts start.from: shape and tokenizer come from {recipe.start.from_}. Leave one of the two out.")


def starting_digest(recipe: Recipe) -> dict[str, str]:
    """Identity of the checkpoint for the keys of stages: empty where there is none."""
    from hagane.folder import file_digest

    folder = starting_folder(recipe)
    if folder is None:
        return {}
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted([folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]):
        if path.exists():
            digest.update(f"{path.name}:{file_digest(path)}\n".encode())
    return {"start": digest.hexdigest()}
