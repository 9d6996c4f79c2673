"""One contestant of `train_speed.py`: builds a training step in a process of its own, then runs some of it whenever it is its turn.

In its own process because the threads of two models in one process wait for each other spinning. The job is the first line of
standard input, as JSON; after `{"ready": ...}` each further line `{"steps": N}` is answered by `{"seconds": [...]}`, and between its
turns the process sleeps. The end of the input ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import IO, Any

import torch

from hagane.measure.machine import CPU_SHAPES, CUDA_SHAPES, matmul_rate
from hagane.model.config import ModelConfig
from hagane.recipe.types import Phase
from hagane.train.probe import random_step
from hagane.train.stepper import Stepper, torch_set_up

LEARNING_RATE = 1e-4
WEIGHT_DECAY, BETAS, CLIP = 0.1, (0.9, 0.95), 1.0  # those of hagane's phases, for both


def hagane_step(job: dict[str, Any], config: ModelConfig) -> Callable[[int], None]:
    """The training loop's own step, as `hagane.train.probe.time_steps` runs it."""
    rows, context = job["rows"], job["context"]
    phase = Phase(name="speed", collection="", context=context, rows=rows, num_steps=1, mixture={}, learning_rate=LEARNING_RATE)
    stepper = Stepper(config, device=job["device"], dtype="bfloat16", compiled=True, seed=0, optimizer=job["optimizer"])
    data = [random_step(config.vocabulary_size, rows, context, seed=seed) for seed in range(2)]

    def step(index: int) -> None:
        stepper.step(data[index % 2], phase, LEARNING_RATE).gradient_norm.item()

    return step


def transformers_step(job: dict[str, Any], config: ModelConfig) -> Callable[[int], None]:
    """`transformers`' own class of the same shape: bf16 autocast on float32 weights, the whole model compiled, fused AdamW, clipping.

    Its routed experts train without the balancing loss here, which they would need and which would cost them time.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from hagane.hosts import HOSTS, host_for

    values = HOSTS[host_for(config)].config_to_host(config, {})
    described = AutoConfig.for_model(values.pop("model_type"), **{**values, "use_cache": False})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(described, dtype=torch.float32, **job["variant"]).to(job["device"]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    compiled = torch.compile(model, dynamic=False)
    data = [random_step(config.vocabulary_size, job["rows"], job["context"], seed=seed).batches[0].to(job["device"]).tokens_BT for seed in range(2)]

    def step(index: int) -> None:
        tokens_BT = data[index % 2]
        with torch.autocast(torch.device(job["device"]).type, torch.bfloat16):
            loss = compiled(input_ids=tokens_BT, labels=tokens_BT).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        norm.item()

    return step


def answer(channel: IO[str], values: dict[str, Any]) -> None:
    channel.write(json.dumps(values) + "\n")
    channel.flush()


def serve_matrix(job: dict[str, Any], channel: IO[str]) -> None:
    """The machine's bf16 matrix rate: each turn the best `linear` over the stated shapes, FLOP/s."""
    shapes = CUDA_SHAPES if job["device"].startswith("cuda") else CPU_SHAPES
    answer(channel, {"ready": True})
    for _ in sys.stdin:
        answer(channel, {"rate": max(matmul_rate(job["device"], *sizes) for sizes in shapes)})


def serve_steps(job: dict[str, Any], channel: IO[str]) -> None:
    config = ModelConfig.model_validate(job["config"])
    ours = job["kind"] == "hagane"
    torch.set_num_threads(job["threads"])
    # deterministic kernels and static shapes are hagane's own settings; the other side keeps the library's defaults
    with torch_set_up(threads=job["threads"], compiled=True, device=job["device"]) if ours else nullcontext():
        step = (hagane_step if ours else transformers_step)(job, config)

        def timed(index: int) -> float:
            start = time.perf_counter()
            step(index)
            if job["device"].startswith("cuda"):
                torch.cuda.synchronize()
            return time.perf_counter() - start

        first = timed(0)
        timed(1)
        answer(channel, {"ready": True, "first_seconds": first, "step_seconds": min(timed(index) for index in range(2))})
        for line in sys.stdin:
            answer(channel, {"seconds": [timed(index) for index in range(json.loads(line)["steps"])]})


def main() -> None:
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not get between the answers
    job = json.loads(sys.stdin.readline())
    (serve_matrix if job["kind"] == "matrix" else serve_steps)(job, channel)


if __name__ == "__main__":
    main()
