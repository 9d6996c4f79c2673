"""What the plan says of languages and their text."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.plan.languages import (
    EASY_BYTES,
    GENERATED_EASE,
    TUNED,
    WORTH,
    difficulty,
    generated_ease,
    interpolated,
    language_lines,
    language_plans,
    readings,
    shards_of,
    used_up_from,
)
from hagane.plan.law import GENERAL, effective_bytes
from hagane.plan.shapes import shape
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.run import headline

RECIPE = load_recipe("nordic", ["corpus.sources=[]"])[0]


@pytest.mark.parametrize(("read", "said"), [(4e6, ""), (10e6, "; the text is read 10 times, and more of it would teach more (corpus: 1.0 MB)")])
def test_the_plans_line_says_where_the_text_is_too_little(read, said):
    facts = {
        "model": {"width": 64, "layers": [{}]}, "tokens": 1, "expected_tokens": 1, "num_parameters": 1, "num_active_parameters": 1, "vocabulary_size": 1024,
        "predicted": {"bits_per_byte": 2.0, "low": 1.0, "high": 3.0},
        "languages": {"sv": {"read_bytes": read / 2, "bytes": 4e5}, "fi": {"read_bytes": read / 2, "bytes": 6e5}},
    }  # fmt: skip
    assert headline("plan", facts).endswith(f"(1.00-3.00) bits per byte{said}")


def test_generated_problems_are_easier_than_text_in_as_many_tokens():
    recipe, _ = load_recipe("quickstart")
    sizes = {"problems.sv": 3e5, "problems.en": 1e5, "python.en": 3e5}
    shards = shards_of(sizes, {name: name.split(".")[0] for name in sizes}, {name: name.split(".")[1] for name in sizes}, {})
    found = difficulty(recipe, shards, {"sv": 3.0, "en": 1.5, "is": 3.0})  # of Icelandic nothing was kept
    assert found == pytest.approx({"sv": 2 / 3 * GENERATED_EASE, "en": 4 / 3 * (0.75 + 0.25 * GENERATED_EASE), "is": 2 / 3})


def test_problems_are_the_easier_the_more_of_them_is_read():
    """From as hard as people's text in as many tokens to what quickstarts reach, and never harder with more."""
    eases = [generated_ease(1000 * 2**k) for k in range(14)]
    assert eases == sorted(eases, reverse=True)
    assert eases[0] == pytest.approx(1, abs=1e-3) and eases[-1] == pytest.approx(GENERATED_EASE, abs=1e-3)
    assert generated_ease(EASY_BYTES) == pytest.approx((1 + GENERATED_EASE) / 2)


def test_what_is_read_of_problems_is_text_and_tuning_together():
    """Of 1 MB of text under `nordic` a tenth is problems, in two languages here; a share of 0.15 is tuning, 0.6 of it problems in all nine languages."""
    recipe, _ = load_recipe("nordic")
    sizes = {"problems.sv": 3e5, "problems.is": 3e5, "corpus.sv": 9e5}
    shards = shards_of(sizes, {name: name.split(".")[0] for name in sizes}, {name: name.split(".")[1] for name in sizes}, {})
    read = 1e6 * (0.1 / 2 + TUNED * 0.15 * 0.6 / (1 - 0.15 * 0.6) / 9)
    found = difficulty(recipe, shards, {"sv": 2.0, "is": 2.0}, 1e6)
    assert found == pytest.approx({"sv": 0.75 + 0.25 * generated_ease(read), "is": generated_ease(read)})
    everything = difficulty(recipe, shards, {"sv": 2.0, "is": 2.0})
    assert everything["is"] == GENERATED_EASE < found["is"] < difficulty(recipe, shards, {"sv": 2.0, "is": 2.0}, 1e5)["is"]


def of_languages(sizes):
    names = {f"corpus.{language}": size for language, size in sizes.items()}
    return shards_of(names, dict.fromkeys(names, "corpus"), {name: name.split(".")[1] for name in names}, {})


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(1e3, 1e12), min_size=1, max_size=4), st.sampled_from([1.0, 2.0, 4.0, 7.0, 40.0]))
def test_repeats_hurt_from_where_a_byte_that_is_read_is_worth_what_four_readings_are(sizes, max_repeats):
    """Just before it is worth more, from there on it is not; four readings are what the published formula makes of the published sentence."""
    assert pytest.approx(effective_bytes(1.0, 4.0) / 4.0) == WORTH
    recipe, shards = RECIPE.model_copy(update={"corpus": RECIPE.corpus.model_copy(update={"max_repeats": max_repeats})}), dict(enumerate(sizes))
    shards = of_languages({f"l{index}": size for index, size in shards.items()})
    found = used_up_from(recipe, shards)
    assert found.keys() == {shard.language for shard in shards.values()}
    for language, total in found.items():
        before, there, after = (readings(recipe, shards, total * factor)[language] for factor in (0.985, 1.0, 1.5))
        assert before.effective / before.read > WORTH * (1 + 1e-9) and before.read < 4 * before.unique
        for reading in (there, after):
            assert reading.effective / reading.read <= WORTH * (1 + 1e-9) and reading.read >= 4 * reading.unique * (1 - 1e-6)


def test_small_languages_are_used_up_first_and_one_that_is_not_read_never():
    shards = of_languages({"sv": 1e9, "smj": 1e6, "se": 1e7})
    found = used_up_from(RECIPE, shards)
    assert found == pytest.approx({"smj": 3 * 4e6, "se": 4e6 + 2 * 4e7, "sv": 4 * 1.011e9}, rel=0.02)
    weighted = RECIPE.model_copy(update={"mix": RECIPE.mix.model_copy(update={"weights": {"sv": 1.0, "smj": 1.0, "se": 1e-13}})})
    assert used_up_from(weighted, of_languages({"sv": 1e18, "smj": 1e6, "se": 1e7})).keys() == {"smj"}


def test_the_table_of_languages_says_from_which_tokens_on_repeats_hurt():
    shards = of_languages({"sv": 1e9, "smj": 1e6})
    config = shape(RECIPE.model.pattern, SizeSettings(), width=64, num_layers=2, vocabulary_size=1024, context=64)
    law = GENERAL.for_text({"sv": 1.0, "smj": 1.0})
    plans = language_plans(RECIPE, law, config, shards, 1e8, 2.5)
    assert plans["smj"].repeats_hurt_tokens == pytest.approx(8e6 / 2.5, rel=0.02) and plans["sv"].repeats_hurt_tokens == pytest.approx(4.004e9 / 2.5, rel=0.02)
    header, smj, sv = language_lines(plans)
    assert header.endswith("repeats hurt from") and sv.endswith(" 1.6B tokens") and re.search(r" 3\.2\d?M tokens$", smj)
    assert all(line.endswith(": they do here") for line in language_lines(language_plans(RECIPE, law, config, shards, 1e10, 2.5))[1:])
    sample = language_plans(RECIPE, law, config, shards, 1e8)  # of which another budget finds more
    assert all(plan.repeats_hurt_tokens is None for plan in sample.values())


@given(st.floats(1e3, 1e17), st.floats(0.3, 1.0), st.floats(1e4, 1e12))
def test_what_is_interpolated_is_near_what_is_worked_out(num_bytes, power, unique):
    def worth(read):
        return effective_bytes(unique, read**power)

    assert interpolated(worth)(num_bytes) == pytest.approx(worth(num_bytes), rel=0.02)
    assert interpolated(worth)(1.0) == pytest.approx(worth(1e3)) and interpolated(worth)(1e20) == pytest.approx(worth(1e17))
