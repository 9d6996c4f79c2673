"""The search finds the best of all layouts, and says what is missing where there is none."""

import itertools
import re

import pytest

from hagane.errors import RecipeError
from hagane.plan.batch import step_law_batch
from hagane.plan.cluster import plan_on
from hagane.plan.dial import GOODPUT
from hagane.plan.layout import BOTTLENECKS, FITTED, check, estimate, imbalance_of
from hagane.plan.machines import cluster
from hagane.plan.search import Bound, _divisors, best_layouts, fitting, layouts
from hagane.plan.shapes import published
from hagane.plan.workload import from_shape, workload
from hagane.recipe.load import load_recipe, validate
from hagane.recipe.types import Layout

SHAPE = {"width": 2048, "context": 2048, "vocabulary_size": 32000, "num_heads": 16, "head_dim": 128}
DENSE = from_shape(num_layers=24, hidden=8192, **SHAPE)
ROUTED = from_shape(num_layers=24, num_experts=16, top_k=2, expert_hidden=2048, routed_layers=24, **SHAPE)
LONG = from_shape(num_layers=24, num_experts=16, top_k=2, expert_hidden=2048, routed_layers=24, **{**SHAPE, "context": 32768})
BATCH = 2**18


def every_layout(work, machine):
    """By brute force over all degrees, turns, micro-batches and ways of checkpointing."""
    degrees = (1, 2, 4, 8)
    for tensor, pipeline, expert, zero, turns, rows in itertools.product(degrees, degrees, degrees, (1, 3), degrees, (1, 2, 4, 8, 16, 32)):
        if machine.count % (tensor * pipeline) or (zero == 3 and pipeline > 1) or (turns > 1 and pipeline == 1):
            continue
        data = machine.count // (tensor * pipeline)
        if rows * 2048 * data > BATCH:
            continue
        for mode in ("none", "selective", "full"):
            layout = Layout(
                data=data, zero=zero, tensor=tensor, pipeline=pipeline, interleave=turns, expert=expert, micro_batch=rows, checkpointing=mode
            )
            if check(work, layout, machine) is None:
                found = estimate(work, layout, machine, BATCH)
                if found.memory.total <= machine.accelerator.memory_bytes:
                    yield found


@pytest.mark.parametrize(("work", "name"), [(DENSE, "4xRTX-4090"), (ROUTED, "4xA100-40GB"), (DENSE, "8xH100")])
def test_the_best_is_the_best_of_all(work, name):
    machine = cluster(name)
    best = best_layouts(work, machine, BATCH)
    assert best[0].tokens_per_second == pytest.approx(max(found.tokens_per_second for found in every_layout(work, machine)), rel=1e-9)
    assert [item.tokens_per_second for item in best] == sorted((item.tokens_per_second for item in best), reverse=True)
    for item in best:
        assert item.memory.total <= machine.accelerator.memory_bytes
        assert item.parts.bottleneck in {BOTTLENECKS.get(name, name) for name in item.parts._fields} | {"matrix products"}


@pytest.mark.parametrize(("work", "name", "coarse"), [(ROUTED, "64xA100-40GB", False), (DENSE, "64xTPU-v5p", True), (LONG, "32xH100", False)])
def test_what_is_left_out_could_not_have_been_among_the_fastest(work, name, coarse):
    machine = cluster(name)
    fastest = {}
    for layout in layouts(work, machine, 2**21, coarse=coarse):
        found = fitting(work, layout, machine, 2**21)
        if found is None:
            continue
        one = estimate(work, found, machine, 2**21)
        bound = Bound(work, layout.model_copy(update={"micro_batch": 1, "interleave": 1, "zero": 1}), machine, imbalance_of(layout, False), FITTED)
        assert one.tokens_per_second <= bound.of(layout, one.num_micro) <= bound.most(2**21) * (1 + 1e-9)
        key = (layout.data, layout.zero, layout.tensor, layout.pipeline, layout.context, layout.expert)
        fastest[key] = max(fastest.get(key, 0.0), one.tokens_per_second)
    best = best_layouts(work, machine, 2**21, count=5, coarse=coarse)
    assert [item.tokens_per_second for item in best] == sorted(fastest.values(), reverse=True)[:5]


def test_what_is_missing_is_said():
    huge = from_shape(num_layers=96, hidden=49152, **{**SHAPE, "width": 12288, "num_heads": 96})
    with pytest.raises(RecipeError, match=r"0\.68 TB of memory .* parameters take .* TB .*: take \d+ devices, not 8\."):
        best_layouts(huge, cluster("8xH100"), BATCH)
    with pytest.raises(RecipeError, match="too few for 64xH100"):
        best_layouts(DENSE, cluster("64xH100"), 1024)
    long = from_shape(num_layers=8, hidden=8192, **{**SHAPE, "context": 2**20})
    with pytest.raises(RecipeError, match=r"lacks [\d.,]+ GB on each device"):
        best_layouts(long, cluster("1xRTX-4090"), 2**20)


