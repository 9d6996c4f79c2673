"""AmpliMind-XL's "capacity adapted to input complexity": null experts against fixed top-k at equal mean compute.

Fixed: top-2 of 8 experts. Adaptive: top-4 of the same 8 and 8 null ones, held at a mean of 2 by the same bias. A token may use none or four. Both are
given the same learning rates to choose from, with a seed that is not used again. What was really computed per token is reported.
"""

from __future__ import annotations

from collections.abc import Sequence

from claims.bench import TUNING_SEED, Bench, Outcome, small
from hagane.model.config import ExpertsConfig

BUDGET, RATES = 2.0, (4e-3, 2e-3, 8e-3)
ARMS = {"fixed": {"top_k": 2}, "adaptive": {"top_k": 4, "null_experts": 8, "mean_experts": BUDGET}}


def trained(bench: Bench, name: str, rate: float, seed: int) -> Outcome:
    ffn = ExpertsConfig(num_experts=8, hidden=3 * bench.width // 4, balance="bias", bias_rate=3e-3, aux_coefficient=0.0, **ARMS[name])
    return bench.train(f"capacity {name}", small(bench.width, ffn), seed, rate)


def one(bench: Bench, name: str, rate: float, seed: int) -> dict[str, float]:
    """A training in a process of its own; its result is kept."""
    outcome = trained(bench, name, rate, seed)
    return {"bits_per_byte": bench.mean([outcome]), "seconds": outcome.seconds}


def at_once(bench: Bench, calls: Sequence[tuple[str, float, int]]) -> None:
    """Train all of these (arm, rate, seed), as many at a time as `--jobs` says."""
    bench.at_once(one, [(f"capacity, {name} at {rate:g}, seed {seed}", (name, rate, seed)) for name, rate, seed in calls])


def tuned(bench: Bench, name: str) -> float:
    rates = RATES[: bench.sweep]
    return rates[0] if len(rates) == 1 else min(rates, key=lambda rate: bench.mean([trained(bench, name, rate, TUNING_SEED)]))


def row(bench: Bench) -> None:
    if bench.sweep > 1:
        at_once(bench, [(name, rate, TUNING_SEED) for name in ARMS for rate in RATES[: bench.sweep]])
    rates = {name: tuned(bench, name) for name in ARMS}
    at_once(bench, [(name, rates[name], seed) for seed in range(bench.seeds) for name in ARMS])
    results = {name: [trained(bench, name, rates[name], seed) for seed in range(bench.seeds)] for name in ARMS}
    ratio = bench.ratio(results["adaptive"], {"fixed": results["fixed"]})
    health = [outcome.router or {} for outcome in results["adaptive"]]
    used = sum(one["mean_experts"] for one in health) / len(health)
    shares = [sum(values) / len(health) for values in zip(*(one["experts_used"] for one in health), strict=True)]
    correlations = [one["loss_correlation"] for one in health if one["loss_correlation"] is not None]
    seconds = [sum(outcome.seconds for outcome in results[name]) for name in ARMS]
    print(f"\nadaptive capacity: {bench.seeds} seeds of {bench.steps} steps")
    for name, outcomes in results.items():
        print(f"{name:<12}rate {rates[name]:g}, bits per byte {bench.mean(outcomes):.4f}")
    print(f"adaptive over fixed: bits per byte {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f}), training time {seconds[1] / seconds[0]:.2f}")
    print(f"experts used per token: {used:.3f} for a budget of {BUDGET:g}; 0, 1, …: {', '.join(f'{share:.1%}' for share in shares)}")
    if correlations:
        print(f"correlation of a token's loss with the experts it used: {', '.join(f'{value:+.3f}' for value in correlations)}")
        bench.note("capacity correlation with loss", sum(correlations) / len(correlations), max(correlations) - min(correlations))
    bench.note("capacity bits", ratio.value, ratio.high - ratio.low, "<= 1.0")
    bench.note("capacity experts over budget", used / BUDGET)
