"""The six rebuilt systems as their makers trained them: tokens, batch, schedule, phases, mixture, machine; and what of it yields to a budget."""

import pytest
from typer.testing import CliRunner

from hagane.cli import app
from hagane.errors import RecipeError
from hagane.plan.cluster import plan_on
from hagane.plan.contexts import extended_context
from hagane.plan.fitted import fitted
from hagane.recipe.load import load_recipe
from hagane.recipe.types import Machine

MACHINE = Machine(name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=400e9, bandwidth=20e9, power_watts=31.0, power_source="stated")
# tokens of all phases, tokens of a step, warm-up steps, share of midtraining, context at the end (docs of each in its recipe)
PUBLISHED = {
    "llm-jp-4-8b": (11.7e12, 512 * 4096, 2000, 1.2 / 11.7, 65_536),
    "llm-jp-4-32b-a3b": (11.7e12, 1024 * 4096, 2000, 1.2 / 11.7, 65_536),
    "ax-k1": (9.26e12, None, None, 1.66 / 9.26, 32_768),
    "neurosynth-7": (3.2e12, None, None, 0.0, 131_072),
    "neurosynth-9": (5.3e11, None, None, 0.0, 4096),
    "amplimind-xl": (14.8e12, None, None, 0.0, 4096),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_run_is_planned_where_nothing_else_is_asked_for(name):
    recipe, _ = load_recipe(name)
    tokens, batch, warmup, midtrain, longest = PUBLISHED[name]
    facts = plan_on(recipe, recipe.published.machine)[1]
    assert facts["tokens"] == tokens == recipe.train.tokens and facts["machine"].split("x")[0] == recipe.published.machine.split("x")[0]
    if batch is not None:
        assert facts["tokens_per_step"] == batch and "published.batch_tokens" in facts["reasons"]["tokens_per_step"]
        assert recipe.train.warmup_share * tokens * (1 - midtrain) / batch == pytest.approx(warmup, rel=0.1)
    assert recipe.midtrain.share == pytest.approx(midtrain, rel=0.01)
    assert (extended_context(recipe, recipe.train.context) or recipe.train.context) == longest
    for field, value in recipe.published.layout.model_dump(exclude_none=True, exclude={"precision"}).items():
        assert all(found["layout"][field] == value for found in facts["layouts"])
    said = CliRunner().invoke(app, ["plan", name])
    assert said.exit_code == 0 and f"{recipe.name} on " in said.output


def test_a_mixture_in_shares_is_read_by_language_and_names_its_source():
    recipe, _ = load_recipe("llm-jp-4-8b")
    assert recipe.mix.weights == {"en": 73.5, "ja": 15.5, "code-python": 8.1, "zh": 2.6, "ko": 0.2} and "train_data.sh" in recipe.mix.reason
    assert sum(recipe.mix.weights.values()) == pytest.approx(100, abs=0.2)


def test_the_rate_of_a_published_size_yields_to_a_budget_as_the_size_does():
    own, _ = load_recipe("llm-jp-4-8b")
    small, _ = load_recipe("llm-jp-4-8b", ["budget=20min"])
    assert own.train.learning_rate == 3e-4 and fitted(own, (), MACHINE).train.learning_rate == 3e-4
    assert fitted(small, (), MACHINE).train.learning_rate is None
    kept, _ = load_recipe("llm-jp-4-8b", ["budget=20min", "train.learning_rate=1e-3"])
    assert fitted(kept, ("train.learning_rate",), MACHINE).train.learning_rate == 1e-3
    assert fitted(small, ("model.size.width",), MACHINE).train.learning_rate == 3e-4


def test_the_dial_that_comes_last_holds(tmp_path):
    child = tmp_path / "own.toml"
    child.write_text('name = "own"\nextends = "llm-jp-4-8b"\nbudget = "2h"\n', encoding="utf-8")
    assert (load_recipe(str(child))[0].budget, load_recipe(str(child))[0].train.tokens) == ("2h", None)
    both = load_recipe(str(child), ["train.tokens=5000000"])[0]
    assert (both.budget, both.train.tokens) == (None, 5_000_000)
    assert load_recipe("quickstart", ["train.tokens=5000000"])[0].budget is None
    child.write_text('name = "own"\nextends = "llm-jp-4-8b"\nbudget = "2h"\n[train]\ntokens = 5\n', encoding="utf-8")
    with pytest.raises(RecipeError, match="are two dials"):
        load_recipe(str(child))