def test_counts_that_fit_are_named_and_do():
    recipe = load_recipe("amplimind-xl", ["budget=30d"])[0]
    with pytest.raises(RecipeError, match=r"Take 960 or 1,024 of them, devices with more memory"):
        plan_on(recipe, "1000xH100")
    assert all(plan_on(recipe, f"{count}xH100")[1]["layouts"] for count in (960, 1024))


@pytest.mark.usefixtures("planned_at_once")
@pytest.mark.parametrize(
    ("name", "count", "device"),
    [("llm-jp-4-32b-a3b", 1, "RTX4090"), ("ax-k1", 16, "H100"), ("neurosynth-9", 2048, "A100"), ("neurosynth-9", 8, "GB200"), ("amplimind-xl", 16, "TPUv5e"),
     ("ax-k1", 1, "M4-Max")],
)  # fmt: skip
def test_devices_that_are_advised_are_enough(name, count, device):
    recipe = load_recipe(name, ["budget=21d"])[0]
    with pytest.raises(RecipeError, match=r"TB of memory .*: take [\d,]+ devices, not ") as refused:
        plan_on(recipe, f"{count}x{device}")
    enough = re.search(r"take ([\d,]+) devices", str(refused.value))[1]
    assert plan_on(recipe, f"{enough}x{device}")[1]["layouts"]


def test_where_no_number_of_devices_is_enough_none_is_advised():
    recipe = load_recipe("ax-k1", ["budget=21d", "execution.layout={data=2, zero=1, tensor=1, pipeline=1}"])[0]
    with pytest.raises(RecipeError, match=r"no number of H100 near that holds them\. Take devices with more memory"):
        plan_on(recipe, "2xH100")


@pytest.mark.parametrize("count", [1, 2, 12, 97, 360, 1000, 99_991])
def test_divisors_are_all_of_them(count):
    assert _divisors(count) == [value for value in range(1, count + 1) if count % value == 0]


@pytest.mark.usefixtures("planned_at_once")
def test_a_million_devices_are_planned_at_once():
    plan_on(load_recipe("llm-jp-4-32b-a3b", ["budget=1d"])[0], "1000000xH100")


def test_a_recipe_on_a_cluster_adds_up():
    recipe, _ = load_recipe("llm-jp-4-32b-a3b")
    lines, facts = plan_on(recipe.model_copy(update={"budget": "21d"}), "64xH200")
    assert facts["num_parameters"] == 32_139_028_992
    assert facts["seconds"] == pytest.approx(21 * 86400, rel=1e-6)
    assert facts["tokens"] == pytest.approx(facts["layouts"][0]["tokens_per_second"] * GOODPUT * facts["seconds"], rel=1e-6)
    assert facts["joules"] == pytest.approx(64 * 700 * facts["seconds"], rel=1e-6)
    assert facts["usd"] == pytest.approx(64 * 3.8 * 21 * 24, rel=1e-3)
    assert 2**-0.5 < facts["tokens_per_step"] / step_law_batch(facts["tokens"]) < 2**0.5
    assert len(facts["layouts"]) == 3
    assert sum("bottleneck" in line for line in lines) == 3


@pytest.mark.parametrize("budget", ["21d", "50MWh", "1e23FLOP", "1Ttokens", "100000USD"])
def test_one_dial_and_everything_else_follows_with_its_formula(budget):
    """Whatever the budget is counted in, the other amounts are those of the same run, and each says how it came about."""
    recipe, _ = load_recipe("llm-jp-4-32b-a3b")
    facts = plan_on(recipe.model_copy(update={"budget": budget.replace("50MWh", "50000kWh")}), "64xH200")[1]
    speed = facts["layouts"][0]["tokens_per_second"] * GOODPUT
    assert facts["seconds"] == pytest.approx(facts["tokens"] / speed, rel=1e-5)
    assert facts["joules"] == pytest.approx(facts["seconds"] * 64 * 700, rel=1e-5)
    assert facts["usd"] == pytest.approx(facts["seconds"] / 3600 * 64 * 3.8, rel=1e-3)
    assert facts["flops"] == pytest.approx(facts["tokens"] * 3 * workload(published(recipe.model, 4096), 4096).forward_flops, rel=1e-6)
    names = {"model", "tokens", "tokens_per_step", "learning_rate", "schedule", "flops", "goodput", "seconds", "joules", "usd", "layout", "bits_per_byte"}
    assert names == set(facts["reasons"])
    chosen = facts["curve"][3]
    assert (chosen["seconds"], chosen["joules"]) == pytest.approx((facts["seconds"], facts["joules"]), rel=1e-5)
    assert round(chosen["bits_per_byte"], 3) == facts["bits_per_byte"]
    losses = [point["bits_per_byte"] for point in facts["curve"]]
    assert losses == sorted(losses, reverse=True) and facts["low"] < facts["bits_per_byte"] < facts["high"]


