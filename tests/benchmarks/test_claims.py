"""The arithmetic behind quoted numbers of the claims, on inputs whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch

import delta
import small_models
from claims import clamping, extension, ladder, needles, swap
from claims.bench import CONTEXT, VOCABULARY, Bench, small
from hagane.hosts import host_for
from hagane.model.config import AttentionConfig
from hagane.model.decoder import Decoder
from hagane.plan.shapes import published
from hagane.recipe.load import load_recipe
from hagane.recipe.types import Machine, Phase
from hagane.train import optimizer
from hagane.train.probe import random_step
from hagane.train.stepper import Stepper
from peers.ratios import OVERALL, paired
from peers.text import Text
from small_models import Arm, Arms, keep

COSTS = [1.0, 2.0, 5.0, 12.0]


def bits_at(cost: float) -> float:
    """An exact power law."""
    return 3.0 * cost**-0.1


@pytest.mark.parametrize("cost", [1.0, 1.3, 4.0, 12.0, 0.5, 40.0], ids=lambda cost: f"at {cost:g} of 1 to 12")
def test_the_cost_of_a_dense_model_as_good_is_read_off_a_power_law(cost):
    assert ladder.cost_needed(bits_at(cost), COSTS, [bits_at(one) for one in COSTS]) == pytest.approx(cost, rel=1e-9)


@pytest.mark.parametrize("cost", [1.0, 3.0, 12.0])
def test_the_loss_of_a_dense_model_of_a_cost_is_read_off_a_power_law(cost):
    assert ladder.at_cost(cost, COSTS, [bits_at(one) for one in COSTS]) == pytest.approx(bits_at(cost), rel=1e-9)


def test_what_is_claimed_of_a_sparse_model_is_over_a_dense_one():
    """As good as a dense model of three times its FLOPs and 1.5 times its time; a rare language gains a tenth of a bit per byte, a frequent one nothing."""
    dense = {f"dense {index}": cost for index, cost in enumerate(COSTS)}
    rates = {name: {OVERALL: bits_at(cost), "rare": bits_at(cost), "often": bits_at(cost)} for name, cost in dense.items()}
    rates["experts"] = {OVERALL: bits_at(6.0), "rare": bits_at(2.0) - 0.1, "often": bits_at(2.0)}
    costs = {ladder.FLOPS: dense | {"experts": 2.0}, ladder.TRAINED: dense | {"experts": 4.0}}
    found = ladder.claimed(rates, costs, "experts", {"rare": 4.0, "often": 3.0}, ["rare"])
    assert (found[ladder.FLOPS], found[ladder.TRAINED]) == (pytest.approx(3.0), pytest.approx(1.5))
    assert (found["rare"], found["frequent"], found["rare over frequent"]) == (pytest.approx(2**-0.4), pytest.approx(1.0), pytest.approx(2**-0.4))


def test_the_claim_of_energy_is_judged_by_the_pattern_of_amplimind_xl():
    arms = Arms(None, None, Path(), "nordic", 1024)
    config = arms.config(Arm("AmpliMind-XL", 128, 4, 1e6, ladder.SPARSE["AmpliMind-XL"]))
    routed = config.layers[-1]
    assert host_for(config) == host_for(published(load_recipe("amplimind-xl")[0].model, 4096)) == "deepseek_v32"
    assert routed.mixer.index is not None and (routed.ffn.null_experts, routed.ffn.mean_used) == (8, 2)
    assert {name for name, kind in ladder.GOALS if kind in (ladder.TRAINED, ladder.GENERATED)} == {"AmpliMind-XL"}


def test_joules_are_seconds_at_the_power_of_the_profile():
    machine = Machine(name="test", device="cpu", num_cores=2, memory_bytes=1, matmul_flops=1, bandwidth=1, power_watts=31.0, power_source="stated in a test")
    costs = {ladder.FLOPS: {"experts": 9.0}, ladder.TRAINED: {"experts": 0.5}, ladder.GENERATED: {"experts": 2.0}}
    assert ladder.joules_of(costs, machine) == {ladder.TRAINED: {"experts": 15.5}, ladder.GENERATED: {"experts": 62.0}}


def test_a_planted_spike_is_counted_and_nothing_else():
    losses = list(4.0 - 0.01 * np.arange(60) + np.random.default_rng(0).normal(0.0, 0.02, 60))
    assert swap.spikes(losses) == 0
    losses[40] += 1.0
    assert swap.spikes(losses) == 1


@pytest.mark.parametrize("times", [1, None], ids=["each asked for once", "as often as there is room"])
def test_only_answers_to_questions_about_needles_in_the_row_have_weight_one(times):
    text, context = np.random.default_rng(1).integers(0, needles.VOCABULARY, 5000), 192
    one = needles.row(text, context, np.random.default_rng(0), times=times)
    asked = (times or context // 16 // needles.NEEDLES) * needles.NEEDLES
    answers = np.flatnonzero(one.weight_T == 1.0)
    assert answers.tolist() == list(range(context - 2 * asked + 1, context + 1, 2))[:asked]
    hay = one.tokens_T[: context + 1 - 2 * asked]
    for place in answers:
        question, answer = one.tokens_T[place], one.targets_T[place]
        of_class = (answer - needles.VOCABULARY - needles.CLASSES) // needles.KINDS
        assert question - needles.VOCABULARY == of_class and answer in hay, "the class that is asked for, and a needle that stood in the row"
    rest = np.delete(one.weight_T, answers)
    assert set(np.round(rest, 6)) == {0.0, np.float32(needles.TEXT_WEIGHT).round(6)}, "text a little, questions and needles in it not at all"


def test_generated_tokens_are_timed_with_the_kernels_that_the_engine_decodes_with(monkeypatch):
    fused, used = [], []
    monkeypatch.setattr(Decoder, "fuse", lambda decoder: fused.append(decoder))
    monkeypatch.setattr(small_models, "generate", lambda decoder, *_, **__: used.append(decoder))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    Arms(None, None, Path(), "nordic", 300).decode_seconds({"dense": Arm("dense", 32, 1, 1e5, ("model.pattern.ffn=dense",))})
    assert len(fused) == 1 and {id(one) for one in used} == {id(fused[0])}


def test_fast_routers_have_a_larger_rate_and_not_only_a_larger_gradient(monkeypatch):
    """As though the optimizer had a rate of their own for them."""
    config, steps = small(32, clamping.ARMS["nothing"].config(1.0, 32), num_layers=2), 4
    data = [random_step(VOCABULARY, 2, CONTEXT, seed=index) for index in range(steps)]
    hooks, weights = clamping.fast_routers(steps + 1), {}
    for way in ("hook", "hook again", "rate"):
        ratio = clamping.FAST if way == "rate" else 1.0
        phase = Phase(name="toy", collection="", context=CONTEXT, rows=2, num_steps=steps, mixture={}, learning_rate=1e-3, head_ratio=ratio)
        if way == "rate":
            monkeypatch.setattr(optimizer, "part_of", lambda name: "head" if ".router." in name else "layers")
        stepper = Stepper(config, device="cpu", dtype="float32", compiled=False, seed=0)
        for step in range(steps + 1):
            if way != "rate":
                with torch.no_grad():
                    hooks[step](stepper.decoder)
            if step < steps:
                stepper.step(data[step], phase, 1e-3)
        weights[way] = {name: parameter.detach().clone() for name, parameter in stepper.decoder.named_parameters()}
    for way in ("hook", "hook again"):
        for name, weight in weights["rate"].items():
            torch.testing.assert_close(weights[way][name], weight, rtol=1e-4, atol=1e-6, msg=lambda told: f"{way}, {name}: {told}")  # noqa: B023


def test_the_hybrid_is_timed_and_trained_with_the_same_gate_and_rotary_share_in_both_arms():
    (row,) = (one for one in swap.SWAPS if one.name == "hybrid")
    arms = Arms(None, None, Path(), "nordic", 1024)
    trained = [arms.config(arm) for arm in swap.arms_of(row, 128, 1e5, None).values()]
    timed = [delta.config_of(pattern, 2048) for pattern in (delta.FULL, delta.HYBRID)]
    for without, hybrid in (trained, timed):
        kinds = [layer.mixer.kind for layer in hybrid.layers]
        assert kinds == ["delta"] * 3 + ["attention"] and {type(layer.mixer) for layer in without.layers} == {AttentionConfig}
        mixers = [layer.mixer for config in (without, hybrid) for layer in config.layers if layer.mixer.kind == "attention"]
        assert {(mixer.gate, mixer.rotary_dim / mixer.head_dim) for mixer in mixers} == {("sigmoid", 0.25)}


def test_a_swap_is_trained_at_the_context_that_is_asked_for():
    arms = Arms(None, None, Path(), "nordic", 1024)
    for row in swap.SWAPS:
        assert {arms.config(arm).context for arm in swap.arms_of(row, 64, 1e5, 2048).values()} == {2048}, row.name


def test_intervals_over_seeds_are_those_of_students_t():
    """Published quantiles of two, six and eleven seeds; a single one has none."""
    for count, quantile in ((2, 12.706), (6, 2.571), (11, 2.228)):
        values = [1.0 + 0.1 * index for index in range(count)]
        found = paired(values)
        half = quantile * np.std(values, ddof=1) / count**0.5
        assert (found.value, found.half) == (pytest.approx(np.mean(values)), pytest.approx(half, rel=1e-3))
        assert (found.low, found.high) == (pytest.approx(found.value - half, rel=1e-3), pytest.approx(found.value + half, rel=1e-3))
    assert str(paired([0.5])) == "0.500 (one seed)"


@pytest.fixture
def bench(tmp_path):
    return Bench(Text(tmp_path, "toy", {}, {}), tmp_path, "quick", steps=1, seeds=3, sweep=1, width=32, rows=1, threads=1)


def test_needles_are_over_latent_attention_seed_by_seed(bench, capsys):
    """Every arm finds more with some seeds than with others, all in proportion: nothing about their ratio is uncertain."""
    for arm, share in (("latent", 1.0), ("sparse", 0.9), ("window", 0.5)):
        for seed, found in enumerate((0.4, 0.6, 0.8)):
            one = [share * found, 0.1]
            keep(needles.place(bench, arm, seed, needles.stages(arm, "quick")), {"by_context": {"192": one, "192 adaptive": one}})
    needles.retrieval(bench)
    assert (bench.figures["needles of sparse over latent at 192"], bench.spread["needles of sparse over latent at 192"]) == pytest.approx((0.9, 0.0))
    assert "over latent 0.900 (0.900 to 0.900)" in capsys.readouterr().out


def test_ways_of_extension_are_held_against_yarn_seed_by_seed(bench, capsys):
    for seed, found in enumerate((0.4, 0.6, 0.8)):
        methods = {method: {when: [1.0, found - 0.1 * index] for when in ("before", "after")} for index, method in enumerate(reversed(extension.METHODS))}
        keep(extension.path_of(bench, seed), methods)
    extension.row(bench)
    assert (bench.figures["needles at 8 x, ntk less yarn, after"], bench.spread["needles at 8 x, ntk less yarn, after"]) == pytest.approx((-0.1, 0.0))
    assert "linear  before -0.200 (-0.200 to -0.200)" in capsys.readouterr().out
