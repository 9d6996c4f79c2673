"""What `hagane plan` says is one page and one file, for this machine and for a cluster, before anything is spent."""

import json
import re
import sys

import pytest

from hagane import cli
from hagane.plan.cluster import plan_on
from hagane.preview import preview
from hagane.recipe.load import load_recipe
from hagane.recipe.types import Machine
from hagane.report.plan_page import plan_page

MACHINE = Machine(name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=400e9, bandwidth=20e9, power_watts=31.0, power_source="stated")


@pytest.fixture(autouse=True)
def this_machine(monkeypatch, tmp_path):
    """A profile that was measured, and no kept laws."""
    monkeypatch.setattr("hagane.preview.profile", lambda device, threads: MACHINE)
    monkeypatch.setenv("HAGANE_CACHE", str(tmp_path / "cache"))


def facts_here(*settings):
    return preview(load_recipe("nordic", ["budget=2h", *settings])[0], ())[1]


def test_the_page_shows_the_curves_the_chosen_point_and_why():
    facts = facts_here("execution.price_per_hour=3")
    page = plan_page(facts)
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["Loss against time", "Loss against cost"]
    chosen = facts["curve"][3]
    assert f"chosen {chosen['seconds'] / 3600 * 3:.3g} USD" in page and f"{facts['bits_per_byte']:.2f}" in page
    for name in facts["reasons"]:
        assert f"<dt>{name if '.' in name else name.replace('_', ' ')}</dt>" in page
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", page), "nothing is fetched"
    assert "Loss against energy" in plan_page(facts_here())


def test_the_chosen_point_of_the_curve_is_the_loss_of_the_plan():
    facts = facts_here()
    chosen = facts["curve"][3]
    assert chosen["seconds"] == pytest.approx(facts["training_seconds"], abs=0.1)
    assert chosen["bits_per_byte"] == pytest.approx(facts["bits_per_byte"], abs=2e-3)


def test_a_cluster_has_its_layouts_and_its_price():
    recipe, _ = load_recipe("llm-jp-4-32b-a3b", ["budget=21d"])
    facts = plan_on(recipe, "64xH200")[1]
    page = plan_page(facts)
    assert all(f">{layout['description']}<" in page for layout in facts["layouts"]) and "The fastest layouts that fit" in page
    assert "Loss against cost" in page and "at 243.20 USD an hour" in page
    tpu = plan_on(recipe, "256xTPU-v5p")[1]  # no power is published
    assert "Loss against energy" not in plan_page(tpu | {"price_per_hour": None}) and "Loss against time" in plan_page(tpu)


def test_a_count_without_a_budget_is_a_page_too():
    page = plan_page(preview(load_recipe("llm-jp-4-8b")[0], ())[1])
    assert "8.59 B" in page and "No budget was given" in page


def test_the_file_holds_what_the_last_line_holds(tmp_path, monkeypatch, capsys):
    where = tmp_path / "new" / "plan.json"
    monkeypatch.setattr(sys, "argv", ["hagane", "plan", "nordic", "--budget", "2h", "--json", str(where), "--page", str(tmp_path / "plan.html")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(where.read_text()) == json.loads(printed[-1])
    assert (tmp_path / "plan.html").read_text().startswith("<!DOCTYPE html>")
    assert any(line.startswith("  budgets ") and "(this plan)" in line for line in printed)


def test_a_claim_has_a_file_and_no_page(tmp_path, monkeypatch, capsys):
    where = tmp_path / "claim.json"
    monkeypatch.setattr(sys, "argv", ["hagane", "plan", "neurosynth-9", "--claim", "--json", str(where)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code and json.loads(where.read_text())["verdict"] == "impossible"
    monkeypatch.setattr(sys, "argv", ["hagane", "plan", "neurosynth-9", "--claim", "--page", str(where)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "leave out" in capsys.readouterr().err
