"""The templates of this folder, in which everything is escaped and a missing value is an error."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from hagane.report import text


def template(name: str) -> Template:
    """The template of this name."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["seconds"] = text.seconds
    return environment.get_template(name)
