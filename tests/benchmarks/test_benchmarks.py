"""Benchmarks of the plan: they judge by the goals of the issue, go on after an interruption, and work from end to end at toy size."""

import json
import re
import statistics
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest

import budget
import plan_languages
import plan_law
import plan_throughput
import plan_transfer
from common import Kept, finish
from hagane.plan.cluster_page import ACCURACY
from hagane.plan.layout import FITTED
from hagane.plan.shapes import shape
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings

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


def test_what_was_spent_of_a_budget_is_judged_in_its_own_unit(capsys):
    energy, flops = (budget.Case("nordic", "", dial, "frozen") for dial in ("2Wh", "2e14FLOP"))
    budget.report({energy: FROZEN | {"spent": 1.2}, flops: FROZEN}, full=True)
    assert "MISSED largest error of what was spent = 0.2" in capsys.readouterr().out
    budget.report({energy: FROZEN | {"spent": None}, flops: FROZEN | {"spent": 1.02}}, full=True)
    said = capsys.readouterr().out
    assert "met  largest error of what was spent = 0.02" in said and "nordic 2Wh frozen: no counter of energy, so what was spent of it is not judged" in said


@pytest.mark.parametrize(("clock", "spent"), [({"joules": 8000.0, "origin_joules": 800.0}, 1.0), ({"joules": None}, None)])
def test_energy_that_was_spent_is_what_a_counter_counted(tmp_path, clock, spent):
    """Seconds times watts would be the time again."""
    trained = {"tokens": 4096, "peak_memory_bytes": 10}
    plan = {"predicted": {"seconds": 100.0, "peak_memory_bytes": 10}, "tokens": 4096, "model": {"width": 64}, "machine": {"power_watts": 31.0}}
    stages = {"plan": plan, "pretrain": trained, "midtrain": trained | {"tokens": 0}, "extend": trained | {"tokens": 0}, "tune": {"steps": {}}}
    for stage, facts in stages.items():
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "facts.json").write_text(json.dumps({"facts": facts}))
    (tmp_path / "pretrain" / "metrics.jsonl").write_text('{"progress": 1.0}\n')
    (tmp_path / "clock.json").write_text(json.dumps({"seconds": 100.0} | clock))
    found = budget.outcome(tmp_path, budget.Case("nordic", "", "2Wh", "frozen"), 100.0)
    assert found["spent"] == spent and (found["time"], found["tokens"], found["progress"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("more", "cold"), [(["--full", "--corpus", "/text"], True), ([], False), (["--cold"], True)])
def test_the_full_form_begins_from_cold(monkeypatch, tmp_path, capsys, more, cold):
    seen = []
    monkeypatch.setattr(budget, "one", lambda case, folder, cold: seen.append(cold) or FROZEN)
    monkeypatch.setattr(sys, "argv", ["budget.py", "--keep", str(tmp_path), *more])
    budget.main()
    assert set(seen) == {cold}


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


@pytest.mark.parametrize(("inside", "missed"), [(10, ["people inside, not too wide"]), (8, []), (6, ["people inside"])])
def test_intervals_of_languages_hold_as_often_as_they_say(capsys, inside, missed):
    rows = [plan_languages.Row("run", f"l{number}", 0.0, 1e6, 1.5, 1.4, 1.6, 1.5 if number < inside else 2.0) for number in range(10)]
    figures, spread, goals = plan_languages.judged(rows)
    finish("plan_languages", "full", figures, spread, goals)
    assert [line.split(" = ")[0].removeprefix("MISSED ") for line in capsys.readouterr().out.splitlines() if line.startswith("MISSED")] == missed


def test_a_gain_that_was_told_must_lie_where_it_was_measured():
    """0.01 told for 0.06 is within 0.05 of it and still wrong."""
    gain = {"gain measured": 0.06, "gain told": 0.01, "gain low": 0.04, "gain high": 0.08, "gain off": 0.05}
    figures, spread, goals = plan_languages.judged_gain(gain)
    assert figures["gain told inside the interval"] == 0.0 and goals["gain told inside the interval"] == ">= 1"
    assert spread["gain measured"] == pytest.approx(0.04)
    assert plan_languages.judged_gain(gain | {"gain told": 0.05})[0]["gain told inside the interval"] == 1.0


def test_a_goal_that_is_missed_is_said(capsys):
    finish("toy", "full", {"a": 2.0}, {}, {"a": "<= 1"})
    assert capsys.readouterr().out.startswith("MISSED a = 2 (goal <= 1)")


def told_of_speeds() -> dict[str, float]:
    """The figures in the sentence under a plan on a cluster."""
    said = re.fullmatch(
        r".* Half of (\d+) published ones are within (\d+) % .* it is (\d+) % more in the median .* half are within (\d+) %, and (\d+) are more than 30 % .*",
        ACCURACY,
    )
    names = ("rows", "median_error", "own_layout_median_bias", "own_layout_median_error", "own_layout_rows_over_30_percent")
    return dict(zip(names, map(int, said.groups()), strict=True))


def test_published_speeds_are_as_near_as_a_plan_on_a_cluster_says():
    """With the frozen constants, which have seen the rows: no farther than without them, and not so much nearer that the sentence is out of date."""
    rows, told = plan_throughput.load(own_layouts=False), told_of_speeds()
    median = statistics.median(abs(row.predicted(FITTED) / row.measured - 1) for row in rows)
    assert len(rows) == told["rows"] and told["median_error"] - 3 < 100 * median < told["median_error"] + 0.5


def settings_of(size, change):
    one = plan_transfer.arm(size, change, 5e12, 2048)
    recipe, _ = load_recipe("nordic", ["corpus.sources=[]", *one.sets])
    return one, shape(recipe.model.pattern, SizeSettings(), width=one.width, num_layers=one.num_layers, vocabulary_size=2048, context=recipe.train.context)


def test_the_rate_of_a_routers_bias_is_varied_too():
    for size in plan_transfer.SIZES:
        changes = plan_transfer.changes_of(size, full=True)
        routers = [config.layers[-1].ffn for _, config in (settings_of(size, change) for change in changes)]
        if size.bias:
            assert {(router.balance, router.score, router.aux_coefficient) for router in routers} == {("bias", "sigmoid", 0)}
            assert [router.bias_rate for router in routers] == pytest.approx([1e-3, 1e-4, 1e-2])
        elif size.num_experts:
            assert {router.balance for router in routers} == {"loss"} and {router.aux_coefficient for router in routers} == {0.001, 0.01, 0.1}
    biased, others = ([size[1:6] for size in map(astuple, plan_transfer.SIZES) if size[4] and size[6] == bias] for bias in (True, False))
    assert biased == others and len(biased) == 3


def test_a_rate_that_is_the_cap_is_told_as_such():
    """At these sizes mostly the cap is what is transferred."""
    told = {}
    for size in plan_transfer.SIZES:
        one, config = settings_of(size, plan_transfer.CHANGES[0])
        told[size.name] = plan_transfer.told_rate(config, one.tokens)
    assert sum("the cap of 0.006 holds, Step Law asks for 0.0" in text for name, text in told.items() if not name.startswith("bias")) == 5, told
    (below,) = [text for name, text in told.items() if "Step Law's, below the cap of 0.006" in text and not name.startswith("bias")]
    assert float(below.split()[2]) < 0.006


@pytest.mark.slow
def test_the_sentence_under_a_plan_on_a_cluster_is_what_is_measured(tmp_path):
    done = subprocess.run([sys.executable, BENCHMARKS / "plan_throughput.py", "--full"], capture_output=True, text=True, check=True, cwd=tmp_path)
    figures, told = last_line(done.stdout)["figures"], told_of_speeds()
    for name, value in told.items():
        assert round(figures[name] * (1 if "rows" in name else 100)) == value, name


PARTS = {"mechanisms": ("--threads", "1", "--only", "adaptive-capacity", "extension")}  # rows that compile nothing; all of them take a quarter of an hour
PLANS = ["plan_time", "plan_law", "plan_languages", "plan_choice", "plan_transfer", "plan_throughput"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["budget", *PLANS, "mechanisms", "delta", "multi_token"])
def test_the_quick_form_works_from_end_to_end(name, tmp_path):
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--quick", *PARTS.get(name, ())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    line = last_line(done.stdout)
    assert (line["benchmark"], line["mode"]) == (name, "quick") and line["figures"] and set(line["goals"]) <= set(line["figures"])
