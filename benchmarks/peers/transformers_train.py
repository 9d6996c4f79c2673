"""A plain good training script around `LlamaForCausalLM`: what a careful user of `transformers` writes, ended by a deadline.

Packed rows of a token stream, torch.compile of the whole model, bf16 autocast on float32 weights, fused AdamW (0.9, 0.95; weight decay
0.1 on matrices), clipping at 1, warm-up and linear decay to zero over the time there is. Wall-clock drives the schedule, so that the
rate reaches zero on the deadline however fast the machine is.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

SAVING_SECONDS = 0.5  # kept for writing the weights
WARM_UP = 0.03  # of the training time


def build(options: argparse.Namespace) -> LlamaForCausalLM:
    """The usual proportions: heads of 64, SwiGLU of 8/3 of the width rounded up to a multiple of 64, untied embeddings."""
    torch.manual_seed(options.seed)
    config = LlamaConfig(
        vocab_size=options.vocabulary, hidden_size=options.width, num_hidden_layers=options.layers, num_attention_heads=options.width // 64,
        intermediate_size=-(-options.width * 8 // 3 // 64) * 64, max_position_embeddings=options.context, use_cache=False,
        bos_token_id=options.vocabulary - 1, eos_token_id=options.vocabulary - 1, attn_implementation="sdpa",
    )  # fmt: skip
    return LlamaForCausalLM(config).train()


def batches(options: argparse.Namespace) -> Iterator[Tensor]:
    """Rows of `context` tokens of the stream in a random order, again and again."""
    ids = np.load(options.tokens / "ids.npy", mmap_mode="r")
    num_rows = len(ids) // options.context
    generator = np.random.default_rng(options.seed)
    while True:
        order = generator.permutation(num_rows)
        for first in range(0, num_rows - options.rows + 1, options.rows):
            rows = [ids[row * options.context : (row + 1) * options.context] for row in order[first : first + options.rows]]
            yield torch.from_numpy(np.stack(rows).astype(np.int64))


def learning_rate(peak: float, progress: float) -> float:
    """Linear warm-up, then linear to zero."""
    return peak * min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP))


def optimizer_of(model: LlamaForCausalLM) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)


def train(options: argparse.Namespace) -> dict[str, float]:
    """Train until the deadline; facts of the run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build(options).to(device)
    optimizer = optimizer_of(model)
    compiled = torch.compile(model, dynamic=False)
    ends = options.deadline - SAVING_SECONDS

    def step(tokens_BT: Tensor, rate: float) -> float:
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16):
            loss = compiled(input_ids=tokens_BT, labels=tokens_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    data = batches(options)
    step(next(data).to(device), 0.0)  # compiles
    begins = now = time.time()
    steps, duration, said, loss = 0, 0.0, begins, float("nan")
    while now + 0.5 * duration < ends:
        # the rate of the middle of the step
        progress = min((now + 0.5 * duration - begins) / (ends - begins), 1.0)
        loss = step(next(data).to(device), learning_rate(options.learning_rate, progress))
        steps, duration, now = steps + 1, time.time() - now, time.time()
        if now - said > 10:
            said = now
            print(f"{now - begins:.0f} s: step {steps}, loss {loss:.3f}", flush=True)
    model.save_pretrained(options.out)
    facts = {"steps": steps, "tokens": steps * options.rows * options.context, "final_loss": loss, "training_seconds": now - begins}
    return {**facts, "num_parameters": sum(parameter.numel() for parameter in model.parameters())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="folder of `transformers_text.prepare_tokens`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deadline", type=float, required=True, help="when the weights must be written, seconds since the epoch")
    for name in ("vocabulary", "width", "layers", "rows", "context", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    facts = train(options)
    (options.out / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
