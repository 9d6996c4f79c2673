"""AmpliMind-XL's sparse attention: latent attention whose indexers choose a tenth of the keys, beside one that reads all, and beside a sliding window.

Four models of one size on as many tokens of long rows, each at the best of the learning rates that all may try: latent attention, dense and sparse (in
the phases that the plan gives it), and grouped-query attention, dense and with a window of as many keys in every layer, as
latent attention has none. Bits per byte of each sparse one are over its own dense one. The share of the keys is what was read in training of what could be
seen. Retrieval is measured in models of its own (`needles.py`): these find no needle, however they attend.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

from claims.bench import Bench
from claims.needles import retrieval
from peers.ratios import CONFIDENCE, OVERALL, compare
from small_models import Arm

WIDTH, LAYERS, CONTEXT = 128, 4, 1024
QUICK_WIDTH, QUICK_CONTEXT = 32, 128
KEYS_SHARE = 0.113  # of what a token sees in the mean: with fewer to see at the beginning of a document, a tenth is read
RATES = (1.0, 1.5, 0.67)  # times the plan's, in the order in which they are tried
LATENT = ("model.pattern.mixer=latent", "model.pattern.query_ratio=0.5")
GOAL = "<= 1.005"


def arms_of(bench: Bench) -> dict[str, Arm]:
    width, context = (WIDTH, CONTEXT) if bench.mode == "full" else (QUICK_WIDTH, QUICK_CONTEXT)
    shared = ("model.pattern.ffn=dense", f"train.context={bench.context or context}")
    plain = Arm("attention", width, LAYERS, bench.tokens, shared)
    keys = round(KEYS_SHARE * bench.arms.mean_seen(plain, None))
    latent = replace(plain, name="latent", sets=(*shared, *LATENT))
    sparse = replace(latent, name="sparse", sets=(*latent.sets, f"model.pattern.index_top_k={keys}"))
    return {arm.name: arm for arm in (latent, sparse, plain, replace(plain, name="window", window=keys))}


def row(bench: Bench) -> None:
    best = bench.tuned(arms_of(bench), RATES)
    results = bench.results(best)
    bits = {name: [one["bits"] for one in found] for name, found in results.items()}
    config = bench.arms.config(best["window"])
    window, seen = config.layers[0].mixer.window, bench.arms.mean_seen(best["window"], None)
    read = {"sparse": statistics.fmean(one["indexer"]["keys_read"] for one in results["sparse"]), "window": bench.arms.mean_seen(best["window"], window)}
    print(f"\nsparse attention: {bench.tokens / 1e6:g}M tokens in rows of {config.context:,}, {bench.seeds} seeds; {seen:.0f} keys a token could see")
    for name, arm in best.items():
        mean = statistics.fmean(one["bits_per_byte"] for one in results[name])
        print(f"{name:<10}rate x {arm.learning_rate:g}, {mean:.4f} bits per byte, {read.get(name, seen) / seen:.1%} of the keys read")
    for name, dense in (("sparse", "latent"), ("window", "attention")):
        ratio = compare(bits[name], {dense: bits[dense]}, bench.text.test_bytes)[OVERALL]
        print(f"{name} over {dense}: bits per byte {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f}, {CONFIDENCE:.0%})")
        bench.note(f"{name} over {dense}", ratio.value, ratio.high - ratio.low, GOAL if bench.mode == "full" and name == "sparse" else None)
        bench.note(f"{name}, share of the keys", read[name] / seen)
    retrieval(bench)
