"""Write a new recipe: ask a few questions, answer the rest with the defaults, explain every line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hagane.errors import RecipeError
from hagane.recipe.load import load_recipe

_TEXT = """# A hagane recipe. Everything left out is derived by the plan; `hagane recipe show {file}` explains each value.
name = {name}
description = {description}
budget = {budget}              # time (10min, 8h), energy (2kWh), FLOPs (1e17FLOP), tokens (5Mtokens) or money (40USD)

[[corpus.sources]]
name = "mine"
path = {path}
{language}{license}
# Problems with worked solutions in nine languages: they teach the thinking mode.
[[corpus.sources]]
name = "problems"
path = "embedded:problems"
share = 0.2                    # of the training rows

[model.pattern]
ffn = {ffn}               # "dense", or "experts" for a mixture of experts

[tune]
share = 0.25                   # of the training time
"""


def write_recipe(file: Path, ask: Callable[[str, str], str]) -> None:
    """Ask with `ask(question, default)` and write `file`, which must not exist. The result is checked before it is kept."""
    if file.exists():
        raise RecipeError(f"{file} exists already. Choose another name: nothing was written.")
    if file.suffix != ".toml":
        raise RecipeError(f"{file}: a recipe's file name ends in .toml.")
    name = ask("Name of the model", file.stem.lower())
    description = ask("What is it for, in one sentence", "A model of my own languages")
    path = ask("Where is the text (file, folder or glob)", "texts/")
    language = ask("Its language, if the files do not say (BCP-47 such as sv or smj; empty if they do)", "")
    license_ = ask("Its licence, if the files do not say (such as CC-BY-4.0; empty if they do)", "")
    budget = ask("Budget", "1h")
    ffn = ask("Feed-forward: dense or experts", "experts")
    text = _TEXT.format(
        file=file.name, name=json.dumps(name), description=json.dumps(description, ensure_ascii=False), budget=json.dumps(budget),
        path=json.dumps(path, ensure_ascii=False), ffn=json.dumps(ffn),
        language=f"language = {json.dumps(language)}\n" if language else '# language = "sv"              # where neither file nor folder name says\n',
        license=f"license = {json.dumps(license_)}\n" if license_ else '# license = "CC-BY-4.0"         # goes into the manifest and the card\n',
    )  # fmt: skip
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{file} cannot be written: {error.strerror}.") from None
    try:
        load_recipe(str(file))
    except RecipeError:
        file.unlink()
        raise
