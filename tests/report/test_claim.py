"""The six facts of a run are those of its own files, and judged like anybody's they are possible."""

import json

import pytest

from hagane.errors import RunError
from hagane.model.config import ModelConfig
from hagane.model.count import flops_per_token
from hagane.plan.claim import load_claim
from hagane.plan.claim_page import claim_toml, fact_lines
from hagane.plan.judge import judge
from hagane.report.claim import claim_of_run


def set_settings(run, **settings):
    path = run / "environment.json"
    environment = json.loads(path.read_text(encoding="utf-8"))
    environment["settings"] |= settings
    path.write_text(json.dumps(environment), encoding="utf-8")


def test_the_facts_are_those_of_the_training_stages(finished_run):
    claim = claim_of_run(finished_run, "Sweden")
    plan = json.loads((finished_run / "plan" / "facts.json").read_text(encoding="utf-8"))["facts"]
    tokens, seconds = (418 + 144) * 4096, 166.9 + 56.1
    assert (claim.name, claim.country, claim.year, claim.tokens) == ("quickstart", "Sweden", 2026, tokens)
    assert (claim.parameters, claim.active, claim.experts, claim.top_k) == (plan["num_parameters"], plan["num_active_parameters"], 8, 2)
    assert claim.days * 86400 == pytest.approx(seconds) and claim.energy_mwh * 3.6e9 == pytest.approx(seconds * 31)
    assert claim.flops == pytest.approx(3 * flops_per_token(ModelConfig.model_validate(plan["model"]), plan["context"]) * tokens)
    assert claim.utilisation == pytest.approx(0.468)
    assert claim.full_flops() == pytest.approx(3.1e11 * seconds)
    assert str(claim.hardware[0]) == "1 x 2-core x86_64 CPU, 2 cores"


def test_our_own_run_is_possible_and_survives_the_way_through_a_file(finished_run, tmp_path):
    claim = claim_of_run(finished_run)
    (tmp_path / "card.toml").write_text(claim_toml(claim), encoding="utf-8")
    read = load_claim(str(tmp_path / "card.toml"))
    assert read == claim
    verdict = judge(read)
    assert verdict.outcome == "possible", verdict.breaks
    assert verdict.claim.unknown() == ["country"]


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        ((), "energy modelled, not counted: 31 W (counter of the package)"),
        (("pretrain",), "energy part counted by the machine, the rest modelled: 31 W (counter of the package)"),
        (("pretrain", "tune"), "energy counted by the machine;"),
    ],
)
def test_energy_is_marked_by_what_was_counted_and_not_by_the_profile(finished_run, count_energy, counted, said):
    """A counter that was there when the machine was measured may break in a run."""
    environment = json.loads((finished_run / "environment.json").read_text(encoding="utf-8"))
    environment["machine"]["power_source"] = "counter of the package"
    (finished_run / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    count_energy(finished_run, counted)
    claim = claim_of_run(finished_run)
    assert claim.note.startswith(said)
    assert any("energy" in line and "Wh" in line for line in fact_lines(claim))


def test_the_country_comes_from_the_recipe_or_the_command(finished_run):
    assert claim_of_run(finished_run).country is None
    set_settings(finished_run, release={"country": "Norway"})
    assert claim_of_run(finished_run).country == "Norway"
    assert claim_of_run(finished_run, "Finland").country == "Finland"


def test_a_dense_run_has_no_experts(make_run, tmp_path):
    claim = claim_of_run(make_run(tmp_path / "dense", dense=True))
    assert (claim.architecture, claim.experts, claim.active) == ("dense", None, claim.parameters)


def test_a_run_that_trained_nothing_has_no_facts(make_run, tmp_path):
    with pytest.raises(RunError, match="stage pretrain is not done yet, so there is no model to describe"):
        claim_of_run(make_run(tmp_path / "young", until="encode"))
    with pytest.raises(RunError, match="there is no run folder"):
        claim_of_run(tmp_path / "nothing")
