"""Which runs a ladder is made of: inside the budget, near what is asked, and refused where it would tell nothing."""

import pytest

from hagane.errors import RecipeError
from hagane.plan.batch import batch_rule
from hagane.plan.ladder import FEWEST_STEPS, LARGEST_SHARE, LEAST_RUNS, cost_of, design, smallest_tokens, targets
from hagane.plan.law import GENERAL
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Budget, Machine

MACHINE = Machine(
    name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=400e9, bandwidth=20e9, power_watts=31.0, power_source="stated in a test"
)
VOCABULARIES = (1024, 2048, 4096)
SCORED = 300_000.0


def ladder_of(seconds, ffn="experts", text=50e6, vocabularies=VOCABULARIES):
    recipe, _ = load_recipe("nordic", [f"model.pattern.ffn={ffn}"])
    goals = targets(recipe, SizeSettings(), MACHINE, seconds * 8, vocabularies, GENERAL)
    return recipe, design(recipe, MACHINE, seconds, goals, vocabularies, scored_bytes=SCORED, text_bytes=text)


@pytest.mark.parametrize("minutes", [10, 30, 120])
def test_a_ladder_ends_in_its_budget_and_no_run_takes_most_of_it(minutes):
    recipe, found = ladder_of(minutes * 60)
    costs = [cost_of(rung, recipe, MACHINE, SCORED).seconds for rung in found.rungs]
    assert 0.6 * minutes * 60 < sum(costs) <= found.seconds + 1e-6 <= minutes * 60
    assert max(costs) <= LARGEST_SHARE * minutes * 60
    assert len({rung.name for rung in found.rungs}) == len(found.rungs) >= LEAST_RUNS


def test_a_ladder_varies_what_the_law_must_tell_apart():
    _, found = ladder_of(1800)
    assert len({rung.width for rung in found.rungs}) >= 3
    assert len({rung.tokens for rung in found.rungs}) >= 3
    assert len({rung.vocabulary_size for rung in found.rungs}) >= 2
    assert {rung.ffn for rung in found.rungs} == {"dense", "experts"}
    assert sum(rung.tilt for rung in found.rungs) == 1
    _, dense = ladder_of(1800, "dense")
    assert {rung.ffn for rung in dense.rungs} == {"dense"}


def test_a_larger_budget_leaves_less_uncertain():
    recipe, _ = load_recipe("nordic")
    goals = targets(recipe, SizeSettings(), MACHINE, 8 * 3600, VOCABULARIES, GENERAL)
    found = [design(recipe, MACHINE, seconds, goals, VOCABULARIES, scored_bytes=SCORED, text_bytes=50e6).deviation for seconds in (600, 1800, 7200)]
    assert found[0] > found[1] > found[2] > 0


def test_no_run_is_shorter_than_the_first_steps():
    recipe, found = ladder_of(900)
    assert smallest_tokens(recipe) / batch_rule(recipe, smallest_tokens(recipe)) >= FEWEST_STEPS
    assert all(rung.tokens >= smallest_tokens(recipe) for rung in found.rungs)


def test_a_budget_below_the_smallest_ladder_names_one_that_is_enough():
    with pytest.raises(RecipeError, match=r"too small for a ladder of 6 runs on this machine. Give --budget \w+ or more\.$") as error:
        ladder_of(30)
    ladder_of(Budget.parse(str(error.value).rsplit("--budget ", 1)[1].removesuffix(" or more.")).amount)


def test_a_corpus_smaller_than_the_smallest_run_is_refused():
    with pytest.raises(RecipeError, match=r"the corpus has 0.2 MB of text and the smallest run of a ladder reads 0.7\d? MB"):
        ladder_of(1800, text=2e5)
