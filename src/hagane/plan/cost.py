"""What a shape costs on a machine: seconds, bytes and joules of training it. Arithmetic only; rates come from the profile."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from statistics import median
from typing import NamedTuple

from hagane.model.config import ExpertsConfig, ModelConfig
from hagane.model.count import mean_seen, num_trained_parameters, table_parameters, trained_kinds, training_flops
from hagane.recipe.types import IndexMode, Machine, Phase, StepRate

# Where a training step goes on a CPU (two cores with AVX512-bf16 and AMX, 430 GFLOP/s; docs/notebook.md, "The batch at equal time"): a token takes
# its FLOPs at the matrix rate, 5 % more, and passes over memory between the products that count for less the wider they are,
_MATRIX_SECONDS, _PASSES_WIDTH = 1.05, 85.0
# and a step, whatever it reads, Muon's iterations in FLOPs per parameter of the layers and unit of width (three of 5, at 3/4 of the rate), a pass over
# all parameters, and the calls of every layer.
_MUON_FLOPS, _PARAMETER_SECONDS, _LAYER_SECONDS = 20.0, 1.5e-9, 2.8e-3
# Seconds that each routed expert adds to a micro-step on a CPU, forward and backward, whatever it computes. The least of five steps with 128 and 512
# experts; 0.25 to 0.73 ms were measured (docs/notebook.md, "Budgets too small for a pattern").
_EXPERT_SECONDS = 2.5e-4
MOST_OVERHEAD = 16.0  # of a machine, over that of the constants' or under it: beyond this a timing was disturbed
MEMORY_SHARE = 0.9  # of the machine's, that a training may take
# What a run on a CPU holds beside its model (docs/notebook.md, "Memory of small runs"): interpreter, libraries, compiled kernels and text; what products of
# ever other shapes leave behind, for every token of a step and expert chosen; a copy of masters and moments while a checkpoint is written.
_RUN_BYTES, _ROUTED_BYTES, COPY_BYTES = 650e6, 8000.0, 12
USUAL_BATCH = {"cpu": 4096, "cuda": 65_536}  # tokens of a step, where none was chosen yet
# Share of the matrix rate of a whole step on a GPU: dense, and of layers with routed experts (docs/notebook.md, "Speed of a step").
_GPU_SHARE, _GPU_EXPERTS_SHARE = 0.58, 0.35
# A run times its own steps before it freezes a plan: these constants only rank shapes and size samples, and steps timed here correct them (`overhead_of`).


def training_flops_per_token(config: ModelConfig, context: int, index: IndexMode = "sparse") -> float:
    """Forward and backward FLOPs of one token in a document of `context` tokens; `index` is what indexers do. See `count.training_flops`."""
    return training_flops(config, 1, 1, partial(mean_seen, context), index)


def phases_flops(config: ModelConfig, phases: Iterable[Phase], tokens: float | None = None) -> float:
    """Forward and backward FLOPs of a run's phases, each at its own context and with what its indexers do there: how FLOPs are planned and reported.

    With `tokens`, of so many instead of those of all steps, in the same parts: a steered run trains on more or fewer.
    """
    told = [(phase.num_steps * phase.tokens_per_step, training_flops_per_token(config, phase.context, phase.index)) for phase in phases]
    planned = sum(count for count, _ in told)
    whole = sum(count * each for count, each in told)
    return whole if tokens is None or not planned else whole * tokens / planned


def tokens_per_second(config: ModelConfig, context: int, machine: Machine, batch: int | None = None) -> float:
    """Expected training speed in steps of `batch` tokens, or of USUAL_BATCH, from the matrix rate alone, before any step was measured."""
    return usual_speed(step_work(config, context), machine, batch)


class StepWork(NamedTuple):
    """What the seconds of a step follow from, whatever the machine: FLOPs of training a token, parameters with and without embedding and head, routed experts
    of all layers together and the share of layers that have some."""

    flops: float
    parameters: int
    body: int
    width: int
    num_layers: int
    experts: int
    routed_share: float


def step_work(config: ModelConfig, context: int) -> StepWork:
    """Of a shape trained on rows of `context` tokens."""
    parameters, routed = num_trained_parameters(config), [layer.ffn.num_experts for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)]
    body = parameters - table_parameters(config)
    flops = training_flops_per_token(config, context)
    return StepWork(flops, parameters, body, config.width, config.num_layers, sum(routed), len(routed) / config.num_layers)


def expected_step(work: StepWork, tokens: float, machine: Machine) -> tuple[float, float]:
    """Seconds of a step of one micro-step of `tokens`: of its matrix products at the machine's rate, and of all else, as these constants have it: what every
    token takes, and what a step takes however few there are."""
    each, muon = work.flops / machine.matmul_flops, _MUON_FLOPS * work.width * work.body / machine.matmul_flops
    if machine.device != "cpu":  # Muon's products as fast as a dense step: not measured on a GPU, and far from nothing with a hundred experts
        whole = tokens * each * ((1 - work.routed_share) / _GPU_SHARE + work.routed_share / _GPU_EXPERTS_SHARE) + muon / _GPU_SHARE
        return tokens * each, whole - tokens * each
    products = tokens * each * _MATRIX_SECONDS
    fixed = muon + _PARAMETER_SECONDS * work.parameters + _LAYER_SECONDS * work.num_layers
    return products, tokens * each * _PASSES_WIDTH / work.width + fixed + _EXPERT_SECONDS * work.experts


def step_seconds(work: StepWork, tokens: float, machine: Machine) -> float:
    """Seconds that a step of one micro-step of `tokens` takes, with what steps timed on the machine say of its overhead."""
    products, others = expected_step(work, tokens, machine)
    return products + machine.overhead * others


def overhead_of(steps: Iterable[StepRate]) -> float:
    """A machine's overhead by the steps timed on it: the median; 1 where none was.

    Of ten dense and routed shapes, 64 to 768 wide, on a machine that took 1.8 to 3.6 times the seconds of these constants it is 3.0 to 4.1 in seven
    (docs/notebook.md, "Overhead of a step").
    """
    found = [rate.overhead for rate in steps if rate.overhead is not None]
    return min(max(median(found), 1 / MOST_OVERHEAD), MOST_OVERHEAD) if found else 1.0


def usual_speed(work: StepWork, machine: Machine, batch: int | None = None) -> float:
    """`tokens_per_second` of a shape whose work is counted already."""
    tokens = batch or USUAL_BATCH[machine.device]
    return tokens / step_seconds(work, tokens, machine)


def least_step_seconds(config: ModelConfig, tokens: float, context: int, machine: Machine) -> float:
    """`step_seconds` of a shape, with no more overhead than on the machine of these constants."""
    return step_seconds(step_work(config, context), tokens, machine.model_copy(update={"overhead": min(1.0, machine.overhead)}))


def training_memory(config: ModelConfig, rows: int, context: int, *, compute_bytes: int = 2) -> int:
    """Peak bytes of training on one device: weights, gradients, masters, moments, and activations of one micro-step.

    Working copy and gradient in the compute precision, float32 gradient buffer, master and two AdamW moments: 4 x 4 bytes.
    Activations per layer and token: about 10 hidden vectors and the feed-forward's, two vectors more for every expert chosen, and what a recurrent
    mixer holds beside them, kept for the backward pass; the head keeps one chunk of logits. No attention here keeps its scores.
    """
    parameters = num_trained_parameters(config)
    tokens = rows * context
    activations = 0.0
    for layer, mixer, count in trained_kinds(config):
        routed = layer.ffn.top_k if isinstance(layer.ffn, ExpertsConfig) else 0
        hidden = layer.ffn.top_k * layer.ffn.hidden + layer.ffn.shared_hidden if isinstance(layer.ffn, ExpertsConfig) else layer.ffn.hidden
        activations += count * tokens * (compute_bytes * ((10 + 2 * routed) * config.width + 4 * hidden) + 2 * mixer.kept)
    logits = min(tokens, 1024) * config.vocabulary_size * (4 + compute_bytes)
    return round(parameters * (16 + 2 * compute_bytes) + activations + logits)


def run_memory(config: ModelConfig, rows: int, context: int, device: str) -> int:
    """Peak bytes of the process that trains, on a CPU; of the device on a GPU. An estimate: a run measures a step of its own."""
    training = training_memory(config, rows, context)
    if device != "cpu":
        return training
    choices = rows * context * sum(layer.ffn.top_k for layer in config.layers if isinstance(layer.ffn, ExpertsConfig))
    return round(training + _RUN_BYTES + _ROUTED_BYTES * choices + COPY_BYTES * num_trained_parameters(config))


def joules(seconds: float, machine: Machine) -> float:
    """Energy by the machine's stated power; `machine.power_source` says where that figure comes from."""
    return seconds * machine.power_watts
