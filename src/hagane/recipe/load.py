"""Read a recipe: TOML file or shipped name, `extends`, `--set`, and errors that name the nearest right setting."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hagane.errors import RecipeError
from hagane.recipe.schema import Recipe

Model = TypeVar("Model", bound=BaseModel)


def shipped_recipes() -> dict[str, str]:
    """Name -> text of every recipe in the library."""
    folder = resources.files("hagane.recipe") / "library"
    return {
        item.name.removesuffix(".toml"): item.read_text(encoding="utf-8")
        for item in sorted(folder.iterdir(), key=lambda i: i.name)
        if item.name.endswith(".toml")
    }


def load_recipe(name_or_file: str, settings: list[str] | None = None) -> tuple[Recipe, str]:
    """The validated recipe and its text as the user gave it. `settings` are `a.b=value` overrides. Raises RecipeError."""
    text, origin, where = _read(name_or_file)
    merged = _with_parents(parse_toml(text, where), origin, where, ())
    given: dict[str, Any] = {}
    for setting in settings or ():
        _assign(given, setting)
    merged = one_dial(merged, given)
    for setting in settings or ():
        _assign(merged, setting)
    return validate(merged, where), text


def one_dial(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`values` without the amount that they say is to be spent, where `given`, which comes after them, says another: a budget or train.tokens."""
    train = values.get("train", {})
    if "budget" in given:
        values = {**values, "train": {name: value for name, value in train.items() if name != "tokens"}} if isinstance(train, dict) else values
    if isinstance(given.get("train"), dict) and "tokens" in given["train"]:
        values = {name: value for name, value in values.items() if name != "budget"}
    return values


def validate(values: dict[str, Any], where: str) -> Recipe:
    """Check plain values against the schema; errors become one sentence each. Raises RecipeError."""
    return checked(Recipe, values, where)


def checked(model: type[Model], values: dict[str, Any], where: str, noun: str = "setting") -> Model:
    """Plain values as a `model`; every error is one sentence that names the nearest right `noun`. Raises RecipeError."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RecipeError("\n".join(_sentence(item, where, model, noun) for item in error.errors())) from None


def read_text(path: Path, what: str, remedy: str) -> str:
    """The text of a user's file; `what` is the word for it and `remedy` what to do if it is missing. Raises RecipeError."""
    if not path.is_file():
        raise RecipeError(f"{what} {path} does not exist. {remedy}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"{what} {path} is not a UTF-8 text file.") from None
    except OSError as error:
        raise RecipeError(f"{what} {path} cannot be read: {error.strerror}.") from None


def _read(name_or_file: str) -> tuple[str, Path, str]:
    path = Path(name_or_file)
    if path.suffix == ".toml" or path.is_file():
        remedy = "`hagane recipe list` shows the shipped ones; `hagane recipe new` writes one."
        return read_text(path, "recipe", remedy), path.parent, f"recipe {path.name}"
    shipped = shipped_recipes()
    if name_or_file in shipped:
        return shipped[name_or_file], Path(), f"recipe {name_or_file}"
    near = difflib.get_close_matches(name_or_file, shipped, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" Shipped recipes: {', '.join(shipped)}."
    raise RecipeError(f"there is no recipe {name_or_file!r}.{hint} A file of your own ends in .toml.")


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The values of a TOML text; `where` names it in the error. Raises RecipeError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where} is not valid TOML: {error}.") from None


def _with_parents(values: dict[str, Any], folder: Path, where: str, seen: tuple[str, ...]) -> dict[str, Any]:
    parent = values.get("extends")
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise RecipeError(f"{where}: extends must be one recipe name or file.")
    reference = str(folder / parent) if parent.endswith(".toml") else parent
    if reference in seen:
        raise RecipeError(f"{where}: extends goes round in a circle ({' -> '.join((*seen, reference))}).")
    text, origin, parent_where = _read(reference)
    base = _with_parents(parse_toml(text, parent_where), origin, parent_where, (*seen, reference))
    return _merge(one_dial(base, values), values)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in top.items():
        merged[key] = _merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return merged


def _assign(values: dict[str, Any], setting: str) -> None:
    path, sign, text = setting.partition("=")
    if not sign or not path.strip():
        raise RecipeError(f"--set {setting} is not of the form section.setting=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # an unquoted string
    *parents, last = path.strip().split(".")
    table = values
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {setting}: {parent} is not a section.")
    table[last] = value


def _sentence(item: Any, where: str, model: type[BaseModel], noun: str) -> str:
    path = _dotted(item["loc"])
    if item["type"] == "extra_forbidden":
        names = _names_at(model, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1, cutoff=0.5)
        return f"{where}: {path} is not a {noun}. " + (f"Did you mean {near[0]}?" if near else f"There is: {', '.join(names)}.")
    if item["type"] == "missing":
        return f"{where}: {path} is missing."
    message = item["msg"].removeprefix("Value error, ")
    prefix = f"{where}: {path} = {item['input']!r}: " if path and not isinstance(item["input"], dict) else f"{where}: {path + ': ' if path else ''}"
    return f"{prefix}{message[0].lower() + message[1:]}."


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _names_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Setting names of the section at `location`."""
    section: type[BaseModel] | None = model
    for part in location:
        if section is not None and isinstance(part, str):
            section = _section(section.model_fields[part].annotation)
    return [field.alias or name for name, field in section.model_fields.items()] if section is not None else []


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `Model`, `tuple[Model, ...]` or `tuple[Model, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _section(part)) is not None), None)
