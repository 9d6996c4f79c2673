"""The plan section shows what other budgets would have bought and every language beside what came; older plans are shown without."""

import json

from hagane.report.expected import expected
from hagane.report.page import render
from hagane.report.record import read_record

CURVE = [
    {"seconds": 60.0 * 2**k, "joules": 1860.0 * 2**k, "flops": 1e13, "num_active_parameters": 1e6, "bits_per_byte": 2.4 - 0.1 * k, "low": 2.2, "high": 2.5}
    for k in range(7)
]
LANGUAGES = {
    "en": {"bytes": 4_000_000, "read_bytes": 9e6, "repeats": 2.25, "worth": 0.97, "bits_per_byte": 2.0, "low": 1.9, "high": 2.1, "more_text_gain": 0.012},
    "de": {"bytes": 9_000_000, "read_bytes": 3e6, "repeats": 0.33, "worth": 1.0, "bits_per_byte": 2.1, "low": 2.0, "high": 2.2, "more_text_gain": 1e-9},
    "smj": {"bytes": 900_000, "read_bytes": 3.6e6, "repeats": 4.0, "worth": 0.91, "bits_per_byte": None, "low": None, "high": None, "more_text_gain": None},
}


def with_plan(folder, **facts):
    path = folder / "plan" / "facts.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["facts"] |= facts
    path.write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_curves_and_languages_stand_in_the_plan_section(finished_run):
    folder = with_plan(finished_run, curve=CURVE, languages=LANGUAGES)
    shown = expected(read_record(folder))
    assert [picture.title for picture in shown["pictures"]] == ["Loss against time", "Loss against energy"]
    assert "2.10 for 8 min" in shown["pictures"][0].svg and "chosen 8 min" in shown["pictures"][0].svg
    rows = {row[0]: row for row in shown["table"].rows}
    came = read_record(folder).facts("evaluate")["bits_per_byte"]["en"]["value"]
    assert rows["English"][1:4] == ("2.00 (1.90 to 2.10)", f"{came:.2f}", f"{100 * (came / 2.0 - 1):+.1f} %") and rows["English"][-1] == "0.012"
    assert rows["German"][-1] == "nothing" and rows["Lule Sami"][-1] == ""
    page = render(folder)
    assert "Loss against energy" in page and "10 MB more would take off" in page


def test_a_plan_of_an_older_version_or_a_damaged_one_is_shown_without(finished_run):
    assert expected(read_record(finished_run)) is None
    folder = with_plan(finished_run, curve=[{"seconds": None}, 3], languages={"en": 7, "sv": {}})
    shown = expected(read_record(folder))
    assert shown["pictures"] == [] and len(shown["table"].rows) == 1
    render(folder)
