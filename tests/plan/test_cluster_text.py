"""A plan on a cluster knows the text it is given: little of it is said, expected of and chosen for, and each language has its line."""

import math
import re

import pytest

from hagane.corpus.inputs import fingerprint
from hagane.errors import RecipeError
from hagane.plan.cluster import plan_on
from hagane.plan.kept import corpus_inputs, corpus_paths, keep_law, pattern_name
from hagane.plan.law import GENERAL, Law, Range, TextSize
from hagane.plan.text import Supply
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import Source


@pytest.fixture(autouse=True)
def no_kept_laws(monkeypatch, tmp_path):
    monkeypatch.setenv("HAGANE_CACHE", str(tmp_path / "cache"))


def with_text(folder, budget, name="nordic", **megabytes):
    """The recipe with so much text of each language. Files have a size and, as a look at plain text is not needed for one, nothing in them."""
    for language, size in megabytes.items():
        (folder / language).mkdir(parents=True)
        with (folder / language / "a.txt").open("wb") as file:
            file.truncate(round(size * 1e6))
    recipe, _ = load_recipe(name, [f"budget={budget}"])
    return recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update={"sources": (*recipe.corpus.sources, Source(name="own", path=(str(folder),)))})})


def test_a_corpus_that_is_too_small_is_said_with_the_way_out(tmp_path):
    lines, facts = plan_on(with_text(tmp_path / "small", "6h", sv=10), "8xH100")
    enough_lines, enough = plan_on(with_text(tmp_path / "enough", "6h", sv=1e6), "8xH100")
    endless = plan_on(load_recipe("nordic", ["budget=6h"])[0], "8xH100")[1]
    said = next(line for line in lines if line.startswith("  text "))
    assert re.search(r"from 10 MB of text: read 4 times it ends 5h \d+min before the budget does", said) and "Give more text, or a smaller --budget" in said
    assert facts["text_bytes"] == 10_000_000 and facts["repeats"] == pytest.approx(4, rel=1e-3) and 0.95 * 6 * 3600 < facts["unused_seconds"] < 6 * 3600
    assert "none read more than 4 times" in facts["mixture"] and "read 4 times it ends" in facts["reasons"]["tokens"]
    assert facts["repeats"] == pytest.approx(facts["read_bytes"] * 0.9 / 10e6, rel=1e-6), "a tenth of this recipe's text are problems"
    assert not any("some of it read" in line or "before the budget does" in line for line in enough_lines)
    assert enough["repeats"] < 1 and enough["unused_seconds"] == 0
    assert enough["bits_per_byte"] == pytest.approx(endless["bits_per_byte"], rel=0.02) and facts["bits_per_byte"] > 1.3 * endless["bits_per_byte"]
    assert facts["num_active_parameters"] < 40_000_000 < endless["num_active_parameters"], "four parameters for a byte of text, and an embedding"
    assert "at most 4 parameters for a byte of different text" in facts["reasons"]["model"] and "a byte of" not in endless["reasons"]["model"]
    assert facts["curve"][3]["bits_per_byte"] == facts["curve"][6]["bits_per_byte"] < facts["curve"][1]["bits_per_byte"], "more time buys nothing"
    assert [facts["curve"][place]["bits_per_byte"] for place in (3, 6)] > [endless["curve"][place]["bits_per_byte"] for place in (3, 6)]


@pytest.mark.parametrize(("name", "machine"), [("nordic", "8xH100"), ("nordic", "512xH100"), ("llm-jp-4-8b", "64xH100")])
def test_text_for_too_few_steps_is_named_and_not_the_budget_and_as_much_as_is_asked_for_is_enough(tmp_path, name, machine):
    said = []
    for place, budget in enumerate(("1h", "2d")):
        with pytest.raises(RecipeError) as refused:
            plan_on(with_text(tmp_path / str(place), budget, name, sv=27e-6), machine)
        said.append(str(refused.value))
    repeats = load_recipe(name)[0].corpus.max_repeats
    words = r"too little text .*: 27 B read (\d+) times .* are (\d+) tokens, and 100 optimizer steps take ([\d,]+) here, for which about (\S+) MB"
    told = re.search(words, said[0])
    assert said[0] == said[1] and "budget" not in said[0] and float(told[1]) == repeats and float(told[2]) < 27 * repeats < int(told[3].replace(",", ""))
    enough = float(told[4])
    assert plan_on(with_text(tmp_path / "enough", "1h", name, sv=enough), machine)[1]["tokens"] > 100_000
    with pytest.raises(RecipeError, match="too little text"):
        plan_on(with_text(tmp_path / "half", "1h", name, sv=enough / 16), machine)


