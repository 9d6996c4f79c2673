"""Every number that a plan promised has its outcome and its error, on the page and in plan.json; an unfinished run has no errors yet."""

import json

import pytest

from hagane.plan.cost import training_flops_per_token
from hagane.plan.facts import PlanFacts
from hagane.preview import preview
from hagane.recipe.load import load_recipe
from hagane.report.against import compared
from hagane.report.claim import claim_of_run
from hagane.report.page import build_report, render
from hagane.report.record import read_record

TRAINED, SECONDS = (418 + 144) * 4096, 168.4 + 56.1  # as conftest writes them


def with_price(folder, price=3.0, **settings):
    path = folder / "environment.json"
    environment = json.loads(path.read_text(encoding="utf-8"))
    environment["settings"] |= {"execution": {"price_per_hour": price}} | settings
    path.write_text(json.dumps(environment), encoding="utf-8")
    return folder


def row(page, name):
    cells = page.split(f'<th scope="row">{name}</th>')[1].split("</tr>")[0]
    return [cell.partition("<")[0] for cell in cells.split('<td class="number">')[1:]]


def test_computation_speed_and_cost_stand_beside_what_came(finished_run):
    found = {one.key: one for one in compared(read_record(with_price(finished_run)))}
    assert found["tokens"].came == TRAINED and found["tokens"].planned == 2_500_000
    assert found["flops"].planned == pytest.approx(5.8e13 * 2_500_000 / 2_310_000)
    model = PlanFacts.model_validate(read_record(finished_run).facts("plan")).model
    assert found["flops"].came == pytest.approx(TRAINED * training_flops_per_token(model, 256))
    assert found["tokens_per_second"].planned == pytest.approx(2_500_000 / (171 + 57)) and found["tokens_per_second"].came == pytest.approx(TRAINED / SECONDS)
    assert found["usd"].planned == pytest.approx(298 / 3600 * 3) and found["usd"].came == pytest.approx(297.6 / 3600 * 3)
    page = render(finished_run)
    assert row(page, "Cost") == ["0.25 USD", "0.25 USD", "-0.1 %"]
    assert row(page, "Training tokens a second") == ["11 k", "10.3 k", "-6.5 %"]
    assert row(page, "Training FLOPs")[0] == "6.28e13" and row(page, "Budget") == ["5 min", "4 min 58 s", "-0.8 %"]


def test_a_run_that_trained_as_planned_has_no_error_of_its_flops(finished_run):
    """By what indexers did in each phase, at the context of each; the card of the run says the same."""
    path = finished_run / "plan" / "facts.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    facts = record["facts"]
    index = {"num_heads": 8, "head_dim": 32, "top_k": 32}
    mixer = {"kind": "latent", "num_heads": 4, "query_rank": 64, "kv_rank": 32, "nope_dim": 32, "rope_dim": 16, "value_dim": 32, "rope": {}, "index": index}
    facts["model"]["layers"] = [{"mixer": mixer, "ffn": {"kind": "dense", "hidden": 128}}] * 4
    pretrain = facts["phases"]["pretrain"][0]
    cuts = (("dense", 64, 64, 200), ("together", 256, 16, 100), ("sparse", 256, 16, 118))
    facts["phases"]["pretrain"] = [pretrain | {"index": mode, "context": context, "rows": rows, "num_steps": steps} for mode, context, rows, steps in cuts]
    facts["phases"]["tune/supervised"][0] |= {"num_steps": 144}
    plan = PlanFacts.model_validate(facts)
    by_hand = 4096 * sum(steps * training_flops_per_token(plan.model, context, mode) for mode, context, _, steps in cuts)
    by_hand += 4096 * 144 * training_flops_per_token(plan.model, 256)
    facts |= {"flops": by_hand, "tokens": TRAINED, "expected_tokens": TRAINED}
    path.write_text(json.dumps(record), encoding="utf-8")
    found = {one.key: one for one in compared(read_record(finished_run))}
    assert found["flops"].relative == pytest.approx(0, abs=1e-12)
    assert claim_of_run(finished_run).flops == pytest.approx(by_hand)


