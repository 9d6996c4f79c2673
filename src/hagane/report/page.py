"""Write report.html: one self-contained page, the same bytes for the same run folder."""

from __future__ import annotations

from pathlib import Path

from hagane.errors import RunError
from hagane.folder import disk_error, write_atomic
from hagane.report import course, expected, mixture, provenance, quality
from hagane.report.record import read_record
from hagane.report.templates import template

NAME = "report.html"


def build_report(run_folder: Path) -> Path:
    """Render `run_folder`/report.html from what the run wrote down so far, and return its path.

    Works at any moment of a run: stages that are not done are shown as pending. Raises RunError where there is no run
    folder or the page cannot be written.
    """
    if not run_folder.is_dir():
        raise RunError(f"there is no run folder {run_folder}. `hagane run RECIPE --out {run_folder}` makes one.")
    path = run_folder / NAME
    page = render(run_folder)
    try:
        write_atomic(path, page)
    except OSError as error:
        raise disk_error(error, path) from error
    return path


def render(run_folder: Path) -> str:
    """The page as text. Everything from the run is escaped: samples come from a model, names and text from anywhere."""
    record = read_record(run_folder)
    return template("template.html.jinja").render(
        head=course.headline(record),
        stages=record.stages,
        notices=record.notices,
        outcome=course.outcome(record),
        expected=expected.expected(record),
        mixture=mixture.mixture(record),
        losses=course.losses(record),
        languages=quality.languages(record),
        router=course.router(record),
        dense=course.is_dense(record),
        speed=course.speed(record),
        energy=course.energy(record),
        answers=quality.answers(record),
        retrieval=quality.retrieval(record),
        samples=quality.samples(record),
        data=provenance.data(record),
        environment=provenance.environment(record),
        events=provenance.events(record),
        recipe_text=record.recipe_text,
    )
