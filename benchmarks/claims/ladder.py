"""Routed experts, and the patterns of NeuroSynth-9 and AmpliMind-XL, beside a ladder of dense models of the same text, tokenizer and tokens.

Dense models of five widths; and of the width of the second, with as much of a feed-forward in use: one with experts, one with experts, Gated DeltaNet and gated
attention (NeuroSynth-9), and one with experts, null experts and latent attention to the keys that indexers choose (AmpliMind-XL).
Each has the best of the learning rates that all may try. What a dense model as good would cost is read from the dense ones,
log against log between neighbours, in inference FLOPs (a token's forward pass, head included: the claim of NeuroSynth-7 is 40 % fewer), in the time and the
energy of a trained and of a generated token. Joules are seconds times the power of the machine's profile, stated or measured, so that ratios of energy are
those of time (the claim of AmpliMind-XL is 42 % less a token); steps and decoding are timed in turns on a quiet machine.
Every other language is read an eighth as often, as a small language is, and the perplexity of a token over that of
a dense model of equal inference FLOPs is told by language: the claim is that small ones gain most. Intervals: 95 %, bootstrap over documents and seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from claims.bench import Bench
from hagane.model.count import flops_per_token
from hagane.recipe.types import Machine
from peers.ratios import CONFIDENCE, OVERALL, draws_of, figures
from small_models import Arm

WIDTHS, LAYERS = (96, 128, 160, 192, 256), 4
QUICK_WIDTHS, QUICK_LAYERS = (32, 48, 64), 4
EXPERTS = ("model.pattern.num_experts=8", "model.pattern.top_k=2")
SPARSE = {
    "experts": EXPERTS,
    "NeuroSynth-9": (*EXPERTS, "model.pattern.deltas=3", "model.pattern.attention_gate=sigmoid", "model.pattern.shared_experts=1"),
    "AmpliMind-XL": (  # a token uses two experts on average; 16 keys are an eighth of what it sees on average in rows of 256
        "model.pattern.mixer=latent", "model.pattern.query_ratio=0.5", "model.pattern.index_top_k=16", "model.pattern.index_share=0.9",
        "model.pattern.num_experts=8", "model.pattern.null_experts=8", "model.pattern.top_k=4", "model.pattern.mean_experts=2",
        "model.pattern.shared_experts=1", "model.pattern.score=sigmoid", "model.pattern.balance=bias", "model.pattern.aux_coefficient=1e-4",
        "model.pattern.dense_layers=1",
    ),
}  # fmt: skip
RATES = (1.0, 1.5, 0.67)  # times the plan's, in the order in which they are tried
RARE = 1 / 8
FLOPS, TRAINED, GENERATED = "inference FLOPs", "time of a trained token", "time of a generated token"
GOALS = {("experts", FLOPS): ">= 1.67", ("AmpliMind-XL", TRAINED): ">= 1.72", ("AmpliMind-XL", GENERATED): ">= 1.72"}
Rates = Mapping[str, Mapping[str, float]]  # arm -> figure -> bits per byte


def arms_of(bench: Bench) -> dict[str, Arm]:
    """The dense ladder by width, and the sparse ones."""
    widths, layers = (WIDTHS, LAYERS) if bench.mode == "full" else (QUICK_WIDTHS, QUICK_LAYERS)
    weights = tuple((language, RARE) for language in rare(bench))
    dense = {f"dense {width}": Arm(f"dense {width}", width, layers, bench.tokens, ("model.pattern.ffn=dense",), weights=weights) for width in widths}
    return dense | {name: Arm(name, widths[1], layers, bench.tokens, sets, weights=weights) for name, sets in SPARSE.items()}


def rare(bench: Bench) -> list[str]:
    return sorted(bench.text.test_bytes)[1::2]


def cost_needed(value: float, cost_W: Sequence[float], bits_W: Sequence[float]) -> float:
    """The cost at which a ladder reaches `value` bits per byte: between its neighbours, or on the line through its last two; log against log."""
    log_cost, log_bits = np.log(cost_W), np.log(bits_W)
    place = int(np.clip(np.searchsorted(-log_bits, -math.log(value)), 1, len(log_bits) - 1))
    slope = (log_cost[place] - log_cost[place - 1]) / min(log_bits[place] - log_bits[place - 1], -1e-9)  # a ladder that does not fall tells nothing
    return float(np.exp(log_cost[place - 1] + slope * (math.log(value) - log_bits[place - 1])))


def at_cost(cost: float, cost_W: Sequence[float], bits_W: Sequence[float]) -> float:
    """Bits per byte of a dense model of this cost, between those of the ladder."""
    return float(np.exp(np.interp(math.log(cost), np.log(cost_W), np.log(bits_W))))


def claimed(rates: Rates, costs: Mapping[str, Mapping[str, float]], name: str, bytes_per_token: Mapping[str, float], small: Sequence[str]) -> dict[str, float]:
    """Kind of cost -> a dense model as good over the sparse one; language, `rare`, `frequent` -> perplexity of a token over a dense model's of equal FLOPs."""
    dense = [arm for arm in rates if arm not in SPARSE]
    found = {}
    for kind, own in costs.items():
        found[kind] = cost_needed(rates[name][OVERALL], [own[arm] for arm in dense], [rates[arm][OVERALL] for arm in dense]) / own[name]
    logs = {}
    for language, each in bytes_per_token.items():
        beside = at_cost(costs[FLOPS][name], [costs[FLOPS][arm] for arm in dense], [rates[arm][language] for arm in dense])
        logs[language] = (rates[name][language] - beside) * each
    for group, members in (("rare", small), ("frequent", [language for language in logs if language not in small])):
        found[group] = 2 ** float(np.mean([logs[language] for language in members]))
    return found | {"rare over frequent": found["rare"] / found["frequent"]} | {language: 2**value for language, value in logs.items()}