def test_modelled_energy_has_no_error_of_its_own(finished_run, count_energy):
    """Seconds times watts on both sides would repeat that of the time."""

    def energy():
        return next(one for one in compared(read_record(finished_run)) if one.key == "joules")

    assert (energy().name, energy().error) == ("Energy (modelled)", "") and energy().planned and energy().came
    build_report(finished_run)
    assert json.loads((finished_run / "plan.json").read_text(encoding="utf-8"))["outcome"]["joules"]["error"] is None
    count_energy(finished_run, ("pretrain",))
    assert energy().name == "Energy (part counted)" and energy().relative == pytest.approx(energy().came / 9240 - 1)
    page = render(finished_run)
    assert row(page, "Energy (part counted)")[2] and "part counted: stated model" in page and page.count("<td>counted</td>") == 1
    clock = {"seconds": 297.6, "origin": 0.0, "joules": 8500.0, "origin_joules": 1000.0, "attempts": 2}
    (finished_run / "clock.json").write_text(json.dumps(clock), encoding="utf-8")
    assert energy().name == "Energy (counted)" and energy().came == 7500.0, "a clock that counts knows the whole run"
    assert "counted by the machine" in render(finished_run)


def test_without_a_price_there_is_no_cost(finished_run):
    assert "usd" not in {one.key for one in compared(read_record(finished_run))}


def test_a_budget_of_money_is_held_against_what_was_paid(finished_run):
    path = finished_run / "plan" / "facts.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["facts"]["budget"] = "0.5USD"
    path.write_text(json.dumps(record), encoding="utf-8")
    page = render(with_price(finished_run, 6.0))
    assert row(page, "Budget") == ["0.50 USD", "0.50 USD", "-0.8 %"] and "budget 0.50 USD" in page


def test_the_plan_stands_beside_the_report_with_what_came_of_it(finished_run):
    build_report(finished_run)
    plan = json.loads((finished_run / "plan.json").read_text(encoding="utf-8"))
    facts = read_record(finished_run).facts("plan")
    assert plan["reasons"] == facts["reasons"] and plan["curve"] == [] and plan["bits_per_byte"] == 1.58 and plan["usd"] is None
    assert (plan["tokens"], plan["steps"], plan["num_layers"], plan["num_experts"]) == (2_500_000, 610, 4, 8)
    assert plan["outcome"]["seconds"] == {"planned": 298.0, "came": 297.6, "error": pytest.approx(297.6 / 298 - 1)}
    assert plan["finished"]


def test_plan_json_has_the_names_of_a_plan_before_the_run(finished_run, monkeypatch, tmp_path):
    build_report(finished_run)
    plan = json.loads((finished_run / "plan.json").read_text(encoding="utf-8"))
    machine = PlanFacts.model_validate(read_record(finished_run).facts("plan")).machine
    monkeypatch.setattr("hagane.preview.profile", lambda device, threads: machine)
    monkeypatch.setenv("HAGANE_CACHE", str(tmp_path))
    before = preview(load_recipe("quickstart")[0], ())[1]
    only = {"sample_bytes", "people_bits_per_byte", "people_low", "people_high"}  # a run measures its mean, problems among it
    assert set(before) - set(plan) == only and set(plan) - set(before) == {"promised_tokens", "finished", "outcome"}
    assert (plan["top_k"], plan["ffn_hidden"], plan["weight_decay"], plan["training_seconds"]) == (2, 344, 0.1, 228.0)
    assert plan["tokens_per_second"] == pytest.approx(2_500_000 / 228) and plan["repeats"] == pytest.approx(1.4)


def test_a_run_under_way_has_no_errors_yet(make_run, tmp_path):
    folder = make_run(tmp_path / "run", until="pretrain")
    assert row(render(folder), "Time") == ["4 min 58 s", "3 min 21 s", ""]
    build_report(folder)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    assert not plan["finished"] and plan["outcome"]["seconds"]["came"] and {one["error"] for one in plan["outcome"].values()} == {None}


def test_before_there_is_a_plan_there_is_no_file(make_run, tmp_path):
    folder = make_run(tmp_path / "run", until="corpus")
    build_report(folder)
    assert (folder / "report.html").exists() and not (folder / "plan.json").exists()
