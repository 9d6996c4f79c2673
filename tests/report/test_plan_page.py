"""What `hagane plan` says is one page and one file, for this machine and for a cluster, before anything is spent."""

import json
import math
import re
import sys
from pathlib import Path

import pytest

from hagane import cli
from hagane.plan.cluster import plan_on
from hagane.preview import preview
from hagane.recipe.load import load_recipe
from hagane.recipe.types import Machine
from hagane.report.plan_page import NAMES, plan_page
from hagane.report.text import ANCHOR

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
        name = NAMES.get(name, name)
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


def headings(page):
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_what_is_shown_stands_under_a_heading_of_its_own():
    assert headings(plan_page(facts_here())) == ["What other budgets would buy", "How it would be trained", "Why these numbers"]
    languages = {"sma": {"bytes": 5e6, "repeats": 2.0, "worth": 0.9, "bits_per_byte": 2.0, "low": 1.9, "high": 2.1, "more_text_gain": 0.2}}
    assert "repeats hurt from" not in plan_page(facts_here() | {"languages": languages})
    languages = {"sma": languages["sma"] | {"repeats_hurt_tokens": 34_500_000}, "sv": languages["sma"]}
    more = {"steps": 4200, "learning_rate": 0.0123, "stages": {"corpus": 12.0, "pretrain": 6000.0}, "seconds": 7200.0, "text_bytes": 4.2e8, "repeats": 1.25}
    page = plan_page(facts_here() | more | {"languages": languages})
    assert headings(page) == ["What other budgets would buy", "What each language would get", "How it would be trained", "Why these numbers"]
    for words in ("repeats hurt from", ">34.5 M tokens<", ">never<"):
        assert words in page
    for words in ("Southern Sami", ">4,200<", ">0.0123<", ">1 h 40 min<", ">420 MB<", "of it training on text"):
        assert words in page
    cluster = plan_page(plan_on(load_recipe("llm-jp-4-32b-a3b", ["budget=21d"])[0], "64xH200")[1])
    assert "How the machine would share the work" in headings(cluster)
    assert "with the plan&#39;s own shape" in cluster and "best for it" not in cluster, "on a cluster the shape is the recipe's"


def test_the_page_says_what_bits_per_byte_mean():
    """By the law of Hoffmann et al. 2022 for Chinchilla; the other two figures stand in the notebook and in nanochat's leaderboard."""
    nats = 1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28
    assert f"{nats / math.log(2) / 4.5:.2f} by the law of Hoffmann" in ANCHOR
    assert "| bits per byte, mean of 27 languages | 2.29 | 1.93 |" in (Path(__file__).parents[2] / "docs" / "notebook.md").read_text(encoding="utf-8")
    assert ANCHOR in plan_page(facts_here())


@pytest.mark.parametrize("scale", [1e-7, 1e-4, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("budget", ["40Btokens", "1e22FLOP", "21d", "90MWh", "123456USD"])
def test_no_amount_is_a_row_of_zeros(budget, scale):
    facts = plan_on(load_recipe("llm-jp-4-8b", [f"budget={budget}"])[0], "8xH100")[1]
    curve = [point | {"seconds": point["seconds"] * scale, "joules": point["joules"] * scale} for point in facts["curve"]]
    scaled = {name: facts[name] * scale for name in ("tokens", "flops", "seconds", "joules", "usd")}
    sizes = {"text_bytes": 1e12 * scale, "read_bytes": 2e12 * scale}
    page = plan_page(facts | scaled | sizes | {"curve": curve, "reasons": {}})  # reasons are sentences of the plan
    shown = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert re.findall(r"(?<![\d.,])0(?:\.0+)? ?(?:[kMGTPE]?Wh|USD|tokens|[kMGT]?B)\b|\d{5,}|0\.00\d{3,}|[1-9]\.\d{4,}", shown) == []


def test_a_count_without_a_budget_is_a_page_too():
    recipe, _ = load_recipe("llm-jp-4-8b")
    page = plan_page(preview(recipe.model_copy(update={"train": recipe.train.model_copy(update={"tokens": None})}), ())[1])
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


def test_a_claim_has_a_file_and_a_page(tmp_path, monkeypatch, capsys):
    where, page = tmp_path / "claim.json", tmp_path / "claim.html"
    monkeypatch.setattr(sys, "argv", ["hagane", "plan", "neurosynth-9", "--claim", "--json", str(where), "--page", str(page)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code and json.loads(where.read_text()) == json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "What is said of this model is impossible" in page.read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["hagane", "plan", "neurosynth-9", "--claim", "--machine", "8xA100", "--page", str(page)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "leave out" in capsys.readouterr().err
