"""One mechanism beside what it replaces, both trained by the plan's rules on as many tokens: bits per byte, the time to the same loss, loss spikes.

Both try the same learning rates, with a seed that is not used again. What a difference of loss is worth in tokens is read from the arm without the mechanism
at half its tokens: between the two its loss falls as a straight line over the logarithm of tokens. Steps of both are timed in turns, which needs a quiet
machine; the time to the same loss is tokens times that. A spike is a step whose loss is above the mean of the twenty before it by more than five times their
standard deviation. NeuroSynth-9's hybrid is timed in decoding by `delta.py` (width 256, up to 32,768 tokens, the same gate and rotary share in both arms),
several predicted tokens in decoding by `multi_token.py`. Rows are of 256 tokens, those of the curriculum of 512: little for what a recurrent state holds.
`--context` trains and scores both arms at another length.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from claims.bench import Bench
from peers.ratios import CONFIDENCE, OVERALL, compare
from small_models import Arm

WIDTH, LAYERS, QUICK_WIDTH = 128, 4, 32
RATES = (1.0, 2.0, 0.5)  # times the plan's, in the order in which they are tried
BEFORE, FAR = 20, 5.0  # steps that a spike is held against, and standard deviations


@dataclass(frozen=True)
class Swap:
    """Settings of the recipe with the mechanism and without it; what both have; the goal for bits per byte at equal tokens, if there is one."""

    name: str
    claim: str
    changed: tuple[str, ...]
    shared: tuple[str, ...] = ()
    goal: str | None = None


DENSE = ("model.pattern.ffn=dense",)
SWAPS = (
    Swap("extra-norm", "A.X K1: a norm after the experts", ("model.pattern.post_experts_norm=true",)),
    Swap("gated-norm", "A.X K2: norms before mixer and experts through a gate", ("model.pattern.gated_norm_rank=16",)),
    Swap("attention-gate", "NeuroSynth-9: attention's output through a gate", ("model.pattern.attention_gate=sigmoid",), DENSE),
    Swap(
        "hybrid", "NeuroSynth-9: Gated DeltaNet and attention 3:1",
        ("model.pattern.deltas=3",), (*DENSE, "model.pattern.attention_gate=sigmoid", "model.pattern.rotary_share=0.25"), "<= 1.005",
    ),
    Swap("further-tokens", "A.X K1: the token after next is predicted as well", ("model.pattern.mtp_layers=1",), DENSE),
    Swap(
        "length-curriculum", "NeuroSynth-7: short rows first",
        ('train.curriculum=[{context=64,share=0.3},{context=128,share=0.3}]',), (*DENSE, "train.context=512"),
    ),
)  # fmt: skip


def spikes(losses: Sequence[float]) -> int:
    """Steps whose loss stands out of those before it."""
    count = 0
    for index in range(BEFORE, len(losses)):
        before = losses[index - BEFORE : index]
        count += losses[index] > statistics.fmean(before) + FAR * statistics.stdev(before)
    return count


def arms_of(swap: Swap, width: int, tokens: float, context: int | None) -> dict[str, Arm]:
    """Without the mechanism and with it, at a context that is not the row's own where one is given."""
    shared = (*swap.shared, *(() if context is None else (f"train.context={context}",)))
    plain = Arm(f"{swap.name} without", width, LAYERS, tokens, shared)
    return {"without": plain, "with": replace(plain, name=f"{swap.name} with", sets=(*shared, *swap.changed))}


def row(bench: Bench, swap: Swap) -> None:
    width = WIDTH if bench.mode == "full" else QUICK_WIDTH
    arms = arms_of(swap, width, bench.tokens, bench.context)
    context = bench.arms.config(arms["with"]).context
    best = bench.tuned(arms, RATES)
    best["half"] = replace(best["without"], name=f"{swap.name} without, half the tokens", tokens=bench.tokens / 2)
    results = bench.results(best)
    mean = {name: statistics.fmean(one["bits_per_byte"] for one in found) for name, found in results.items()}
    ratio = compare([one["bits"] for one in results["with"]], {"without": [one["bits"] for one in results["without"]]}, bench.text.test_bytes)[OVERALL]
    seconds = bench.arms.step_seconds({name: best[name] for name in ("without", "with")})
    step = seconds["with"] / seconds["without"]
    fall = max(mean["half"] - mean["without"], 1e-9)
    tokens = {bound: 2 ** ((value - 1) * mean["without"] / fall) for bound, value in (("value", ratio.value), ("low", ratio.low), ("high", ratio.high))}
    print(f"\n{swap.name} ({swap.claim}): width {width}, {LAYERS} layers, {bench.tokens / 1e6:g}M tokens in rows of {context:,}, {bench.seeds} seeds")
    for name, arm in best.items():
        standing = ", ".join(str(spikes(one["losses"])) for one in results[name])
        print(f"{name:<10}rate x {arm.learning_rate:g}, {mean[name]:.4f} bits per byte, loss spikes {standing}")
    print(f"with over without: bits per byte {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f}, {CONFIDENCE:.0%}), a step's time {step:.3f}")
    print(f"time to the same loss {tokens['value'] * step:.3f} ({tokens['low'] * step:.3f} to {tokens['high'] * step:.3f})")
    bench.note(f"{swap.name} bits", ratio.value, ratio.high - ratio.low, swap.goal if bench.mode == "full" else None)
    bench.note(f"{swap.name} step time", step)
    bench.note(f"{swap.name} time to the same loss", tokens["value"] * step, (tokens["high"] - tokens["low"]) * step)
