"""What the documentation and `--help` show: the pages, the command lines and code in them, the example of every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from hagane.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, kind: str) -> list[str]:
    """Contents of the fenced code blocks marked `kind`."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def lines(page: Path) -> Iterator[str]:
    """Commands of a page, in its `console` blocks and transcripts: lines that start with `$ `, continued while they end in a backslash."""
    for block in [*blocks(page, "console"), *blocks(page, "text")]:
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield line[2:].strip()


def help_examples() -> dict[str, str]:
    """Name of every command (`""` is hagane itself) -> the example its `--help` shows, or nothing."""
    root: Any = typer.main.get_command(app)
    commands = {"": root}
    for name, command in root.commands.items():
        commands |= {name: command} | {f"{name} {part}": one for part, one in getattr(command, "commands", {}).items()}
    return {name: (command.epilog or "").removeprefix("Example: ") for name, command in commands.items()}


COMMANDS = sorted({line for page in PAGES for line in lines(page)})
EXAMPLES = sorted(set(help_examples().values()))

