"""The documentation is true where a test can tell: commands, settings, names of metrics and events, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from hagane.cli import app
from hagane.recipe.load import load_recipe, shipped_recipes
from hagane.recipe.schema import Recipe
from hagane.train.facts import RouterHealth, TrainFacts

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
TRAIN = ROOT / "src" / "hagane" / "train"


def console_lines(page: Path) -> Iterator[str]:
    """Commands of the ```console blocks: lines that start with `$ `, continued while they end in a backslash."""
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield line[2:].strip()


COMMANDS = sorted({line for page in PAGES for line in console_lines(page)})


def parse(words: list[str]) -> str:
    """Check the command and its options against the app without running it; returns the command's name. Raises what the parser raises."""
    command: Any = typer.main.get_command(app)
    context, names = None, ["hagane"]
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):
            assert words == ["--help"], f"{' '.join(names)} {words} is not a command"
            return names[-1]
        context = type(command).context_class(command, info_name=names[-1], parent=context)
        name, command, words = command.resolve_command(context, words)
        names.append(name)
    command.make_context(names[-1], [word for word in words if word != "--debug"], parent=context)
    return " ".join(names[1:])


@pytest.mark.parametrize("line", [line for line in COMMANDS if "hagane " in line and re.match(r"(\S+=\S+ )*hagane ", line)])
def test_hagane_commands_parse(line: str) -> None:
    words = shlex.split(line)
    words = words[words.index("hagane") + 1 :]
    name = parse(words)
    if name in ("run", "plan", "recipe show") and not words[-1].startswith("runs/"):
        recipe = words[len(name.split())]
        assert recipe in shipped_recipes() or recipe.endswith(".toml") or recipe.startswith("runs/"), f"{recipe} is not a shipped recipe"
        given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        if recipe in shipped_recipes():
            load_recipe(recipe, given)


@pytest.mark.parametrize(
    "words", [["rnu", "quickstart"], ["run", "quickstart", "--bugdet", "5min"], ["run"], ["chat", "a", "b"], ["recipe", "shwo", "x"]], ids=" ".join
)
def test_a_wrong_command_does_not_parse(words: list[str]) -> None:
    """The check above can fail."""
    with pytest.raises(Exception, match=r"(?i)no such|missing|unexpected"):
        parse(words)


def test_every_command_is_in_the_documentation() -> None:
    root: Any = typer.main.get_command(app)
    names = [*root.commands, *(f"recipe {name}" for name in root.commands["recipe"].commands)]
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    stages = re.search(r"`hagane corpus RUN`, and so on for (.*?) \|", text)
    assert stages is not None
    missing = [name for name in names if f"hagane {name}" not in text and f"`{name}`" not in stages[1]]
    assert missing == []


@pytest.mark.parametrize("line", [line for line in COMMANDS if " make " in f" {line}"])
def test_make_commands_have_a_target(line: str) -> None:
    words = [word for word in shlex.split(line) if "=" not in word]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert words[0] == "make" and set(words[1:]) <= set(targets)


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Names of all settings; the entries of a list are written `name[].setting`."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = next(
            (part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(part, type) and issubclass(part, BaseModel)), None
        )
        if inner is None:
            yield path
        else:
            yield from settings(inner, f"{path}." if inner is field.annotation else f"{path}[].")


def test_every_setting_is_documented_and_none_else() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([^`]+)` \|", page[page.index("## Settings") :], flags=re.MULTILINE)
    assert sorted(listed) == sorted(settings(Recipe))


def test_every_shipped_recipe_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in shipped_recipes() if f"| `{name}` |" not in readme] == []


def test_metrics_and_events_are_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted(TRAIN.glob("*.py")))
    events = set(re.findall(r'_event\(\s*"(\w+)"', source)) | {"start", "resume", "broken_checkpoint", "no_checkpoint"}
    lines = re.search(r"^    metrics  (.*?)\n    events", source, flags=re.MULTILINE | re.DOTALL)
    assert lines is not None and len(events) >= 8
    metrics = set(re.findall(r"\w+", lines[1]))
    wanted = events | metrics | {f"router.{name}" for name in RouterHealth.model_fields} | set(TrainFacts.model_fields)
    assert sorted(name for name in wanted if f"`{name}`" not in page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_no_place_of_ours_is_named(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, f"{page.name}: {target}"
    assert not re.search(r"(?<![\w.~$])/(home|root|work|tmp|mnt)/", text)
    assert not re.search(r"pypi|index[-]url|localhost|\.\./shared", text)