def joules_of(costs: Mapping[str, Mapping[str, float]], machine: Machine) -> dict[str, dict[str, float]]:
    """Joules of a trained and of a generated token by model, from the seconds: at the power that the machine's profile gives."""
    return {kind: {name: machine.power_watts * seconds for name, seconds in costs[kind].items()} for kind in (TRAINED, GENERATED)}


def row(bench: Bench) -> None:
    best = bench.tuned(arms_of(bench), RATES)
    bits = {name: [one["bits"] for one in found] for name, found in bench.results(best).items()}
    configs = {name: bench.arms.config(arm) for name, arm in best.items()}
    costs = {
        FLOPS: {name: flops_per_token(config, config.context) for name, config in configs.items()},
        TRAINED: {name: seconds / bench.arms.phase(best[name]).tokens_per_step for name, seconds in bench.arms.step_seconds(best).items()},
        GENERATED: bench.arms.decode_seconds(best),
    }
    machine = bench.arms.ground.run.machine
    joules = joules_of(costs, machine)
    num_bytes, small = bench.text.test_bytes, rare(bench)
    rates = {name: figures(seeds, num_bytes) for name, seeds in bits.items()}
    tried = ", ".join(f"{rate:g}" for rate in RATES[: bench.sweep])
    print(f"\nbeside dense models: {bench.tokens / 1e6:g}M tokens, {bench.seeds} seeds, learning rates to choose from: {tried} times the plan's")
    print(f"joules: seconds times {machine.power_watts:g} W ({machine.power_source})")
    print(f"{'':<16}{'MFLOPs':>10}{'us trained':>12}{'generated':>12}{'mJ trained':>12}{'generated':>12}{'bits/byte':>12}{'rate x':>8}")
    for name, arm in best.items():
        shown = f"{costs[FLOPS][name] / 1e6:>10.2f}{1e6 * costs[TRAINED][name]:>12.1f}{1e6 * costs[GENERATED][name]:>12.1f}"
        shown += "".join(f"{1e3 * joules[kind][name]:>12.3g}" for kind in (TRAINED, GENERATED))
        print(f"{name:<16}{shown}{rates[name][OVERALL]:>12.4f}{arm.learning_rate:>8g}")
        bench.note(f"{name}, J a trained token", joules[TRAINED][name])
        bench.note(f"{name}, J a generated token", joules[GENERATED][name])
    known = bench.arms.ground.known.bytes_per_token[bench.arms.vocabulary_size]
    each, draws = {language: known[language] for language in num_bytes}, draws_of(bits, num_bytes)
    for name in SPARSE:
        value, drawn = claimed(rates, costs, name, each, small), [claimed(draw, costs, name, each, small) for draw in draws]
        print(f"{name}: a dense model as good over it, and perplexity of a token over a dense model's of equal inference FLOPs")
        for key, one in value.items():
            low, high = np.quantile([draw[key] for draw in drawn], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            print(f"    {key + ' (rare)' * (key in small):<28}{one:>8.3f} ({low:.3f} to {high:.3f})")
            if key not in each:
                goal = "< 1" if key == "rare over frequent" else GOALS.get((name, key))
                bench.note(f"{name}, {key}", one, float(high - low), goal if bench.mode == "full" else None)
