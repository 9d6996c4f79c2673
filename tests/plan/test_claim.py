"""Claims are judged by arithmetic that can be checked by hand: what is impossible is named, and the nearest plan is possible."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane import cli
from hagane.errors import RecipeError
from hagane.model.count import num_active_parameters, num_parameters
from hagane.plan.amounts import amount, factor
from hagane.plan.check import OUTCOMES
from hagane.plan.claim import Claim, Hardware, load_claim, shipped_claims
from hagane.plan.claim_page import NOT_FOUND, claim_toml, verdict_facts, verdict_lines
from hagane.plan.judge import judge
from hagane.plan.limits import FRONTIER, frontier
from hagane.plan.shapes import published
from hagane.recipe.load import load_recipe
from hagane.report.verdict_page import verdict_page

FICTIONAL = {"neurosynth-9": "impossible", "neurosynth-7": "at the edge", "amplimind-xl": "impossible", "globalreasoner": "possible"}
REAL = sorted(set(shipped_claims()) - set(FICTIONAL))


def check_of(verdict, number):
    (check,) = [check for check in verdict.checks if check.number == number]
    return check


def claim_with(**changes):
    facts = {
        "name": "test", "source": "a test", "parameters": 70e9, "hardware": {"accelerator": "A100", "count": 2000}, "days": 40, "country": "Sweden",
        "year": 2023, "architecture": "dense", "tokens": 1.4e12,
    }  # fmt: skip
    return Claim.model_validate(facts | changes)


@pytest.mark.parametrize("name", REAL)
def test_a_published_model_is_possible(name):
    verdict = judge(load_claim(name))
    assert verdict.outcome in ("possible", "at the edge"), verdict.breaks
    assert all(len(source) > 8 for source in verdict.claim.source) and len(REAL) >= 13


@pytest.mark.parametrize(("name", "outcome"), FICTIONAL.items())
def test_a_fictional_model_gets_what_its_numbers_say(name, outcome):
    assert judge(load_claim(name)).outcome == outcome


def test_neurosynth_9_could_read_14_billion_tokens():
    claim = load_claim("neurosynth-9")
    useful = 2048 * 49 * 86400 * 312e12 * 0.4
    assert useful == pytest.approx(1.08e24, rel=0.003)
    assert claim.full_flops() * 0.4 == pytest.approx(useful, rel=1e-12)
    verdict = judge(claim)
    check = check_of(verdict, "tokens")
    assert useful / (6 * 12.4e12) == pytest.approx(14.5e9, rel=0.005)
    assert "1.08e24 / (6 x 12.4T active) = 14.5B tokens" in check.lines[1]
    assert check.outcome == "impossible" and check.remedies[0].text == "active parameters 12.4T -> 424B"
    assert check_of(verdict, "text").margin == pytest.approx(1.8e15 / 300e15)
    energy = check_of(verdict, "energy")
    assert energy.outcome == "possible" and "963 MWh" in energy.lines[0]
    assert {check.number for check in verdict.breaks} == {"tokens", "text", "text read"}


def test_neurosynth_7_holds_with_at_most_18_billion_active_parameters():
    verdict = judge(load_claim("neurosynth-7"))
    allowed = 768 * 42 * 86400 * 312e12 * 0.4 / (6 * 3.2e12)
    assert allowed == pytest.approx(18.1e9, rel=0.002)
    assert verdict.conditions == ("holds only with at most 18.1B active parameters, and with 128 experts at least 14.1B are active",)
    least = load_claim("neurosynth-7").parameters / 128
    assert least == pytest.approx(14.1e9, rel=0.003)


def test_amplimind_is_broken_by_its_utilisation():
    (broken,) = judge(load_claim("amplimind-xl")).breaks
    assert broken.number == "utilisation" and broken.remedies[0].changes == {"utilisation": 0.4}


def test_what_is_unknown_is_said_with_what_it_must_be():
    verdict = judge(load_claim("globalreasoner"))
    page = "\n".join(verdict_lines(verdict))
    assert "possible, as far as it can be checked" in page and "holds only with at most 653B active parameters" in page
    assert re.search("unknown: hardware, training time, country, active parameters, tokens", page)
    verdict = judge(load_claim("llm-jp-4-8b"))
    hours = float(re.search(r"at least (\d+)k hours of H200", verdict.conditions[0])[1]) * 1000
    per_token = 6 * 8_590_200_832 + 6 * 32 * 4096 * 4096
    assert hours == pytest.approx(per_token * 11.7e12 / (989.4e12 * 0.4 * 3600), rel=0.002)


def test_claims_and_recipes_of_the_same_model_agree():
    for name in set(shipped_claims()) & {"llm-jp-4-8b", "llm-jp-4-32b-a3b"}:
        recipe, _ = load_recipe(name)
        config, claim = published(recipe.model, recipe.train.context), load_claim(name)
        assert (claim.parameters, claim.active) == (num_parameters(config), num_active_parameters(config))
        assert claim.layers == config.num_layers and claim.width == config.layers[0].mixer.num_heads * config.layers[0].mixer.head_dim


def test_the_frontier_is_what_the_claims_say():
    runs = {"GPT-3": "gpt-3", "MT-NLG": "mt-nlg-530b", "PaLM": "palm-540b", "Falcon-180B": "falcon-180b", "Llama 3.1 405B": "llama-3.1-405b"}
    for year, (flops, name) in FRONTIER.items():
        claim = load_claim(runs[name])
        assert claim.year == year and claim.needed_flops() == pytest.approx(flops, rel=0.02)
    assert frontier(2030) == FRONTIER[2024] and frontier(1999) == FRONTIER[2020]


@pytest.mark.parametrize(
    ("changes", "number", "outcome"),
    [
        ({}, "compute", "possible"),
        ({"tokens": 4e12}, "compute", "impossible"),
        ({"tokens": 3e9}, "tokens per parameter", "at the edge"),
        ({"tokens": 3e8}, "tokens per parameter", "impossible"),
        ({"utilisation": 0.65}, "utilisation", "at the edge"),
        ({"utilisation": 0.1}, "stated utilisation", "at the edge"),
        ({"architecture": "moe", "active_parameters": 1e9}, "active share", "at the edge"),
        ({"architecture": "moe", "active_parameters": 5e9, "experts": 16, "top_k": 2}, "active share", "impossible"),
        ({"flops": 6e24}, "stated FLOPs", "impossible"),
        ({"hardware": {"accelerator": "A100", "count": 10}}, "memory", "at the edge"),
        ({"hardware": {"accelerator": "A100", "count": 4}}, "memory", "impossible"),
        ({"energy_mwh": 100}, "energy", "impossible"),
        ({"energy_mwh": 3000}, "energy", "at the edge"),
        ({"corpus_bytes": 5e12}, "readings", "possible"),
        ({"corpus_bytes": 5e11}, "readings", "at the edge"),
        ({"corpus_bytes": 6.3e12, "epochs": 2}, "epochs", "possible"),
        ({"corpus_bytes": 6.3e12, "epochs": 5}, "epochs", "at the edge"),
        ({"corpus_bytes": 6.3e12, "epochs": 10}, "epochs", "impossible"),
        ({"corpus_bytes": 1e14}, "text read", "at the edge"),
        ({"corpus_bytes": 3e16}, "text", "impossible"),
        ({"year": 2020}, "year", "at the edge"),
        ({"year": 2019}, "year", "impossible"),
    ],
)
def test_every_number_is_checked(changes, number, outcome):
    assert check_of(judge(claim_with(**changes)), number).outcome == outcome


def test_each_remedy_mends_its_check():
    for changes in ({"tokens": 4e12}, {"tokens": 3e8}, {"hardware": {"accelerator": "A100", "count": 4}}, {"energy_mwh": 100}, {"year": 2019}):
        claim = claim_with(**changes)
        for broken in judge(claim).breaks:
            assert broken.remedies and [item.ratio for item in broken.remedies] == sorted(item.ratio for item in broken.remedies)
            for remedy in broken.remedies:
                after = judge(claim.model_copy(update=remedy.changes))
                assert all(check.outcome == "possible" for check in after.checks if check.number == broken.number), remedy


numbers = st.floats(9, 14).map(lambda power: 10**power)
claims = st.builds(
    lambda parameters, share, tokens, count, days, accelerator, moe, known, text, energy: claim_with(
        parameters=parameters, tokens=tokens, days=days, hardware={"accelerator": accelerator, "count": count}, corpus_bytes=text, energy_mwh=energy,
        architecture="moe" if moe else "dense", active_parameters=max(1.0, parameters * share) if moe and known else "unknown",
    ),
    numbers, st.floats(1e-4, 1), st.none() | numbers, st.integers(1, 10**6), st.floats(0.01, 1000), st.sampled_from(["A100", "H100", "TPU-v4"]),
    st.booleans(), st.booleans(), st.none() | st.floats(9, 18).map(lambda power: 10**power), st.none() | st.floats(0.01, 1e5),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(claims)
def test_the_nearest_plan_is_possible_and_everything_can_be_told(claim):
    verdict = judge(claim)
    assert verdict.outcome in OUTCOMES and json.dumps(verdict_facts(verdict)) and verdict_lines(verdict)
    if verdict.outcome == "possible":
        assert verdict.nearest is None and not verdict.breaks
    else:
        assert verdict.nearest is not None and judge(verdict.nearest).outcome == "possible" and verdict.changes


def test_that_no_possible_plan_was_found_is_said(monkeypatch):
    impossible = load_claim("neurosynth-9")
    assert not judge(impossible).stuck and NOT_FOUND not in verdict_lines(judge(impossible))
    monkeypatch.setattr("hagane.plan.judge.MAX_TRIED", 1)
    verdict = judge(impossible)
    assert verdict.stuck and verdict_lines(verdict)[-1] == NOT_FOUND and "No possible plan was found" in verdict_page(verdict)


@settings(max_examples=60, deadline=None)
@given(claims, st.floats(1, 1000), st.sampled_from(["days", "devices"]))
def test_more_of_a_machine_never_makes_a_verdict_worse(claim, more, what):
    claim = claim.model_copy(update={"energy_mwh": None})  # a stated energy belongs to a number of hours
    bigger = claim.hardware[0].model_copy(update={"count": int(claim.hardware[0].count * more)})
    changed = claim.model_copy(update={"days": claim.days * more} if what == "days" else {"hardware": (bigger,)})
    assert OUTCOMES.index(judge(changed).outcome) <= OUTCOMES.index(judge(claim).outcome)


@pytest.mark.parametrize("name", shipped_claims())
def test_a_claim_is_written_as_it_is_read(name, tmp_path):
    claim = load_claim(name)
    (tmp_path / "claim.toml").write_text(claim_toml(claim), encoding="utf-8")
    assert load_claim(str(tmp_path / "claim.toml")) == claim


def test_several_kinds_of_hardware_add_up():
    hardware = [{"accelerator": "H100", "count": 10}, {"accelerator": "TPU-v4", "count": 20}]
    claim = claim_with(hardware=hardware)
    assert claim.full_flops() == pytest.approx((10 * 989.4e12 + 20 * 275e12) * 40 * 86400)
    (more,) = [item for item in check_of(judge(claim), "compute").remedies if "devices" in item.text]
    assert more.text.startswith("devices 10 + 20 -> ") and isinstance(more.changes["hardware"][0], Hardware)


PAGE = (Path(__file__).parents[2] / "docs" / "budget-and-plan.md").read_text(encoding="utf-8")


def test_the_page_of_the_documentation_is_what_is_printed():
    assert "\n".join(verdict_lines(judge(load_claim("neurosynth-9")))) in PAGE
    rows = re.findall(r"^\| (`.*`) \| (possible|at the edge|impossible)", PAGE, flags=re.MULTILINE)
    told = {name: outcome for names, outcome in rows for name in re.findall(r"`([^`]+)`", names)}
    assert told == {name: judge(load_claim(name)).outcome for name in shipped_claims()}


def test_the_claim_of_the_documentation_is_one(tmp_path):
    (text,) = [block for block in re.findall(r"^```text\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL) if block.startswith("name")]
    (tmp_path / "page.toml").write_text(text, encoding="utf-8")
    assert judge(load_claim(str(tmp_path / "page.toml"))).outcome == "possible"
    names = re.findall(r"`([a-z_]+)`", PAGE[PAGE.index("The other names are") :].partition("\n\n")[0])
    assert {*names, *re.findall(r"^(\w+) =", text, flags=re.MULTILINE)} == set(Claim.model_fields)


GOOD = """
name = "mine"
source = "a test"
parameters = 1e9
hardware = { accelerator = "A100", count = 8 }
days = 10
country = "unknown"
year = 2025
"""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (GOOD + "toknes = 1e9\n", "claim mine.toml: toknes is not a fact. Did you mean tokens?"),
        (GOOD.replace("count =", "conut ="), "hardware[0].conut is not a fact. Did you mean count?"),
        (GOOD.replace("days = 10", ""), "claim mine.toml: days is missing"),
        (GOOD.replace('"A100"', '"A1000"'), "accelerator A1000 is not in the machine table. Nearest: A100"),
        (GOOD.replace("1e9", "-1"), "parameters = -1"),
        (GOOD.replace("1e9", "nan"), "parameters = nan"),
        (GOOD.replace("1e9", "inf"), "parameters = inf"),
        (GOOD + "active_parameters = 2e9\n", "active_parameters = 2e+09 is more than parameters = 1e+09"),
        (GOOD + 'architecture = "dense"\nactive_parameters = 5e8\n', "a dense model uses all its parameters"),
        (GOOD + "experts = 8\ntop_k = 9\n", "top_k = 9 is more than experts = 8"),
        (GOOD + "utilisation = 98\n", "a share of the peak is written 0.4 for 40 %"),
        (GOOD + 'architecture = "sparse"\n', "architecture = 'sparse'"),
        (GOOD.replace("source", "# source"), "source is missing"),
        ("name = ", "claim mine.toml is not valid TOML"),
    ],
)
def test_bad_input_is_one_sentence(text, error, tmp_path):
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as raised:
        load_claim(str(tmp_path / "mine.toml"))
    assert error in str(raised.value), str(raised.value)


def test_a_claim_that_is_not_there_is_named_with_the_nearest(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no claim 'neurosynth-8'\. Nearest: neurosynth-[79], neurosynth-[79]"):
        load_claim("neurosynth-8")
    with pytest.raises(RecipeError, match=r"no claim 'xyzzy'\. There is: amplimind-xl, "):
        load_claim("xyzzy")
    with pytest.raises(RecipeError, match="does not exist"):
        load_claim(str(tmp_path / "missing.toml"))


def test_a_claim_takes_no_settings_of_a_recipe():
    with pytest.raises(RecipeError, match="--claim judges published facts as they are"):
        cli._judge("neurosynth-9", None, None, None, "5min")


def test_hardware_of_the_same_year_can_be_compared():
    hardware = [{"accelerator": "A100", "count": 10}, {"accelerator": "A100-40GB", "count": 10}]
    assert check_of(judge(claim_with(hardware=hardware)), "year").outcome == "possible"


def test_amounts_are_read_easily():
    assert [amount(12.4e12), amount(300e15, "B"), amount(999.6e9), amount(18), factor(45833), factor(0.00117)] == [
        "12.4T", "300 PB", "1T", "18", "45,800", "0.00117",
    ]  # fmt: skip