def test_each_language_has_its_expectation_and_what_more_text_would_buy(tmp_path):
    lines, facts = plan_on(with_text(tmp_path / "texts", "1h", sv=2e5, smj=2), "8xH100")
    small, large = facts["languages"]["smj"], facts["languages"]["sv"]
    assert set(facts["languages"]) == {"sv", "smj"}, "problems of nine languages are no text of theirs"
    assert small["bits_per_byte"] > large["bits_per_byte"] and small["more_text_gain"] > 10 * large["more_text_gain"]
    assert small["repeats"] == pytest.approx(4, rel=0.01) and small["low"] < small["bits_per_byte"] < small["high"]
    assert sum(line.startswith(("  sv  ", "  smj  ")) for line in lines) == 2 and any("mean of 2 languages" in line for line in lines)


@pytest.mark.parametrize(("name", "machine"), [("nordic", "8xH100"), ("llm-jp-4-8b", "64xH100")])
def test_text_that_is_yet_to_be_given_is_taken_to_suffice(name, machine):
    lines, facts = plan_on(load_recipe(name, ["budget=1d"])[0], machine)
    assert facts["text_bytes"] is None and facts["repeats"] is None and facts["languages"] == {} and facts["read_bytes"] > 0
    assert sum("of the text that you give with --corpus, taken to be there" in line for line in lines) == 1


def test_a_size_that_is_given_expects_less_of_little_text_too(tmp_path):
    little = plan_on(with_text(tmp_path / "texts", "1d", "llm-jp-4-8b", ja=50), "64xH100")[1]
    endless = plan_on(load_recipe("llm-jp-4-8b", ["budget=1d"])[0], "64xH100")[1]
    # corpus.max_repeats is 8 in this recipe
    assert little["tokens"] < endless["tokens"] and little["bits_per_byte"] > 1.2 * endless["bits_per_byte"] and little["repeats"] == pytest.approx(8, rel=1e-3)


def test_a_budget_that_says_how_much_is_computed_is_used_whatever_the_text(tmp_path):
    recipe = with_text(tmp_path / "small", "1Gtokens", sv=10)
    lines, facts = plan_on(recipe, "8xH100")
    assert facts["tokens"] == 1e9 and facts["repeats"] > 100 and facts["unused_seconds"] == 0 and facts["num_active_parameters"] < 40_000_000
    said = next(line for line in lines if line.startswith("  text "))
    assert "from 10 MB of text, some of it read" in said and said.endswith("times, where more than 4 bring little: give more text, or a smaller --budget")
    more = recipe.model_copy(update={"budget": "6h", "corpus": recipe.corpus.model_copy(update={"max_repeats": 40.0})})
    assert plan_on(more, "8xH100")[1]["repeats"] == pytest.approx(40, rel=1e-3), "as the recipe allows"


def test_what_shapes_are_compared_by_is_what_text_is_worth(tmp_path):
    supply = Supply.of(with_text(tmp_path / "texts", "1d", sv=100, fi=3), GENERAL)
    for num_bytes in (2e5, 3e7, 4e8, 5e12):
        assert math.log(supply.worth(num_bytes)) == pytest.approx(math.log(supply.effective(min(num_bytes, supply.most_read))), rel=0.005)
    assert supply.most_read == pytest.approx(4 * 103e6 / 0.9, rel=0.001), "a tenth of this recipe's text are problems"
    assert supply.effective(1e6) == pytest.approx(9e5) and supply.effective(1e15) < 17 * 103e6
    assert Supply.of(load_recipe("nordic")[0], GENERAL).worth is None


def test_a_law_of_ones_own_counts_all_the_text_that_it_was_fitted_on(tmp_path):
    """Sizes that a ladder has read stand for what files tell, and problems count as they did for it; languages without a part in the law say so."""
    recipe, constants = with_text(tmp_path / "texts", "6h", sv=10), GENERAL.constants
    text = (TextSize(source="own", language="sv", bytes=8e6), TextSize(source="problems", language="fi", bytes=1e6))
    fit = Range(runs=12, flops=1e13, bytes=(1e6, 1e7), parameters=(1e5, 1e6), vocabularies=(2048,))
    law = Law(
        corpus=fingerprint(corpus_inputs(recipe.corpus)), paths=corpus_paths(recipe), constants=constants, draws=(constants,) * 10, noise=0.005, fit=fit,
        context=recipe.train.context, optimizer=recipe.train.optimizer, source="made for a test", text=text,
        pattern=pattern_name(recipe.model.pattern),
    )  # fmt: skip
    keep_law(law)
    lines, facts = plan_on(recipe, "8xH100")
    assert facts["text_bytes"] == 9_000_000 and set(facts["languages"]) == {"sv", "fi"} and facts["law"] == "made for a test"
    assert facts["repeats"] == pytest.approx(facts["read_bytes"] * 0.9 / 8e6, rel=1e-6)
    assert not any("not of generated problems" in line for line in lines) and sum("not in the law" in line for line in lines) == 2
