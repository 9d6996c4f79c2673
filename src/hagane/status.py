"""Answers that need no training: the state of a run, a recipe resolved or checked."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hagane.corpus.stores import is_url
from hagane.errors import RecipeError
from hagane.folder import open_environment, read_json
from hagane.plan.held import refuse_unheld, usual_shape
from hagane.preview import preview
from hagane.recipe.load import load_recipe, validate
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import duration
from hagane.run import STAGES, headline, open_run


def status_of(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Lines for people and facts for scripts about a run folder."""
    opened = open_run(folder)
    lines = [f"{folder}: recipe {opened.recipe.name}, budget {opened.recipe.budget or 'none'}"]
    states: dict[str, str] = {}
    for stage in STAGES:
        record = opened.record(stage.name)
        if record is not None:
            states[stage.name] = "done"
            lines.append(f"  {stage.name:<10} done in {duration(record['seconds'])}: {headline(stage.name, record['facts'])}")
        elif metrics := _last_metrics(opened.path(stage.name)):
            states[stage.name] = "started"
            lines.append(f"  {stage.name:<10} step {metrics['step']:,}, loss {metrics['loss']:.3f}, {metrics['tokens_per_second']:,.0f} tokens/s")
        else:
            states[stage.name] = "pending"
            lines.append(f"  {stage.name:<10} pending")
    clock = read_json(folder / "clock.json") if (folder / "clock.json").exists() else {"seconds": 0.0, "attempts": 0}
    lines.append(f"  active {duration(clock['seconds'])} in {clock['attempts']} attempts")
    if any(state != "done" for state in states.values()):
        lines.append(f"  go on with: hagane resume {folder}")
    return lines, {"run": str(folder), "stages": states, "seconds": clock["seconds"], "attempts": clock["attempts"]}


def _last_metrics(folder: Path) -> dict[str, Any] | None:
    """The newest complete line of a training stage's metrics, its steps included."""
    found = sorted([*folder.glob("metrics.jsonl"), *folder.glob("*/metrics.jsonl")], key=lambda path: path.stat().st_mtime)
    for line in reversed(found[-1].read_text(encoding="utf-8").splitlines() if found else []):
        try:
            values: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line being written now
        return values
    return None


def show_recipe(name: str, budget: str | None, settings: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Every setting with its value; for a run folder also what the plan derived, each value with its reason."""
    folder = Path(name)
    reasons: dict[str, str] = {}
    if (folder / "environment.json").exists():
        environment = open_environment(folder)
        recipe = validate(environment.settings, str(folder))
        if (folder / "plan" / "facts.json").exists():
            reasons = read_json(folder / "plan" / "facts.json")["facts"]["reasons"]
    else:
        recipe, _ = load_recipe(name, settings)
        if budget:
            recipe = validate({**recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True), "name": recipe.name, "budget": budget}, name)
        reasons = _preview_reasons(recipe, tuple(setting.partition("=")[0] for setting in settings))
    lines = _flat(recipe)
    lines += ["", "derived:", *(f"  {key}: {value}" for key, value in reasons.items())] if reasons else []
    return lines, {"recipe": recipe.model_dump(mode="json", by_alias=True), "derived": reasons}


def _preview_reasons(recipe: Recipe, pinned: tuple[str, ...]) -> dict[str, str]:
    try:
        _, facts = preview(recipe, pinned)
    except RecipeError as error:
        return {"plan": str(error)}
    if "tokens" not in facts:
        return {"model": f"{facts['num_parameters']:,} parameters, {facts['num_active_parameters']:,} active: the size that the recipe gives"}
    reasons: dict[str, str] = facts["reasons"]
    return reasons


def _flat(value: BaseModel, prefix: str = "") -> list[str]:
    lines = []
    for name, field in type(value).model_fields.items():
        item, path = getattr(value, name), f"{prefix}{field.alias or name}"
        if isinstance(item, BaseModel):
            lines += _flat(item, f"{path}.")
        elif isinstance(item, tuple) and item and isinstance(item[0], BaseModel):
            for index, entry in enumerate(item):
                lines += _flat(entry, f"{path}[{index}].")
        else:
            lines.append(f"{path} = {item!r}" + (f"   # {field.description}" if field.description else ""))
    return lines


def check_recipe_file(file: str, settings: list[str]) -> list[str]:
    """Notes on a recipe that loads; raises RecipeError for one that cannot work."""
    recipe, _ = load_recipe(file, settings)
    notes = [f"{file}: {recipe.name}: every setting is known and none contradict"]
    for source in recipe.corpus.sources:
        for path in source.path:
            if is_url(path):
                notes.append(f"{path}: what is there is looked at when the run starts")
            elif not path.startswith("embedded:") and not glob.glob(path, recursive=True):  # noqa: PTH207 - patterns may be absolute
                raise RecipeError(f"corpus source {source.name}: {path} matches no file. Correct the path, or give the text with --corpus.")
    if not recipe.corpus.sources:
        notes.append("it names no corpus: give --corpus PATH when you run it")
    if recipe.budget is None and recipe.train.tokens is None:
        notes.append("it names no budget: give --budget when you run it")
    refuse_unheld(recipe, usual_shape(recipe, SizeSettings()))
    return notes
