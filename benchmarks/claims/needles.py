"""Needles in real text: does a query find the one key that it needs, when it reads all keys, those an indexer chose, or a window of as many?

A needle is a token of one of 16 classes, put somewhere into a row of text that people wrote. At the end of the row classes are asked for by tokens of their
own, and right is the needle that stood in this row. A model of two layers learns to look that up within minutes, where it does not find a number in a sentence
("Needles of small models" in docs/notebook.md). Latent attention is trained on growing rows, reading all it sees. From there it goes on as it was, or its
indexers are warmed up beside it, as fast as the plan has it, and it goes on with a twentieth of a row's keys, a tenth of what a token of it sees on average.
The window is of grouped-query attention, all the way.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from claims.bench import VOCABULARY, Bench, code
from common import digest_of
from hagane.data.batch import Row, collate
from hagane.data.source import StepData
from hagane.model.config import AttentionConfig, DenseConfig, IndexConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.decoder import Decoder
from hagane.model.indexer import Indexer, Probe
from hagane.model.sequence import Sequence
from hagane.plan.index_phases import index_ratio, warmup_rate
from hagane.recipe.types import IndexMode, Phase
from hagane.train.stepper import Stepper, torch_set_up
from peers.ratios import paired
from small_models import keep

WIDTH, LAYERS, CLASSES, KINDS = 64, 2, 16, 16  # needles of a class
NEEDLES, MOST_QUESTIONS = 8, 64  # of a row; every needle is asked for equally often, at most for an eighth of the row
TEXT_WEIGHT = 0.1  # of the loss of text beside that of an answer
KEYS = 20  # a row has this many times the keys that are read
SHARE = 0.9  # of the indexer's probability, where the number of keys adapts
RATE, LAST_RATE, RAMP = 5e-3, 1e-3, 20
GROWING = {"full": ((128, 16, 400), (512, 4, 150), (1024, 4, 50)), "quick": ((192, 2, 4),)}  # context, rows, steps
LAST = {"full": (1024, 2, 100, 40), "quick": (192, 2, 3, 3)}  # context, rows, steps of warm-up, sparse steps
ASKED = {"full": (1024, 4096), "quick": (192,)}  # contexts in which needles are looked for
TESTED_ROWS = 32
ARMS = ("latent", "sparse", "window")
GOAL = ">= 0.95"

Stage = tuple[IndexMode, int, int, int, float]  # what indexers do, context, rows, steps, learning rate


def config(arm: str, context: int) -> ModelConfig:
    """Two layers of one mixer. Latent vectors are as wide as the model: with half of it nothing is found in as many steps."""
    latent = LatentConfig(num_heads=4, query_rank=WIDTH, kv_rank=WIDTH, nope_dim=32, rope_dim=16, value_dim=16)
    attention = AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=16, qk_norm=True)
    mixer = {
        "latent": latent,
        "sparse": latent.model_copy(update={"index": IndexConfig(num_heads=4, head_dim=32, top_k=context // KEYS)}),
        "attention": attention,
        "window": attention.model_copy(update={"window": context // KEYS}),
    }[arm]  # fmt: skip
    layer = LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=3 * WIDTH))
    vocabulary = VOCABULARY + CLASSES + CLASSES * KINDS
    return ModelConfig(vocabulary_size=vocabulary, width=WIDTH, layers=(layer,) * LAYERS, tied=True, context=context, init_std=0.1)


def row(text: np.ndarray, context: int, random: np.random.Generator, times: int | None = None) -> Row:
    """Real text with needles, then questions and answers, `times` for each needle or as often as there is room. Weight 1 is on the answers alone."""
    times = times or min(MOST_QUESTIONS, context // 16) // NEEDLES
    room = context + 1 - NEEDLES - 2 * times * NEEDLES
    begin = random.integers(0, len(text) - room)
    classes = random.choice(CLASSES, NEEDLES, replace=False)
    needles = VOCABULARY + CLASSES + KINDS * classes + random.integers(0, KINDS, NEEDLES)
    hay = np.insert(text[begin : begin + room], np.sort(random.integers(0, room + 1, NEEDLES)), needles)
    asked = np.concatenate([random.permutation(NEEDLES) for _ in range(times)])
    tokens = np.concatenate([hay, np.stack([VOCABULARY + classes[asked], needles[asked]], 1).reshape(-1)])
    weight = np.where(tokens < VOCABULARY, TEXT_WEIGHT, 0.0)
    weight[len(hay) + 1 :: 2] = 1.0
    return Row(
        tokens_T=tokens[:-1].astype(np.int64), targets_T=tokens[1:].astype(np.int64), weight_T=weight[1:].astype(np.float32),
        position_T=np.arange(context), document_T=np.zeros(context, np.int32), num_tokens=context,
    )  # fmt: skip


def growing(mode: str) -> list[Stage]:
    """Dense, on rows that grow."""
    return [("dense", context, rows, steps, RATE) for context, rows, steps in GROWING[mode]]


def stages(arm: str, mode: str) -> list[Stage]:
    """Of a whole training."""
    context, rows, warmup, sparse = LAST[mode]
    if arm == "sparse":
        return [*growing(mode), ("together", context, rows, warmup, LAST_RATE), ("sparse", context, rows, sparse, LAST_RATE)]
    return [*growing(mode), ("dense", context, rows, warmup + sparse, LAST_RATE)]


def place(bench: Bench, arm: str, seed: int, how: list[Stage]) -> Path:
    """Where the result of an arm is kept."""
    text = {"text": bench.text.digest, "code": [code(), digest_of([Path(__file__)])]}
    return bench.path({"needles": arm, "seed": seed, "stages": list(how), **text})


def fit(stepper: Stepper, text: np.ndarray, how: list[Stage], random: np.random.Generator) -> None:
    """Train on rows with needles; in every stage the learning rate rises, then falls to a tenth."""
    for mode, length, rows, steps, rate in how:
        ratio = index_ratio(warmup_rate(WIDTH, steps), rate) if mode == "together" else 1.0
        phase = Phase(
            name="row", collection="", context=length, rows=rows, num_steps=steps, mixture={}, learning_rate=rate, warmup_steps=RAMP, index=mode,
            optimizer="muon", index_ratio=ratio,
        )  # fmt: skip
        for step in range(steps):
            made = [row(text, length, random) for _ in range(rows)]
            batch = collate(made, sources=[0] * rows, names=("row",), counters=list(range(rows)), numbers=list(range(rows)))
            stepper.step(StepData(step, (batch,), batch.weight_sum, batch.num_tokens), phase, rate * min(1.0, (step + 1) / RAMP, 1.1 - step / steps))


def begun(config: ModelConfig, seed: int) -> Stepper:
    return Stepper(config, device="cpu", dtype="float32", compiled=False, seed=seed, optimizer="muon")


def trained(bench: Bench, arm: str, seed: int) -> dict[str, Any]:
    """Train an arm and look for needles: the share found by context, and with as many keys as needed where keys are chosen."""
    context, start = LAST[bench.mode][0], time.perf_counter()
    how = stages(arm, bench.mode)
    found: dict[str, Any] = {}
    with torch_set_up(threads=bench.threads, compiled=False):
        stepper = begun(config(arm, context), seed)
        fit(stepper, bench.stream, how, np.random.default_rng([seed, 1]))
        for length in ASKED[bench.mode]:
            for name, share in (("", None), (" adaptive", SHARE)) if arm == "sparse" else (("", None),):
                found[f"{length}{name}"] = look(stepper.decoder, bench.stream, length, share)
    return keep(place(bench, arm, seed, how), {"found": found[f"{context}"][0], "seconds": time.perf_counter() - start, "by_context": found})


@torch.no_grad()
def look(decoder: Decoder, text: np.ndarray, length: int, share: float | None) -> tuple[float, float]:
    """Share of the needles found in rows of `length`, and of the keys that were read of those that could be seen."""
    decoder = _as_wide(decoder, length // KEYS)
    decoder.eval()
    random = np.random.default_rng(length)
    read, right = list[float](), list[float]()
    indexers = [module for module in decoder.modules() if isinstance(module, Indexer)]
    for indexer in indexers:
        indexer.config = indexer.config.model_copy(update={"top_k": length // KEYS, "share": share})
    hooks = [indexer.register_forward_hook(lambda indexer, _, probe: read.append(read_share(indexer, probe))) for indexer in indexers]
    for _ in range(TESTED_ROWS):
        one = row(text, length, random, times=1)  # else a later answer is seen beside the first
        sequence = Sequence(torch.from_numpy(one.position_T)[None], torch.from_numpy(one.document_T)[None])
        hidden_BTD = decoder(torch.from_numpy(one.tokens_T)[None], sequence).hidden_BTD
        answers_T = torch.from_numpy(one.weight_T == 1.0)
        said = decoder.head.logits(hidden_BTD[0, answers_T]).argmax(-1)
        right.append((said == torch.from_numpy(one.targets_T)[answers_T]).double().mean().item())
    for hook in hooks:
        hook.remove()
    window = decoder.config.layers[0].mixer.window or length
    seen = sum(min(token + 1, window) for token in range(length)) / (length * (length + 1) / 2)
    return statistics.fmean(right), statistics.fmean(read) if read else seen


def _as_wide(decoder: Decoder, window: int) -> Decoder:
    """The same with another window where it has one: as many keys as an indexer chooses in rows of such a length."""
    if decoder.config.layers[0].mixer.window is None:
        return decoder
    layers = tuple(layer.model_copy(update={"mixer": layer.mixer.model_copy(update={"window": window})}) for layer in decoder.config.layers)
    wide = Decoder(decoder.config.model_copy(update={"layers": layers}))
    wide.load_state_dict(decoder.state_dict())
    return wide


def read_share(indexer: Indexer, probe: Probe) -> float:
    """Of the keys before a query and its own, those that an indexer chooses."""
    length = probe.key_BSH.shape[1]
    seen_1TS = torch.ones(1, length, length, dtype=torch.bool).tril()
    return float(indexer.chosen(probe, seen_1TS).sum() / seen_1TS.sum())


def retrieval(bench: Bench) -> None:
    """Train all arms that are not kept; print what each finds, and note it over what latent attention finds when it reads all it sees, seed by seed."""
    seeds = range(bench.seeds)
    places = {(arm, seed): place(bench, arm, seed, stages(arm, bench.mode)) for seed in seeds for arm in ARMS}
    missing = [key for key, path in places.items() if not path.exists()]
    bench.at_once(trained, [(f"needles, {arm}, seed {seed}", (arm, seed)) for arm, seed in missing], figure="found")
    results = {arm: [json.loads(places[arm, seed].read_text())["by_context"] for seed in seeds] for arm in ARMS}
    for length in ASKED[bench.mode]:
        dense = [one[f"{length}"][0] for one in results["latent"]]
        print(f"needles in rows of {length:,}, {bench.seeds} seeds of {TESTED_ROWS} rows")
        for name, arm, key in (("latent", "latent", ""), ("sparse", "sparse", ""), ("sparse, adaptive", "sparse", " adaptive"), ("window", "window", "")):
            found = [one[f"{length}{key}"] for one in results[arm]]
            right, read = (statistics.fmean(values) for values in zip(*found, strict=True))
            print(f"{name:<18}{right:.1%} found ({', '.join(f'{one:.0%}' for one, _ in found)}), {read:.1%} of the keys read", end="")
            if arm == "latent" or not all(dense):
                print()
            else:
                ratio = paired([one / beside for (one, _), beside in zip(found, dense, strict=True)])
                print(f"; over latent {ratio}")
                goal = GOAL if bench.mode == "full" and name == "sparse" else None
                bench.note(f"needles of {name} over latent at {length}", ratio.value, ratio.high - ratio.low, goal)
                bench.note(f"needles of {name} at {length}, share of the keys", read)