LLM_JP = ("llm-jp-4-32b-a3b", "64xH200")


def layouts_of(name, machine, *settings):
    return plan_on(load_recipe(name, ["budget=9d", *settings])[0], machine)[1]["layouts"]


@pytest.mark.parametrize(
    "given", [{"pipeline": 4, "expert": 8, "tensor": 1}, {"data": 16, "expert": 1}, {"checkpointing": "full"}, {"pipeline": 2, "zero": 3, "micro_batch": 3}]
)
def test_a_layout_keeps_what_is_asked_and_is_the_fastest_that_does(given):
    found = layouts_of(*LLM_JP, *(f"execution.layout.{name}={value}" for name, value in given.items()))
    free = layouts_of(*LLM_JP)
    assert all(item["layout"][name] == value for item in found for name, value in given.items())
    assert found[0]["tokens_per_second"] <= free[0]["tokens_per_second"] * (1 + 1e-9) or "micro_batch" in given


def test_the_layout_that_was_found_can_be_asked_for():
    free = layouts_of(*LLM_JP)[1]
    settings = [f"execution.layout.{name}={value}" for name, value in free["layout"].items() if name not in ("precision", "micro_batch")]
    assert layouts_of(*LLM_JP, *settings)[0] == free


def test_a_precision_is_asked_for():
    fast, usual = layouts_of(*LLM_JP, "execution.layout.precision=fp8")[0], layouts_of(*LLM_JP)[0]
    assert (fast["layout"]["precision"], usual["layout"]["precision"]) == ("fp8", "bf16")
    assert fast["tokens_per_second"] > usual["tokens_per_second"]


@pytest.mark.parametrize(("rows", "accumulation"), [(1024, None), (96, None), (32, 3), (None, 8), (None, 3)])
def test_the_batch_of_the_recipe_is_that_of_the_plan(rows, accumulation):
    settings = [f"train.{name}={value}" for name, value in (("rows", rows), ("accumulation", accumulation)) if value]
    facts = plan_on(load_recipe(LLM_JP[0], ["budget=9d", *settings])[0], LLM_JP[1])[1]
    if rows is not None:
        assert facts["tokens_per_step"] == rows * (accumulation or 1) * 4096 and "as train.rows" in facts["reasons"]["tokens_per_step"]
    for item in facts["layouts"]:
        layout = item["layout"]
        micro_batches = facts["tokens_per_step"] / (layout["data"] * layout["micro_batch"] * 4096)
        assert accumulation is None or round(item["tokens_per_second"] * item["step_seconds"] / (layout["data"] * layout["micro_batch"] * 4096)) == accumulation
        assert rows is None or micro_batches == int(micro_batches)


def test_tokens_of_the_recipe_are_a_dial():
    assert plan_on(load_recipe("llm-jp-4-8b", ["train.tokens=1000000000000"])[0], "64xH100")[1]["tokens"] == 10**12


def test_two_dials_are_refused():
    values = {"name": "a", "budget": "2h", "train": {"tokens": 5}}
    with pytest.raises(RecipeError, match=r"budget = '2h' and train\.tokens = 5 are two dials; give one of them"):
        validate(values, "test")


def test_budgets_of_other_kinds_and_what_the_table_lacks():
    recipe, _ = load_recipe("llm-jp-4-8b")
    tokens = plan_on(recipe.model_copy(update={"budget": "10Btokens"}), "8xH100")[1]
    assert tokens["tokens"] == 10e9
    money = plan_on(recipe.model_copy(update={"budget": f"{tokens['usd']}USD"}), "8xH100")[1]
    assert money["tokens"] == pytest.approx(10e9, rel=0.05)
    with pytest.raises(RecipeError, match="publishes no power"):
        plan_on(recipe.model_copy(update={"budget": "10kWh"}), "256xTPU-v5p")
    with pytest.raises(RecipeError, match=r"Give --budget"):
        plan_on(load_recipe("nordic")[0], "8xH100")
