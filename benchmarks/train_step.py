"""Share of the machine's own bf16 matrix rate that a whole training step reaches (forward, backward, clipping, optimizer).

    python benchmarks/train_step.py --quick      # one small shape
    python benchmarks/train_step.py --account    # where the milliseconds of a step go, in the same shapes
    python benchmarks/train_step.py --full       # on a CPU: widths 192, 256, 512, dense and experts; on a GPU: dense 1B, experts 0.8B of 2.7B and 1B of 4B

The rate is the best `linear` over the stated shapes, measured before and after; FLOPs are the model's (causal attention, no optimizer). The peak of memory is
held against the plan's (`plan.cost.run_memory`); a GPU's must be within 5 % of it, where `torch.cuda.max_memory_allocated` counts what it counts.
"""

from __future__ import annotations

import argparse
import time

import torch

from common import finish
from hagane.measure.machine import CPU_SHAPES, CUDA_SHAPES, cores, matmul_rate, pick_device
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters, num_parameters
from hagane.plan.cost import run_memory, training_flops_per_token
from hagane.plan.shapes import shape
from hagane.recipe.schema import PatternSettings, SizeSettings
from hagane.recipe.types import Phase
from hagane.train.probe import random_step, time_steps
from hagane.train.stepper import Stepper, compiles, torch_set_up

DENSE, EXPERTS = PatternSettings(), PatternSettings(ffn="experts", num_experts=16, top_k=4, expert_ratio=2 / 3)


def small(pattern: PatternSettings, width: int, num_layers: int) -> ModelConfig:
    return shape(pattern, SizeSettings(), width=width, num_layers=num_layers, vocabulary_size=8192, context=256)


def large(pattern: PatternSettings, num_layers: int) -> ModelConfig:
    pattern = pattern.model_copy(update={"head_dim": 128, "heads_per_kv_head": 4, "ffn_ratio": 4.0, "num_experts": 32, "top_k": 8, "expert_ratio": 0.5})
    return shape(pattern, SizeSettings(), width=2048, num_layers=num_layers, vocabulary_size=32768, context=2048)


def cases(device: str, quick: bool) -> dict[str, tuple[ModelConfig, int, int]]:
    """Name -> (model, rows, context)."""
    if quick:
        return {"dense 128": (small(DENSE, 128, 2), 8, 256)}
    if device == "cuda":
        return {
            "dense 1B": (large(DENSE, 16), 8, 2048), "dense width 512": (small(DENSE, 512, 8), 64, 256), "experts 0.8B of 2.7B": (large(EXPERTS, 12), 8, 2048),
            "experts 1B of 4B": (large(EXPERTS, 18), 8, 2048),
        }  # fmt: skip
    return {
        "dense 192": (small(DENSE, 192, 4), 16, 256), "dense 256": (small(DENSE, 256, 6), 16, 256), "dense 512": (small(DENSE, 512, 8), 8, 512),
        "experts 256": (small(EXPERTS, 256, 6), 16, 256),
    }  # fmt: skip


# Which operators belong together, by how their names begin; the first that fits counts. What the profiler says of a function of ours is the time of its kernel.
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_grouped_mm", "mkldnn", "hagane::grouped", "_Grouped"),
    "attention": ("_Attend", "hagane::attend", "aten::_scaled_dot", "aten::_flash", "aten::_efficient"),
    "norms, heads, SwiGLU": ("_Norm", "_Heads", "_SwiGlu"),
    "routing": ("_Route", "_Spread", "_Combine", "aten::sort", "aten::topk", "hagane::arrange"),
    "loss": ("_NllSum",),
    "embedding": ("_LookUp", "aten::embedding", "aten::index_select"),
    "optimizer": ("aten::_fused", "aten::_foreach", "aten::linalg_vector_norm", "Optimizer."),
    "compiled graphs": ("CompiledF", "Torch-Compiled", "## Call", "triton", "cpp_fused"),
    "copies and sums": ("aten::copy_", "aten::add", "aten::fill_", "aten::zero_", "aten::cat", "aten::mul", "aten::index"),
}


