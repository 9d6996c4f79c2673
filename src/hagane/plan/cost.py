"""What a shape costs on a machine: seconds, bytes and joules of training it. Arithmetic only; rates come from the profile."""

from __future__ import annotations

from hagane.model.config import ExpertsConfig, ModelConfig
from hagane.model.count import flops_per_token, mixer_counts, num_trained_parameters
from hagane.recipe.types import Machine

# Share of the matrix rate that a compiled training step of a dense model reaches on a CPU: 0.44 at width 256 and 0.63 at 512
# (two cores, AVX512-bf16; docs/notebook.md "speed of a step"), fitted as a * w / (w + w0).
_UTILISATION_LIMIT, _HALF_WIDTH, _UTILISATION_CAP = 1.11, 389.0, 0.8
# Layers with routed experts against dense ones of the same active size, forward and backward. The head stays as fast as it is: at width 192 with eight experts
# a vocabulary of 2,048, 4,096 and 8,192 takes 58, 64 and 82 microseconds a token (docs/notebook.md, "Settings of small models").
_EXPERTS_FACTOR = 0.54
# Seconds that each routed expert adds to a micro-step on a CPU, forward and backward, whatever it computes: its products are of shapes met for the first
# time. The least of five steps with 128 and 512 experts; 0.25 to 0.73 ms were measured (docs/notebook.md, "Budgets too small for a pattern").
_EXPERT_SECONDS = 2.5e-4
# A run measures its own step before it freezes a plan, so these constants only rank shapes and size samples.


def training_flops_per_token(config: ModelConfig, context: int) -> float:
    """Forward and backward FLOPs of one token: the backward pass does twice the work of the forward pass."""
    return 3 * flops_per_token(config, context, mtp=True)


def tokens_per_second(config: ModelConfig, context: int, machine: Machine) -> float:
    """Expected training speed from the matrix rate alone, before any step was measured."""
    share = min(_UTILISATION_CAP, _UTILISATION_LIMIT * config.width / (config.width + _HALF_WIDTH))
    head = 6 * config.vocabulary_size * config.width * (1 + len(config.mtp_layers))
    layers = training_flops_per_token(config, context) - head
    routed = sum(isinstance(layer.ffn, ExpertsConfig) for layer in config.layers) / config.num_layers
    return machine.matmul_flops * share / (head + layers / (1 - routed * (1 - _EXPERTS_FACTOR)))


def least_step_seconds(config: ModelConfig, tokens: float, context: int, machine: Machine) -> float:
    """Seconds that a micro-step of `tokens` takes at least: by the matrix rate, and on a CPU by the number of routed experts, however few rows each gets."""
    experts = sum(layer.ffn.num_experts for layer in config.layers if isinstance(layer.ffn, ExpertsConfig))
    return tokens / tokens_per_second(config, context, machine) + (_EXPERT_SECONDS * experts if machine.device == "cpu" else 0.0)


def training_memory(config: ModelConfig, rows: int, context: int, *, compute_bytes: int = 2) -> int:
    """Peak bytes of training on one device: weights, gradients, masters, moments, and activations of one micro-step.

    Working copy and gradient in the compute precision, float32 gradient buffer, master and two AdamW moments: 4 x 4 bytes.
    Activations per layer and token: about 10 hidden vectors, the feed-forward's, and a row of attention scores per head,
    and what a recurrent mixer holds beside them, kept for the backward pass; the head keeps one chunk of logits.
    """
    parameters = num_trained_parameters(config)
    tokens = rows * context
    activations = 0.0
    for layer in (*config.layers, *config.mtp_layers):
        hidden = layer.ffn.top_k * layer.ffn.hidden + layer.ffn.shared_hidden if isinstance(layer.ffn, ExpertsConfig) else layer.ffn.hidden
        mixer = mixer_counts(config.width, layer.mixer)
        scores = mixer.num_heads * context if mixer.pair_flops else 0
        activations += tokens * (compute_bytes * (10 * config.width + 4 * hidden + 2 * scores) + 2 * mixer.kept)
    logits = min(tokens, 1024) * config.vocabulary_size * (4 + compute_bytes)
    return round(parameters * (16 + 2 * compute_bytes) + activations + logits)


def joules(seconds: float, machine: Machine) -> float:
    """Energy by the machine's stated power; `machine.power_source` says where that figure comes from."""
    return seconds * machine.power_watts
