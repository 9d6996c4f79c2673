"""The plan of a run that goes on from a checkpoint: its shape, more rows, replay, and a learning rate that is warmed up again."""

import json
from dataclasses import replace

import pytest

from hagane.errors import RecipeError
from hagane.hosts import HOSTS
from hagane.hosts.published import read_config
from hagane.plan.choose import Known, learning_rate_rule
from hagane.plan.sketch import sketch
from hagane.plan.stage import make_plan
from hagane.plan.start import refuse_absent, refuse_conflicts, starting_settings
from hagane.recipe.load import load_recipe, validate
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Machine, StepRate
from toy_models import toy_config

MACHINE = Machine(name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=400e9, bandwidth=20e9, power_watts=31.0, power_source="stated")
LANGUAGES = {"corpus.sv": "sv", "corpus.smj": "smj", "problems.ja": "ja"}
LARGER = Known(
    shard_bytes={"corpus.sv": 40_000_000, "corpus.smj": 300_000, "problems.ja": 5_000_000},
    shard_source={name: name.split(".")[0] for name in LANGUAGES},
    shard_language=LANGUAGES,
    held_out_bytes={"corpus.sv": 400_000, "corpus.smj": 15_000, "problems.ja": 50_000},
    bytes_per_token={384: {"sv": 2.2, "smj": 2.0, "ja": 2.4}},
    new_tokens=50,
)


@pytest.fixture
def checkpoint(tmp_path):
    config = toy_config("experts").model_copy(update={"context": 256})
    (tmp_path / "config.json").write_text(json.dumps(HOSTS["qwen3_moe"].config_to_host(config, {})))
    return tmp_path


def recipe_from(folder, **start):
    recipe, _ = load_recipe("nordic")
    values = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return validate({**values, "name": "nordic", "budget": "10min", "start": {"from": None if folder is None else str(folder), **start}}, "test")


def plan_of(recipe, known=LARGER):
    def time_step(config, rows, context):
        return StepRate(tokens_per_second=rows * context / 0.1, step_seconds=0.1, compile_seconds=5.0)

    return make_plan(recipe, SizeSettings(), MACHINE, known, sketch(recipe, SizeSettings(), MACHINE), lambda: 500.0, time_step, {})


def test_shape_and_rows_replay_and_learning_rate(checkpoint):
    plan = plan_of(recipe_from(checkpoint, languages=["sv"], replay_share=0.4, learning_rate_ratio=0.25, rewarm_share=0.2))
    assert plan.model == read_config(checkpoint)[1].model_copy(update={"vocabulary_size": 384}) and plan.vocabulary_size == 384
    (phase,) = plan.phases["pretrain"]
    # a tenth are problems, whose share is fixed; of the rest 0.4 are replayed
    assert phase.mixture == pytest.approx({"problems.ja": 0.1, "corpus.sv": 0.9 * 0.4, "corpus.smj": 0.9 * 0.6})
    assert phase.warmup_steps == round(0.2 * phase.num_steps)
    assert phase.learning_rate == pytest.approx(0.25 * learning_rate_rule(plan.model, plan.expected_tokens), rel=0.01)
    assert "320 rows as" in plan.reasons["vocabulary"] and "50 new tokens: 384 rows" in plan.reasons["vocabulary"]
    assert "40% replay" in plan.reasons["mixture"] and "warmed up again to 0.25 times" in plan.reasons["learning_rate"]
    assert plan.languages["sv"].read_bytes < plan.languages["smj"].read_bytes


def test_a_learning_rate_that_is_given_is_the_peak(checkpoint):
    recipe = recipe_from(checkpoint, learning_rate_ratio=0.25)
    plan = plan_of(recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": 1e-3})}))
    assert plan.phases["pretrain"][0].learning_rate == 1e-3


def test_a_source_that_replay_leaves_out_cannot_be_midtrained_on(checkpoint):
    known = replace(LARGER, shard_source={**LARGER.shard_source, "corpus.sv": "swedish"})
    recipe = recipe_from(checkpoint, languages=["sv"], replay_share=0.0)
    plan = plan_of(recipe, known)
    assert plan.phases["pretrain"][0].mixture["corpus.sv"] == 0
    recipe = recipe.model_copy(update={"midtrain": recipe.midtrain.model_copy(update={"share": 0.2, "mixture": {"swedish": 1.0}})})
    with pytest.raises(RecipeError, match=r"start\.replay_share = 0 leaves nothing"):
        plan_of(recipe, known)


def test_what_cannot_be_is_one_sentence(checkpoint):
    with pytest.raises(RecipeError, match=r"start\.languages names eu, and the corpus has no text in it \(only ja, smj, sv\)"):
        refuse_absent(recipe_from(checkpoint, languages=["sv", "eu"]), {"sv", "smj", "ja"})
    everything = recipe_from(checkpoint, languages=["sv", "smj", "ja"], new_tokens=9)
    with pytest.raises(RecipeError, match="names all that the corpus has"):
        refuse_absent(everything, {"sv", "smj", "ja"})
    refuse_absent(recipe_from(checkpoint, languages=["sv", "smj", "ja"]), {"sv", "smj", "ja"})
    for setting in ({"languages": ["sv"]}, {"new_tokens": 5}, {"replay_share": 0.1}, {"rewarm_share": 0.1}, {"learning_rate_ratio": 2}):
        with pytest.raises(RecipeError, match=f"start.{next(iter(setting))} says how to go on from a checkpoint, and none is given"):
            refuse_conflicts(recipe_from(None, **setting), ())
    refuse_conflicts(recipe_from(None), ())
    with pytest.raises(RecipeError, match="cannot lose tokens"):
        recipe_from(checkpoint, new_tokens=-1)


def test_keys_hold_what_is_read_of_the_checkpoint_and_how_it_is_gone_on_from(checkpoint):
    recipe = recipe_from(checkpoint, languages=["sv"])
    before = starting_settings(recipe, "languages")
    assert before["start.languages"] == ["sv"] and starting_settings(recipe_from(None), "languages") == {}
    (checkpoint / "chat_template.jinja").write_text("x")
    assert starting_settings(recipe, "languages") != before
