"""Benchmarks of the plan: they judge by the goals of the issue, go on after an interruption, and work from end to end at toy size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import budget
import plan_law
from common import Kept, finish

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FROZEN = {"time": 1.0, "memory": 1.0, "spent": 1.0, "tokens": 1.0, "progress": 1.0, "width": 64}


def last_line(text: str) -> dict:
    return json.loads(text.strip().splitlines()[-1])


def cases(*rows: dict) -> dict[budget.Case, dict]:
    return {budget.Case("nordic", "", f"{number + 2}min", row.pop("kind", "frozen")): FROZEN | row for number, row in enumerate(rows)}


def test_what_was_finished_is_kept_and_what_was_cut_off_is_not(tmp_path):
    kept = Kept(tmp_path)
    kept.put({"time": 1.0}, "nordic", 2)
    kept.put({"time": 2.0}, "nordic", 3)
    path = tmp_path / "results.jsonl"
    path.write_text(path.read_text()[:-9])
    again = Kept(tmp_path)
    assert (again.get("nordic", 2), again.get("nordic", 3), again.get("nordic", 4)) == ({"time": 1.0}, None, None)


@pytest.mark.parametrize(
    ("late", "missed"), [(2, []), (3, ["frozen within 7 % of the time"])], ids=["two of twenty late", "three of twenty late"]
)
def test_nine_tenths_of_twenty_frozen_runs_end_within_seven_percent(capsys, late, missed):
    budget.report(cases(*[{"time": 1.09}] * late, *[{"time": 0.94}] * (20 - late)), full=True)
    said = capsys.readouterr().out
    assert [line.split(" = ")[0].removeprefix("MISSED ") for line in said.splitlines() if line.startswith("MISSED")] == missed
    assert last_line(said)["goals"] == {"largest memory error": "<= 0.1", "frozen within 7 % of the time": ">= 0.9", "frozen runs": ">= 20"}


def test_memory_and_the_number_of_runs_are_judged_and_steered_runs_too(capsys):
    budget.report(cases({"memory": 1.12}, {"kind": "steered", "time": 1.02, "progress": 0.9}), full=True)
    missed = {line.split(" = ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("MISSED")}
    assert missed == {f"MISSED {name}" for name in ("largest memory error", "frozen runs", "nordic 3min steered time", "nordic 3min steered decay")}


def test_the_full_set_of_runs_is_what_the_issue_asks():
    made = budget.full_cases(["/one", "/two"])
    frozen = [case for case in made if case.kind == "frozen"]
    assert len(frozen) >= 20 and len(set(made)) == len(made)
    assert {case.budget for case in frozen} >= {"2min", "20min"} and {case.corpus for case in frozen} >= {"/one", "/two"}
    assert {budget.Budget.parse(case.budget).kind for case in frozen} == {"time", "energy", "flops", "tokens", "money"}
    assert any("dense" in case.recipe for case in frozen)


@pytest.mark.parametrize(("inside", "missed"), [(12, ["coverage, not too wide"]), (10, []), (8, ["coverage of 80 % intervals"])])
def test_intervals_that_always_hold_are_too_wide(capsys, inside, missed):
    good, bad = (plan_law.Prediction("model", 1.0, value, value - 0.015, value + 0.015, drop=1.0, line=1.2) for value in (1.001, 1.1))
    plan_law.report([good] * inside + [bad] * (12 - inside), full=True)
    lines = [line.split(" = ")[0].removeprefix("MISSED ") for line in capsys.readouterr().out.splitlines() if line.startswith("MISSED")]
    assert lines == missed


def test_a_goal_that_is_missed_is_said(capsys):
    finish("toy", "full", {"a": 2.0}, {}, {"a": "<= 1"})
    assert capsys.readouterr().out.startswith("MISSED a = 2 (goal <= 1)")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["budget", "plan_time", "plan_law", "plan_languages"])
def test_the_quick_form_works_from_end_to_end(name, tmp_path):
    done = subprocess.run([sys.executable, BENCHMARKS / f"{name}.py", "--quick"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    line = last_line(done.stdout)
    assert (line["benchmark"], line["mode"]) == (name, "quick") and line["figures"] and set(line["goals"]) <= set(line["figures"])
