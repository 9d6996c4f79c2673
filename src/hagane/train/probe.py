"""How long a real training step takes: the loop's own step code on random tokens, timed after warming up.

The tokens follow Zipf's law as those of text do: equal ones choose the same experts, so that what a step of routed experts computes, and
the memory that its changing shapes leave in pieces, is what training will see.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from hagane.data.batch import Row, collate
from hagane.data.source import StepData
from hagane.model.config import ModelConfig
from hagane.recipe.types import OptimizerKind, Phase, StepRate
from hagane.train.meter import peak_memory_bytes
from hagane.train.stepper import Stepper, compiles, torch_set_up

NUM_STEPS_OF_DATA = 16  # different ones: with two, routed experts see two sets of shapes, and 25 % less memory was taken than in training


def random_step(vocabulary_size: int, rows: int, context: int, accumulation: int = 1, seed: int = 0) -> StepData:
    """A step's batches of random tokens, the share of token r ~ 1 / (r + 1), two documents to a row: running text has fewer, conversations have more."""
    generator = np.random.default_rng(seed)
    share_V = np.cumsum(1.0 / np.arange(1, vocabulary_size + 1))
    half = max(1, (context + 1) // 2)
    batches = []
    for micro in range(accumulation):
        made = []
        for _ in range(rows):
            tokens_T = np.searchsorted(share_V, generator.random(context + 1) * share_V[-1])
            made.append(
                Row(
                    tokens_T=tokens_T[:-1],
                    targets_T=tokens_T[1:],
                    weight_T=np.ones(context, np.float32),
                    position_T=np.arange(context) % half,
                    document_T=(np.arange(context) // half).astype(np.int32),
                    num_tokens=context,
                )
            )
        counters = list(range(micro * rows, (micro + 1) * rows))
        batches.append(collate(made, sources=[0] * rows, names=("random",), counters=counters, numbers=counters))
    return StepData(0, tuple(batches), float(accumulation * rows * context), accumulation * rows * context)


def time_steps(
    config: ModelConfig,
    rows: int,
    context: int,
    *,
    accumulation: int = 1,
    steps: int = 8,
    seconds: float = 6.0,
    device: str = "cpu",
    threads: int = 0,
    compile: bool = True,
    dtype: str = "bfloat16",
    optimizer: OptimizerKind = "adamw",
    seed: int = 0,
) -> StepRate:
    """Time whole optimizer steps of a shape: the median of up to `steps` of them in up to `seconds`, at least three.

    The first step (compilation) and the second (caches) are warm-up. Data is made beforehand: reading it takes well under a
    percent of a step and happens beside it.
    """
    phase = Phase(name="probe", collection="", context=context, rows=rows, accumulation=accumulation, num_steps=steps, mixture={}, learning_rate=1e-4)
    with torch_set_up(threads=threads, compiled=compile and compiles(config, device=device, dtype=dtype), device=device):
        stepper = Stepper(config, device=device, dtype=dtype, compiled=compile, seed=seed, optimizer=optimizer)
        data = [random_step(config.vocabulary_size, rows, context, accumulation, seed + index) for index in range(NUM_STEPS_OF_DATA)]

        def one(index: int) -> float:
            begun = time.perf_counter()
            result = stepper.step(data[index % len(data)], phase, phase.learning_rate)
            result.gradient_norm.item()  # waits for the device
            if stepper.device.type == "cuda":
                torch.cuda.synchronize(stepper.device)
            return time.perf_counter() - begun

        first = one(0)
        one(1)
        times: list[float] = []
        while len(times) < steps and (len(times) < 3 or sum(times) < seconds):
            times.append(one(len(times)))
        median = statistics.median(times)
        return StepRate(
            tokens_per_second=phase.tokens_per_step / median,
            step_seconds=median,
            compile_seconds=max(first - median, 0.0),
            peak_memory_bytes=peak_memory_bytes(stepper.device),
        )
