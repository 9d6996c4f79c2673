"""Phases of several contexts are one training: the same tokens a step, one learning rate, the planned time, FLOPs counted where they fall."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.errors import RecipeError
from hagane.model.count import flops_per_token
from hagane.plan.batch import step_law_batch
from hagane.plan.choose import Known
from hagane.plan.contexts import Part, batch_at, contexts, curriculum, mean_tokens_per_second, mean_training_flops, split, stretches
from hagane.plan.cost import phases_flops, tokens_per_second, training_flops_per_token
from hagane.plan.fitted import fitted
from hagane.plan.sketch import sketch, smallest_seconds
from hagane.plan.stage import make_plan
from hagane.recipe.load import load_recipe, validate
from hagane.recipe.schema import SizeSettings
from hagane.recipe.types import Machine, Phase, StepRate
from hagane.train.schedule import Timetable

MACHINE = Machine(
    name="test", device="cpu", num_cores=2, memory_bytes=24 << 30, matmul_flops=400e9, bandwidth=20e9, power_watts=31.0, power_source="stated in a test"
)
KNOWN = Known(
    shard_bytes={"corpus.sv": 40_000_000, "problems.ja": 5_000_000}, shard_source={"corpus.sv": "corpus", "problems.ja": "problems"},
    shard_language={"corpus.sv": "sv", "problems.ja": "ja"}, held_out_bytes={"corpus.sv": 400_000, "problems.ja": 50_000},
    bytes_per_token={size: {"sv": 2.0 + size / 4096, "ja": 2.2 + size / 4096} for size in (2048, 4096)},
)  # fmt: skip
CURRICULUM = {"context": 256, "curriculum": [{"context": 32, "share": 0.5}, {"context": 64, "share": 0.2}]}


def recipe_with(**changes):
    recipe, _ = load_recipe("nordic")
    return validate({**recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True), "name": "nordic", "budget": "20min", **changes}, "test")


def seconds_at(context):
    """A step is dearer on longer rows, by more than its FLOPs."""
    return 0.1 * (1 + context / 256)


def plan_of(recipe, seconds=1200.0, timed=None, size=None):
    def time_step(config, rows, context):
        (timed if timed is not None else {})[context] = rows
        return StepRate(tokens_per_second=rows * context / seconds_at(context), step_seconds=seconds_at(context), compile_seconds=2.0)

    left = None if recipe.budget.endswith(("FLOP", "tokens")) else seconds - 15.0
    size = size or SizeSettings()
    return make_plan(recipe, size, MACHINE, KNOWN, sketch(recipe, size, MACHINE), lambda: left, time_step, {"corpus": 4.0, "tokenizer": 3.0})


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 300), st.floats(0, 1), st.floats(0, 1), st.integers(0, 30), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_the_learning_rate_of_the_parts_is_that_of_the_whole(steps, decay, final, warmup, weights):
    whole = Phase(
        name="pretrain", collection="text", context=64, rows=4, num_steps=steps, mixture={"a": 1.0}, learning_rate=3e-3, warmup_steps=warmup,
        decay_share=decay, final_share=max(final, 1e-3),
    )  # fmt: skip
    parts = split(whole, [Part(2**index, 64 // 2**index, 1, weight / sum(weights)) for index, weight in enumerate(weights)])
    together, alone = Timetable(parts), Timetable([whole])
    assert together.num_steps == steps and len(parts) == len(weights)
    if parts[0].num_steps >= warmup:
        assert [together.learning_rate(step) for step in range(steps)] == pytest.approx([alone.learning_rate(step) for step in range(steps)], rel=1e-9)


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(1, 8), st.sampled_from([16, 32, 64, 128, 256, 2048, 4096]))
def test_a_step_has_as_many_tokens_at_every_context(rows, accumulation, context):
    base = 256
    own_rows, own_accumulation = batch_at(context, base, rows, accumulation)
    tokens = rows * accumulation * base
    assert own_rows >= 1 and own_accumulation >= 1
    if context <= base:
        assert own_rows * own_accumulation * context == tokens and own_rows * context == rows * base
    else:
        assert own_rows * own_accumulation * context <= max(tokens, context) < 2 * max(own_rows * own_accumulation * context, context)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0.01, 0.3), st.floats(0.1, 10))
def test_shares_of_stages_are_shares_of_the_time(midtrain, tune, extend, slope):
    recipe = recipe_with(train=CURRICULUM, midtrain={"share": midtrain}, tune={"share": tune}, extend={"share": extend})
    parts, mean = stretches(recipe, lambda context: 1 + slope * context)
    assert sum(part.share for part in parts) == pytest.approx(1)
    spent = {stage: sum(part.share * (1 + slope * part.context) for part in parts if part.stage == stage) / mean for stage in ("midtrain", "tune", "extend")}
    assert spent == pytest.approx({"midtrain": midtrain, "tune": tune, "extend": extend})
    pretrain = [part for part in parts if part.stage == "pretrain"]
    assert [part.context for part in pretrain] == [32, 64, 256]
    assert [part.share / sum(part.share for part in pretrain) for part in pretrain] == pytest.approx([0.5, 0.2, 0.3])


def test_a_curriculum_is_planned_phase_by_phase_and_keeps_the_budget():
    timed: dict[int, int] = {}
    plan = plan_of(recipe_with(train=CURRICULUM, extend={"share": 0.1, "factor": 8}), timed=timed)
    assert set(timed) == set(plan.step_seconds) == {32, 64, 256, 2048}
    assert plan.predicted.seconds == pytest.approx(1200 - 15 + 7, rel=0.02)
    pretrain = plan.phases["pretrain"]
    assert [(phase.name, phase.context) for phase in pretrain] == [("pretrain 32", 32), ("pretrain 64", 64), ("pretrain 256", 256)]
    assert {phase.tokens_per_step for phase in pretrain} == {plan.tokens_per_step} and {phase.rows for phase in pretrain} == {timed[32], timed[64], timed[256]}
    assert [phase.num_steps / plan.stages["pretrain"].steps for phase in pretrain] == pytest.approx([0.5, 0.2, 0.3], abs=0.01)
    assert [phase.warmup_steps > 0 for phase in pretrain] == [True, False, False]
    training = sum(plan.stages[name].seconds for name in plan.phases)
    assert plan.stages["extend"].seconds / training == pytest.approx(0.1, abs=0.01)
    tuned = sum(plan.stages[name].seconds for name in plan.phases if name.startswith("tune/"))
    assert tuned / training == pytest.approx(recipe_with().tune.share, abs=0.01)
    every = [phase for parts in plan.phases.values() for phase in parts]
    assert plan.flops == pytest.approx(sum(3 * flops_per_token(plan.model, phase.context) * phase.num_steps * phase.tokens_per_step for phase in every))
    assert plan.model.context == 256 and plan.extended.context == 2048
    assert plan.model_of("pretrain") == plan.model and plan.model_of("extend") == plan.model_of([*plan.phases][-1]) == plan.extended
    assert [*plan.phases][:2] == ["pretrain", "extend"]
    assert plan.phases["pretrain"][-1].final_share * plan.phases["pretrain"][-1].learning_rate > 0, "a stage comes after it"
    assert "112 ms at a context of 32" in plan.reasons["steps"]


def test_a_curriculum_trains_on_more_tokens_in_the_same_time():
    assert plan_of(recipe_with(train=CURRICULUM)).tokens > plan_of(recipe_with(train={"context": 256})).tokens


def test_budgets_of_flops_count_every_context():
    recipe, plain = recipe_with(train=CURRICULUM), recipe_with(train={"context": 256})
    config = plan_of(plain).model
    assert contexts(plain) == [256] and contexts(recipe) == [256, 32, 64] and curriculum(plain) == [(256, 1.0)]
    assert mean_training_flops(plain, config) == 3 * flops_per_token(config, 256) > mean_training_flops(recipe, config) > 3 * flops_per_token(config, 32)
    assert mean_tokens_per_second(plain, config, MACHINE) == tokens_per_second(config, 256, MACHINE) < mean_tokens_per_second(recipe, config, MACHINE)
    fixed = SizeSettings(width=128, num_layers=4, vocabulary_size=4096)
    recipe = recipe_with(train=CURRICULUM, budget="1e14FLOP", tune={"share": 0.25}, extend={"share": 0.2})
    assert plan_of(recipe, size=fixed).flops == pytest.approx(1e14, rel=0.005)


@pytest.mark.parametrize("warmup", ["together", "alone"])
def test_a_budget_of_flops_is_met_by_what_indexers_do_in_every_phase(warmup):
    """Dense, warm-up and sparse phases of three contexts cost unlike FLOPs a token: counted by hand from the phases, they are the budget."""
    pattern = {"mixer": "latent", "query_ratio": 0.5, "index_top_k": 64, "index_heads": 16}
    train = CURRICULUM | {"index_dense_share": 0.6, "index_warmup_share": 0.1, "index_warmup": warmup}
    recipe = recipe_with(model={"pattern": pattern}, train=train, budget="1e14FLOP", tune={"share": 0.25}, midtrain={"share": 0.1})
    plan = plan_of(recipe, size=SizeSettings(width=128, num_layers=4, vocabulary_size=4096))
    phases = [phase for parts in plan.phases.values() for phase in parts]
    assert {phase.index for phase in phases} == {"dense", "warmup" if warmup == "alone" else "together", "sparse"}
    assert {phase.context for phase in phases} == {32, 64, 256}
    by_hand = sum(phase.num_steps * phase.tokens_per_step * training_flops_per_token(plan.model, phase.context, phase.index) for phase in phases)
    assert plan.flops == pytest.approx(by_hand, rel=1e-12) and plan.flops == pytest.approx(1e14, rel=0.005)
    sparse = sum(phase.num_steps * phase.tokens_per_step * training_flops_per_token(plan.model, phase.context) for phase in phases)
    assert abs(sparse / by_hand - 1) > 0.03, "what they do must matter here"
    tokens = sum(phase.num_steps * phase.tokens_per_step for phase in phases)
    assert phases_flops(plan.model, phases, tokens / 2) == pytest.approx(by_hand / 2)


def test_more_contexts_need_more_time_to_be_compiled_and_timed():
    assert smallest_seconds(3) > smallest_seconds()
    with pytest.raises(RecipeError, match="smallest useful one"):
        sketch(recipe_with(train=CURRICULUM, budget=f"{int(smallest_seconds()) + 2}s"), SizeSettings(), MACHINE)


def test_rows_that_do_not_fit_are_refused_by_their_setting():
    small = MACHINE.model_copy(update={"memory_bytes": 700 << 20})
    recipe = recipe_with(extend={"share": 0.1, "factor": 64}, train={"context": 256})
    with pytest.raises(RecipeError, match=r"rows of 16,384 tokens needs .* Lower extend.factor"):
        make_plan(
            recipe, SizeSettings(width=128), small, KNOWN, sketch(recipe, SizeSettings(width=128), small), lambda: 1000.0,
            lambda config, rows, context: StepRate(tokens_per_second=1e5, step_seconds=0.1, compile_seconds=0.0), {},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"context": 256, "curriculum": [{"context": 96, "share": 0.5}]}, "96 must divide the 256 tokens"),
        ({"context": 256, "curriculum": [{"context": 256, "share": 0.5}]}, "256 must divide the 256 tokens that come after it, and be fewer"),
        ({"context": 256, "curriculum": [{"context": 64, "share": 0.5}, {"context": 32, "share": 0.2}]}, r"curriculum\[0\].context = 64 must divide the 32"),
        ({"context": 256, "curriculum": [{"context": 64, "share": 0.5}, {"context": 128, "share": 0.5}]}, "leave nothing of pretraining"),
        ({"context": 256, "curriculum": [{"contxt": 64, "share": 0.5}]}, "Did you mean context"),
    ],
)
def test_curricula_that_cannot_be_are_refused(train, message):
    with pytest.raises(RecipeError, match=message):
        recipe_with(train=train)


def test_a_published_curriculum_yields_to_a_budget():
    published = {"context": 16_384, "curriculum": [{"context": 2048, "share": 0.7}]}
    small = fitted(recipe_with(train=published, budget="20min"), (), MACHINE)
    large = fitted(recipe_with(train=published, budget="60d"), (), MACHINE)
    lengths = [(one.train.curriculum[0].context, one.train.context) for one in (small, large)]
    assert all(long == 8 * short for short, long in lengths) and 32 <= lengths[0][0] < lengths[1][0] <= 2048
    assert 8 * small.train.context <= step_law_batch(sketch(small, SizeSettings(), MACHINE).tokens)
    asked = recipe_with(train=published, budget="20min")
    assert fitted(asked, ("train.context",), MACHINE) is asked
    for unchanged in (recipe_with(train=published, budget=None), recipe_with(train={"context": 16_384})):
        assert fitted(unchanged, (), MACHINE) is unchanged
    assert fitted(small, (), MACHINE) == small


def test_no_stage_that_is_asked_for_is_rounded_away():
    """The hundred steps of the smallest budget, of which LLM-jp-4 extends for one in two hundred."""
    train = {"context": 64, "rows": 32}
    plan = plan_of(recipe_with(train=train, budget="204800tokens", midtrain={"share": 0.004}, extend={"share": 0.005, "factor": 16}))
    steps = {stage: sum(part.num_steps for part in parts) for stage, parts in plan.phases.items()}
    assert steps["midtrain"] == steps["extend"] == 1 and sum(steps.values()) == 100
    without = plan_of(recipe_with(train=train, budget="204800tokens"))
    assert not {"midtrain", "extend"} & {stage for stage, parts in without.phases.items() if parts}


def test_neurosynth_7_is_trained_on_longer_and_longer_rows_on_a_laptop():
    recipe, _ = load_recipe("neurosynth-7")
    assert contexts(recipe) == [16_384, 2048, 131_072]
    small = fitted(load_recipe("neurosynth-7", ["budget=10min"])[0], (), MACHINE)
    base = small.train.context
    assert contexts(small) == [base, base // 8, 8 * base] and 256 <= base <= 2048


@pytest.mark.parametrize("budget", ["10min", "204800tokens"])
def test_texts_that_hide_numbers_are_no_longer_than_the_contexts_that_are_left(budget):
    small = fitted(load_recipe("neurosynth-7", [f"budget={budget}"])[0], (), MACHINE)
    base = small.train.context
    assert small.evaluate.retrieval.lengths == tuple(sorted({max(256, base // 8), max(256, base), 8 * base}))
    asked = load_recipe("neurosynth-7", [f"budget={budget}", "evaluate.retrieval.lengths=[128, 4096]"])[0]
    kept = fitted(asked, ("evaluate.retrieval.lengths",), MACHINE)
    assert kept.train.context == base and kept.evaluate.retrieval.lengths == (128, 4096)
    short = fitted(asked, (), MACHINE).evaluate.retrieval.lengths
    assert short[0] == 128, "shorter than any that is halved: it stays"


def test_shares_must_leave_pretraining_something():
    with pytest.raises(RecipeError, match="leave nothing for pretraining"):
        recipe_with(extend={"share": 0.5}, tune={"share": 0.5})
