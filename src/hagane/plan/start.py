"""Starting from a published checkpoint: what the recipe then no longer decides, and the identity of what is read. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hagane.corpus.mixture import Replay
from hagane.errors import RecipeError
from hagane.hosts.published import read_config
from hagane.model.config import ModelConfig
from hagane.recipe.schema import Recipe, StartSettings


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
    """Raise RecipeError where --set asks for a shape or a vocabulary beside that of the checkpoint. [model] of a recipe file yields, as to a budget.

    So do settings of going on where there is nothing to go on from.
    """
    if recipe.start.from_ is None:
        idle = [name for name in StartSettings.model_fields if getattr(recipe.start, name) != StartSettings.model_fields[name].default]
        if idle:
            raise RecipeError(f"start.{idle[0]} says how to go on from a checkpoint, and none is given. Give --from HF_FOLDER, or leave it out.")
        return
    for setting in sorted(pinned):
        if setting.startswith(("model.", "tokenizer.")):
            raise RecipeError(f"--set {setting} contradicts start.from: shape and tokenizer come from {recipe.start.from_}. Leave one of the two out.")


def replay_of(recipe: Recipe) -> Replay | None:
    """The replay of the languages that the checkpoint knows; None where the recipe names none."""
    start = recipe.start
    return Replay(frozenset(start.languages), start.replay_share) if start.languages else None


def refuse_absent(recipe: Recipe, languages: Collection[str]) -> None:
    """Raise RecipeError where the corpus, which has `languages`, lacks one that the checkpoint is said to know, or has no other for new tokens."""
    known = recipe.start.languages
    absent = [language for language in known if language not in languages]
    if absent:
        raise RecipeError(
            f"start.languages names {absent[0]}, and the corpus has no text in it (only {', '.join(sorted(languages))}): it could neither be replayed "
            "nor its forgetting be measured. Give some, or leave it out."
        )
    if known and recipe.start.new_tokens not in (0, "auto") and not set(languages) - set(known):
        raise RecipeError("start.new_tokens asks for tokens for new languages, and start.languages names all that the corpus has. Leave one of the two out.")


def starting_settings(recipe: Recipe, *names: str) -> dict[str, Any]:
    """Settings of [start] and the identity of the checkpoint, for the keys of stages that read them: empty where there is none."""
    if recipe.start.from_ is None:
        return {}
    values = recipe.start.model_dump(mode="json")
    return {**starting_digest(recipe), **{f"start.{name}": values[name] for name in names}}


def starting_digest(recipe: Recipe) -> dict[str, str]:
    """Identity of the checkpoint for the keys of stages: empty where there is none."""
    from hagane.folder import file_digest

    folder = starting_folder(recipe)
    if folder is None:
        return {}
    digest = hashlib.blake2b(digest_size=16)
    named = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for path in sorted([*(folder / name for name in named), *folder.glob("*.safetensors")]):
        if path.exists():
            digest.update(f"{path.name}:{file_digest(path)}\n".encode())
    return {"start": digest.hexdigest()}
