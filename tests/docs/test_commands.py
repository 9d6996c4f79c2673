"""The documentation is true where a test can tell: names of commands, settings, metrics and events, recipes, links.

Its commands are executed by `test_run_commands`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from documented import COMMANDS, PAGES, ROOT, blocks, help_examples
from hagane.recipe.load import load_recipe, shipped_recipes
from hagane.recipe.schema import Recipe
from hagane.train.facts import RouterHealth, TrainFacts

TRAIN = ROOT / "src" / "hagane" / "train"


def test_every_command_shows_an_example_and_is_in_the_documentation() -> None:
    examples = help_examples()
    assert [name for name, line in examples.items() if not line.startswith(f"hagane {name}")] == []
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    stages = re.search(r"`hagane corpus RUN`, and so on for (.*?) \|", readme)
    assert stages is not None
    missing = [name for name in examples if f"hagane {name}" not in (text if " " in name else readme) and f"`{name}`" not in stages[1]]
    assert missing == []


@pytest.mark.parametrize("line", [line for line in COMMANDS if " make " in f" {line}"])
def test_make_commands_have_a_target(line: str) -> None:
    words = [word for word in shlex.split(line) if "=" not in word]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert words[0] == "make" and set(words[1:]) <= set(targets)


@pytest.mark.parametrize("text", [text for page in PAGES for text in blocks(page, "toml")])
def test_every_piece_of_a_recipe_loads(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.toml").write_text(text if "name = " in text.partition("[")[0] else f'name = "page"\n{text}', encoding="utf-8")
    load_recipe(str(tmp_path / "page.toml"))


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


def test_the_page_of_mechanisms_names_every_row_of_their_benchmark_and_entries_that_are_there() -> None:
    page = (ROOT / "docs" / "mechanisms.md").read_text(encoding="utf-8")
    titles = set(re.findall(r"^## (.*)$", (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8"), re.M))
    claims = page[page.index("## What was claimed") : page.index("## When to take which")]
    named = [line.rsplit("|", 2)[1].strip() for line in claims.splitlines() if line.startswith("|")][2:]
    assert [title for entry in named for title in entry.split("; ") if title not in {*titles, "the same"}] == []
    rows = re.findall(r'^    "([\w-]+)": ', (ROOT / "benchmarks" / "mechanisms.py").read_text(encoding="utf-8"), re.M)
    assert rows and [row for row in rows if f"`{row}`" not in page] == []
    assert re.findall(r"\b[A-Z]+_[A-Z]+\b", page) == [], "a figure that was to be filled in"
