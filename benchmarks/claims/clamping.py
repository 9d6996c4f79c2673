"""NeuroSynth-7's "adaptive entropy clamping": does it keep experts alive, and what does it cost where nothing is wrong?

Arms: nothing, the auxiliary loss, the selection bias, the clamp, and clamp with bias; the z-loss is on in all. Every arm gets the same sweep: as
many coefficients as `--sweep` says, each tried with one seed that is not used again, the best kept (`nothing` has none to try).
Conditions: `natural`; `born` collapsed: all tokens share a direction, which the routers' first top_k experts love; `late`: the same, a third into the training;
`fast`: routers learn at ten times the learning rate of the rest. Judged by bits per byte against the best other arm, by dead experts (less than a twentieth of
the mean load over the last tenth of the steps), and by the cost in a natural run; entropy itself is no judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from claims.bench import TUNING_SEED, Bench, Hook, Outcome, small
from hagane.model.config import EntropyClamp, ExpertsConfig
from hagane.model.decoder import Decoder
from hagane.train.stepper import StepResult

NUM_EXPERTS, TOP_K, RATE = 8, 2, 4e-3
PULL = 3.0  # logits by which the loved experts lead when a model collapses: the others get e^-3 of a share, and no token
FACTORS = (1.0, 0.3, 3.0)  # of the coefficients below, in the order in which they are tried
FAST = 10.0  # routers' learning rate over that of the rest
GOAL_ALIVE = 0.9


@dataclass(frozen=True)
class Arm:
    balance: str = "loss"
    aux: float = 0.0
    bias_rate: float = 0.0
    clamp: float = 0.0  # the multiplier that a clamp starts with; it may become a hundred times as large

    def config(self, factor: float, width: int) -> ExpertsConfig:
        start = self.clamp * factor
        clamp = EntropyClamp(start=start, lowest=start / 10, highest=start * 100) if start else None
        return ExpertsConfig(
            num_experts=NUM_EXPERTS, top_k=TOP_K, hidden=3 * width // 4, balance=self.balance, aux_coefficient=self.aux * factor,
            bias_rate=self.bias_rate * factor, entropy_clamp=clamp,
        )  # fmt: skip


ARMS = {
    "nothing": Arm(), "aux": Arm(aux=1e-2), "bias": Arm("bias", bias_rate=3e-3), "clamp": Arm(clamp=1e-2),
    "clamp+bias": Arm("bias", bias_rate=3e-3, clamp=1e-2),
}  # fmt: skip


def collapse(decoder: Decoder) -> None:
    """Give all embeddings a common direction, and the first top_k experts of every router a liking for it."""
    direction_D = torch.ones(decoder.config.width) / decoder.config.width**0.5
    decoder.embedding.weight += direction_D * decoder.embedding.weight.norm(dim=-1).mean()
    for block in decoder.layers:
        if hasattr(block.ffn, "router"):
            # a normed hidden state of which half the square lies along the direction has this component along it
            reach = (decoder.config.width / 2) ** 0.5
            block.ffn.router.weight[:TOP_K] += PULL / reach * direction_D


def fast_routers(steps: int) -> dict[int, Hook]:
    """Before each step but the first, the last change of every router is applied FAST - 1 times more.

    AdamW's update is its learning rate times what does not depend on it, decay included, so this is a learning rate of FAST times the rest's, but for the very
    last step. A larger gradient would not be: AdamW divides it out again.
    """
    before: list[torch.Tensor] = []

    def hook(decoder: Decoder) -> None:
        weights = [block.ffn.router.weight for block in decoder.layers if hasattr(block.ffn, "router")]
        for weight, old in zip(weights, before):
            weight += (FAST - 1) * (weight - old)
        before[:] = [weight.detach().clone() for weight in weights]

    def first(decoder: Decoder) -> None:
        before.clear()  # the hooks may serve one training after another
        hook(decoder)

    return {step: first if step == 0 else hook for step in range(steps)}


def conditions(bench: Bench) -> dict[str, dict[int, Hook]]:
    every: dict[str, dict[int, Hook]] = {
        "natural": {}, "born": {0: collapse}, "late": {bench.steps // 3: collapse}, "fast": fast_routers(bench.steps)
    }  # fmt: skip
    return every if bench.mode == "full" else {name: own for name, own in every.items() if name != "late"}


def trained(bench: Bench, name: str, factor: float, condition: str, hooks: Mapping[int, Hook], seed: int) -> Outcome:
    loads: list[torch.Tensor] = []

    def watch(step: int, result: StepResult) -> dict[str, float]:
        if step < 0.9 * bench.steps:
            return {}
        loads.append(torch.stack([layer.count_E for layer in result.stats.layers if layer is not None]))
        load_LE = torch.stack(loads).sum(0)
        mean_L1 = load_LE.mean(-1, keepdim=True)
        return {"dead": int((load_LE < mean_L1 / 20).sum()), "violation": float((load_LE / mean_L1).max()) - 1}

    return bench.train(f"clamping {name} {condition}", small(bench.width, ARMS[name].config(factor, bench.width)), seed, RATE, hooks=hooks, watch=watch)


def one(bench: Bench, name: str, factor: float, condition: str, seed: int) -> dict[str, float]:
    """A training in a process of its own; its result is kept."""
    outcome = trained(bench, name, factor, condition, conditions(bench)[condition], seed)
    return {"bits_per_byte": bench.mean([outcome]), "seconds": outcome.seconds}


def at_once(bench: Bench, calls: Sequence[tuple[str, float, str, int]]) -> None:
    """Train all of these (arm, factor, condition, seed), as many at a time as `--jobs` says."""
    bench.at_once(one, [(f"{condition}, {name} x {factor:g}, seed {seed}", (name, factor, condition, seed)) for name, factor, condition, seed in calls])


def factors_of(bench: Bench, name: str) -> tuple[float, ...]:
    return FACTORS[: bench.sweep] if name != "nothing" else FACTORS[:1]


def tuned(bench: Bench, name: str, condition: str, hooks: Mapping[int, Hook]) -> float:
    """The best coefficient of an arm, by the seed that is for that."""
    factors = factors_of(bench, name)
    if len(factors) == 1:
        return factors[0]
    return min(factors, key=lambda factor: bench.mean([trained(bench, name, factor, condition, hooks, TUNING_SEED)]))


def row(bench: Bench) -> None:
    """Train all arms under all conditions; print a table for each, note the figures that the claim is judged by."""
    every = conditions(bench)
    if bench.sweep > 1:
        at_once(
            bench, [(name, factor, condition, TUNING_SEED) for condition in every for name in ARMS if name != "nothing" for factor in factors_of(bench, name)]
        )
    for condition, hooks in every.items():
        factors = {name: tuned(bench, name, condition, hooks) for name in ARMS}
        at_once(bench, [(name, factors[name], condition, seed) for seed in range(bench.seeds) for name in ARMS])
        results = {
            name: [trained(bench, name, factors[name], condition, hooks, seed) for seed in range(bench.seeds)] for name in ARMS
        }  # fmt: skip
        print(f"\nclamping, {condition}: {bench.seeds} seeds of {bench.steps} steps")
        print(f"{'arm':<12}{'factor':>8}{'bits/byte':>11}{'over the best other (95 %)':>40}{'runs without dead':>19}{'violation':>11}{'time':>8}")
        unbalanced = sum(outcome.seconds for outcome in results["nothing"])
        for name, outcomes in results.items():
            ratio = bench.ratio(outcomes, {other: found for other, found in results.items() if other != name})
            alive = sum(outcome.extra["dead"] == 0 for outcome in outcomes) / len(outcomes)
            violation = sum(outcome.extra["violation"] for outcome in outcomes) / len(outcomes)
            seconds = sum(outcome.seconds for outcome in outcomes) / unbalanced
            shown = f"{ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f}), {ratio.best}"
            print(f"{name:<12}{factors[name]:>8g}{bench.mean(outcomes):>11.4f}{shown:>40}{alive:>19.0%}{violation:>11.2f}{seconds:>8.2f}")
            bench.note(f"{condition} {name} bits", ratio.value, ratio.high - ratio.low, "<= 1.005" if name.startswith("clamp") else None)
            bench.note(f"{condition} {name} alive", alive, None, f">= {GOAL_ALIVE}" if name.startswith("clamp") else None)
        for name in ("clamp", "clamp+bias"):
            without = "nothing" if name == "clamp" else "bias"
            cost = bench.ratio(results[name], {without: results[without]})
            print(f"{name} over {without}: {cost.value:.4f} ({cost.low:.4f} to {cost.high:.4f})")
            if condition == "natural":
                bench.note(f"cost of {name}", cost.value, cost.high - cost.low, "<= 1.002")
