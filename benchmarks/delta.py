"""Gated DeltaNet and attention 3:1 against attention in every layer: time and memory of decoding, and time of training the mixers alone.

    python benchmarks/delta.py --quick      # decoding at 2,048 tokens, training at 256, nothing compiled
    python benchmarks/delta.py --full       # decoding at 2,048, 8,192 and 32,768 tokens, training at 256 and 2,048, compiled

Width 256, four layers, models with random weights: speed and bytes, not quality. Both sides have Qwen3-Next's gate on attention's output and turn a quarter of
a head's dimensions, as the two of the row `hybrid` of `mechanisms.py` do (`claims/swap.py`), which measures quality: at width 128 and 256 tokens, or what its
`--context` says. Both sides take turns; figures are hybrid over full attention, medians of the turns. The goal is the claim of NeuroSynth-9: 40 % less time per
token at 8k.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common import finish
from hagane.measure.machine import cores
from hagane.model.cache import Cache
from hagane.model.config import ModelConfig
from hagane.model.decoder import Decoder
from hagane.model.initial import to_working
from hagane.model.mixer import build_mixer
from hagane.model.rope import rotation
from hagane.model.sequence import Sequence, View, first_visible
from hagane.plan.shapes import shape
from hagane.recipe.schema import PatternSettings, SizeSettings

WIDTH, ROWS = 256, 4
FULL, HYBRID = (PatternSettings(deltas=deltas, attention_gate="sigmoid", rotary_share=0.25) for deltas in (0, 3))


def config_of(pattern: PatternSettings, context: int) -> ModelConfig:
    return shape(pattern, SizeSettings(), width=WIDTH, num_layers=4, vocabulary_size=4096, context=context)


def turns(first: Callable[[], object], second: Callable[[], object], count: int) -> list[float]:
    """Time of the first over time of the second, `count` times, after one turn that is not counted."""

    def seconds(function: Callable[[], object]) -> float:
        begun = time.perf_counter()
        function()
        return time.perf_counter() - begun

    return [seconds(first) / seconds(second) for _ in range(count + 1)][1:]


def filled(decoder: Decoder, length: int) -> Cache:
    """A cache that holds `length` tokens a row, of noise: how long reading takes does not depend on what is read."""
    cache = decoder.new_cache(ROWS, length + 64)
    for layer in cache.layers:
        for tensor in layer.tensors():
            tensor.normal_(0.0, 0.1)
    cache.length_B = [length] * ROWS
    return cache


def decoding(pattern: PatternSettings, length: int) -> tuple[Callable[[], object], int]:
    """A function that decodes four tokens of every row, and the bytes of the cache."""
    decoder = Decoder(config_of(pattern, length))
    decoder.init_weights(0)
    decoder.eval().requires_grad_(False)
    decoder.fuse()
    cache = filled(decoder, length)
    token_B1 = torch.zeros(ROWS, 1, dtype=torch.int64)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(4):
                decoder(token_B1, cache.sequence([1] * ROWS), cache)
        cache.length_B = [length] * ROWS

    return run, cache.nbytes


def training(pattern: PatternSettings, context: int, compiled: bool) -> Callable[[], object]:
    """A function that runs the first mixer of the pattern over 4,096 tokens in bfloat16, forward and backward."""
    config = config_of(pattern, context).layers[0].mixer
    mixer = build_mixer(WIDTH, config, 1e-6)
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.02)
    to_working(mixer, torch.bfloat16)
    rows = 4096 // context
    sequence = Sequence.plain(rows, context)
    cosine, sine = rotation(sequence.position_BT, config.rotary_dim, config.rope) if config.rope is not None else (None, None)
    view = View(cosine, sine, torch.ones(rows, context), first_visible(sequence, None), None)
    hidden_BTD = torch.randn(rows, context, WIDTH, dtype=torch.bfloat16, requires_grad=True)
    if compiled:
        mixer.compile(dynamic=False, fullgraph=True)

    def run() -> None:
        mixed: Tensor = mixer(hidden_BTD, view)[0]
        mixed.backward(hidden_BTD.detach())

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(cores())
    figures: dict[str, float] = {}
    spread: dict[str, float] = {}

    def note(name: str, ratios: list[float]) -> None:
        figures[name] = statistics.median(ratios)
        spread[name] = max(ratios) - min(ratios)
        print(f"{name:<28}{figures[name]:>8.2f} ± {spread[name] / 2:.2f}", flush=True)

    print("hybrid over full attention")
    for length in [2048] if options.quick else [2048, 8192, 32768]:
        (hybrid, hybrid_bytes), (full, full_bytes) = decoding(HYBRID, length), decoding(FULL, length)
        note(f"decode {length} time", turns(hybrid, full, 3 if options.quick else 15))
        note(f"decode {length} cache bytes", [hybrid_bytes / full_bytes])
    for context in [256] if options.quick else [256, 2048]:
        hybrid, full = (training(pattern, context, not options.quick) for pattern in (HYBRID, FULL))
        note(f"train {context} mixer time", turns(hybrid, full, 3 if options.quick else 15))
    goals = {} if options.quick else {"decode 8192 time": "<= 0.6"}
    finish("delta", "quick" if options.quick else "full", figures, spread, goals)


if __name__ == "__main__":
    main()
