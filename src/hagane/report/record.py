"""Read back what a run wrote down: recipe, environment, facts of the stages, metrics and events.

A report must be possible at any moment of a run, also after a crash. So nothing here raises for a file that is missing
or damaged: what is missing is pending, and what is damaged is named in `Record.notices`, which the page shows.
"""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

STAGES = ("corpus", "tokenizer", "plan", "encode", "pretrain", "midtrain", "extend", "converse", "tune", "evaluate", "release")
OPTIONAL = ("midtrain", "extend", "converse", "tune")
MAX_LINES = 4000  # metrics lines parsed per stage; a longer file is read at even distances, figures show 400 points anyway

State = Literal["done", "under way", "pending"]


@dataclass(frozen=True)
class Stage:
    """One stage as its folder tells it. `metrics` are lines in the order of steps, `seconds` are active seconds or None."""

    name: str
    state: State
    seconds: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: tuple[dict[str, Any], ...] = ()
    events: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Record:
    """All that a run folder says about itself."""

    name: str
    recipe_text: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    stages: tuple[Stage, ...]
    seconds: float | None  # active seconds of the whole run so far, also those between stages
    notices: tuple[str, ...]
    joules: float | None = None  # counted over the same time; None where any of it had no counter
    mixture: dict[str, Any] = field(default_factory=dict)  # what `hagane mix` found for the text, if the folder has it

    def stage(self, name: str) -> Stage:
        """The stage of that name; a pending one where the run has none."""
        return next((stage for stage in self.stages if stage.name == name), Stage(name, "pending"))

    def facts(self, name: str) -> dict[str, Any]:
        return self.stage(name).facts

    @property
    def training(self) -> list[Stage]:
        """Stages that trained, in order: those with metrics or training facts."""
        return [stage for stage in self.stages if stage.name.split("/")[0] in ("pretrain", "midtrain", "extend", "tune") and (stage.metrics or stage.facts)]

    @property
    def finished(self) -> bool:
        return all(stage.state == "done" for stage in self.stages)


def dig(value: Any, *keys: str | int) -> Any:
    """The value found by following `keys` through mappings and lists; None where any of them is missing."""
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | tuple) and isinstance(key, int) and -len(value) <= key < len(value):
            value = value[key]
        else:
            return None
    return value


def number(value: Any) -> float | None:
    """A finite number, or None: facts may hold null, NaN or, in an older run, something else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def table(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[dict[str, Any]]:
    """The mappings in `value` if it is a list, else none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []


def read_record(run_folder: Path) -> Record:
    """Read a run folder, finished or not."""
    notices: list[str] = []
    recipe_text = _text(run_folder / "recipe.toml", run_folder, notices)
    try:
        recipe: dict[str, Any] = tomllib.loads(recipe_text)
    except tomllib.TOMLDecodeError as error:
        recipe = {}
        notices.append(f"recipe.toml is not valid TOML: {error}.")
    plan = table(table(_json(run_folder / "plan" / "facts.json", run_folder, [])).get("facts"))
    stages: list[Stage] = []
    for name in STAGES:
        stages += _stages(run_folder, name, plan, notices)
    environment = table(_json(run_folder / "environment.json", run_folder, notices))
    recipe |= table(environment.get("settings"))  # what `extends` and --set made of it
    clock = table(_json(run_folder / "clock.json", run_folder, notices))
    counted = (number(clock.get("seconds")) or 0.0) - (number(clock.get("origin")) or 0.0)
    seconds = max(counted, sum(stage.seconds or 0.0 for stage in stages)) or None
    mixture = table(_json(run_folder / "mixture.json", run_folder, notices))
    return Record(run_folder.resolve().name, recipe_text, recipe, environment, tuple(stages), seconds, tuple(notices), _joules(clock), mixture)


def _joules(clock: dict[str, Any]) -> float | None:
    """What the clock of a run counted since its plan began."""
    joules = number(clock.get("joules"))
    return None if joules is None else joules - (number(clock.get("origin_joules")) or 0.0) or None


def _stages(run_folder: Path, name: str, plan: dict[str, Any], notices: list[str]) -> Iterator[Stage]:
    """The stage `name`; for `tune` its steps (`tune/STEP`). A stage that the plan leaves out is left out here too."""
    planned = [key for key in table(plan.get("stages")) if key == name or key.startswith(f"{name}/")]
    whole = _stage(run_folder, name, notices)
    if name != "tune":
        if name not in OPTIONAL or planned or whole.metrics or not plan:
            yield whole
        return
    told = table(whole.facts.get("steps"))
    found = [f"{name}/{path.parent.name}" for path in sorted((run_folder / name).glob("*/metrics.jsonl"))]
    steps = list(dict.fromkeys([*planned, *(f"{name}/{step}" for step in told), *found]))
    if not steps and not plan:
        yield whole
    for step in steps:
        yield _stage(run_folder, step, notices, table(told.get(step.partition("/")[2])), done=whole.state == "done")


def _stage(run_folder: Path, name: str, notices: list[str], known: dict[str, Any] | None = None, *, done: bool = False) -> Stage:
    folder = run_folder / name
    metrics = tuple(_lines(folder / "metrics.jsonl", run_folder, notices))
    events = tuple(_lines(folder / "events.jsonl", run_folder, notices))
    document = table(_json(folder / "facts.json", run_folder, notices))
    step = table(_json(folder / "step.json", run_folder, notices))  # of a tune step, before the whole stage is done
    state: State = "done" if document or step or done else "under way" if metrics or events or (folder / "key.json").exists() else "pending"
    facts = known or step or table(document.get("facts"))
    # A stage resumed in place counts only its last attempt; its own facts and metrics count all of them.
    told = [number(document.get("seconds")), number(facts.get("seconds")), number(metrics[-1].get("seconds")) if metrics else None]
    seconds = max((value for value in told if value is not None), default=None)
    return Stage(name, state, seconds, facts, metrics, events)


def _text(path: Path, root: Path, notices: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        notices.append(f"{path.relative_to(root).as_posix()} could not be read: {error}.")
        return ""


def _json(path: Path, root: Path, notices: list[str]) -> Any:
    text = _text(path, root, notices)
    try:
        return json.loads(text) if text.strip() else None
    except ValueError as error:
        notices.append(f"{path.relative_to(root).as_posix()} is damaged: {error}.")
        return None


def _lines(path: Path, root: Path, notices: list[str]) -> Iterator[dict[str, Any]]:
    """Parsed lines, at even distances where there are more than MAX_LINES. A half-written last line is no damage: the run may be writing it."""
    text = _text(path, root, notices)
    whole, _, _ = text.rpartition("\n")
    lines = whole.split("\n") if whole else []
    stride = max(1, math.ceil(len(lines) / MAX_LINES))
    damaged = 0
    for line in itertools.chain(lines[:-1:stride], lines[-1:]):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            yield value
        elif line.strip():
            damaged += 1
    if damaged:
        notices.append(f"{path.relative_to(root).as_posix()} has {damaged} damaged line{'s' if damaged > 1 else ''}; they were left out.")