def account(config: ModelConfig, rows: int, context: int, optimizer: str, device: str, steps: int = 20) -> dict[str, float]:
    """Milliseconds of a step by part, from torch's profiler over some steps; what no part names is "the rest", Python and the profiler included."""
    from torch.profiler import ProfilerActivity, profile

    phase = Phase(name="account", collection="", context=context, rows=rows, num_steps=steps, mixture={}, learning_rate=1e-4)
    spent = dict.fromkeys(PARTS, 0.0)
    with torch_set_up(threads=cores(), compiled=compiles(config, device=device, dtype="bfloat16"), device=device):
        stepper = Stepper(config, device=device, dtype="bfloat16", compiled=True, seed=0, optimizer=optimizer)
        data = [random_step(config.vocabulary_size, rows, context, seed=seed) for seed in range(8)]

        def run(count: int) -> float:
            begun = time.perf_counter()
            for index in range(count):
                stepper.step(data[index % len(data)], phase, phase.learning_rate).gradient_norm.item()
            return (time.perf_counter() - begun) / count

        run(4)
        plain = run(steps)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
        with profile(activities=activities) as seen:
            profiled = run(steps)
    for event in seen.key_averages():
        part = next((part for part, names in PARTS.items() if event.key.startswith(names)), None)
        if part is not None:
            spent[part] += (event.self_device_time_total if device == "cuda" else event.self_cpu_time_total) / 1e3 / steps
    spent["the rest"] = 1e3 * profiled - sum(spent.values())
    print(f"  a step takes {1e3 * plain:.1f} ms, profiled {1e3 * profiled:.1f}: ", end="")
    print(", ".join(f"{part} {value:.1f}" for part, value in spent.items() if value >= 0.05), flush=True)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--account", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.set_num_threads(cores())
    shapes = CUDA_SHAPES if device == "cuda" else CPU_SHAPES
    rates = [max(matmul_rate(device, *sizes) for sizes in shapes)]
    figures: dict[str, float] = {}
    spread: dict[str, float] = {}
    goals: dict[str, str] = {}
    print(f"{'shape':<22}{'M params':>9}{'active':>8}{'ms':>8}{'tokens/s':>11}{'GFLOP/s':>10}{'share':>7}{'compile s':>10}{'GiB':>6}{'of plan':>9}")
    for name, (config, rows, context) in cases(device, options.quick).items():
        try:
            rate = time_steps(config, rows, context, device=device, threads=cores(), compile=not options.quick, optimizer=options.optimizer)
        except torch.OutOfMemoryError:
            print(f"{name:<22} does not fit into the memory of this device", flush=True)
            torch.cuda.empty_cache()
            continue
        rates.append(max(matmul_rate(device, *sizes) for sizes in shapes))
        flops = rate.tokens_per_second * training_flops_per_token(config, context)
        figures[f"{name} share"] = flops / max(rates)
        # in one process the peak of a CPU is that of all shapes so far
        told = rate.peak_memory_bytes / run_memory(config, rows, context, device)
        figures[f"{name} memory off plan"] = abs(told - 1)
        if device == "cuda" and not options.quick:
            goals[f"{name} memory off plan"] = "<= 0.05"
        print(
            f"{name:<22}{num_parameters(config) / 1e6:>9.1f}{num_active_parameters(config) / 1e6:>8.1f}{rate.step_seconds * 1e3:>8.0f}"
            f"{rate.tokens_per_second:>11,.0f}"
            f"{flops / 1e9:>10,.0f}{flops / max(rates):>7.2f}{rate.compile_seconds:>10.1f}{rate.peak_memory_bytes / 2**30:>6.1f}{told:>9.2f}",
            flush=True,
        )
        if options.account:
            spent = account(config, rows, context, options.optimizer, device)
            figures |= {f"{name} {part}, ms": value for part, value in spent.items()}
    print(f"matrix rate {max(rates) / 1e9:,.0f} GFLOP/s (before and after each shape: {', '.join(f'{rate / 1e9:,.0f}' for rate in rates)})")
    spread["matrix rate"] = (max(rates) - min(rates)) / max(rates)
    finish("train_step", "quick" if options.quick else "full", {**figures, "matrix GFLOP/s": max(rates) / 1e9}, spread, goals)


if __name__ == "__main__":
    main()
