"""Write report.html, one self-contained page, and plan.json beside it: the same bytes for the same run folder."""

from __future__ import annotations

from pathlib import Path

from hagane.errors import RunError
from hagane.folder import disk_error, write_atomic
from hagane.report import course, expected, mixture, provenance, quality, text
from hagane.report.plan_file import plan_file
from hagane.report.record import Record, read_record
from hagane.report.templates import template

NAME = "report.html"
PLAN = "plan.json"


def build_report(run_folder: Path) -> Path:
    """Render `run_folder`/report.html from what the run wrote down so far, with plan.json once there is a plan, and return the page's path.

    Works at any moment of a run: stages that are not done are shown as pending. Raises RunError where there is no run
    folder or the page cannot be written.
    """
    if not run_folder.is_dir():
        raise RunError(f"there is no run folder {run_folder}. `hagane run RECIPE --out {run_folder}` makes one.")
    record = read_record(run_folder)
    files = {run_folder / PLAN: plan_file(record), run_folder / NAME: page_of(record)}
    for path, content in files.items():
        try:
            if content is not None:
                write_atomic(path, content)
        except OSError as error:
            raise disk_error(error, path) from error
    return run_folder / NAME


def render(run_folder: Path) -> str:
    """The page as text."""
    return page_of(read_record(run_folder))


def page_of(record: Record) -> str:
    """The same of what was read. Everything from the run is escaped: samples come from a model, names and text from anywhere."""
    return template("template.html.jinja").render(
        head=course.headline(record),
        stages=record.stages,
        notices=record.notices,
        outcome=course.outcome(record),
        expected=expected.expected(record),
        mixture=mixture.mixture(record),
        losses=course.losses(record),
        languages=quality.languages(record),
        anchor=text.ANCHOR,
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
