"""Initial weights, and which of them compute in which precision.

Every matrix, the router's included, is normal(0, init_std), the embedding table so that its rows enter the first layer with `embedding_std` where that is
given (docs/notebook.md, "Settings of small models"); the projections that write to the residual stream
(`mixer.output`, `ffn.down`, `ffn.shared.down`) are scaled by 1/sqrt(2 · layers) as in GPT-2, so that its variance does not grow with depth; norms
are one, their biases zero. The decay of Gated DeltaNet begins as in Qwen3-Next: `A_log` is the log of uniform(0.01, 16), `dt_bias` one.
Each parameter has a generator of its own, seeded by its name: neither device, order nor sharding changes a draw.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor, nn

from hagane.model.config import ModelConfig

DECAY_RATES = (0.01, 16.0)  # transformers' Qwen3-Next; the lower bound keeps the log finite


def _is_norm(name: str) -> bool:
    return name.removesuffix(".weight").removesuffix(".bias").endswith("norm")


def initial_std(name: str, config: ModelConfig) -> float:
    """Standard deviation of the parameter of this canonical name; 0 for those that are not normal: norms and the decay's rates."""
    if _is_norm(name) or name.endswith(("A_log", "dt_bias")):
        return 0.0
    if name.startswith("embedding.") and config.embedding_std is not None and not config.tied:
        return config.embedding_std / config.embedding_scale
    writes_residual = name.endswith(("mixer.output.weight", "ffn.down.weight", "ffn.down", "ffn.shared.down.weight"))
    return config.init_std / (2 * config.num_layers) ** 0.5 if writes_residual else config.init_std


@torch.no_grad()
def draw(name: str, parameter: Tensor, config: ModelConfig, seed: int) -> None:
    """Fill one parameter, in place."""
    std = initial_std(name, config)
    drawn = torch.full(parameter.shape, 0.0 if name.endswith(".bias") else 1.0, dtype=torch.float32)
    digest = blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    if name.endswith("A_log"):
        drawn.uniform_(*DECAY_RATES, generator=generator).log_()
    elif std > 0:
        drawn.normal_(0.0, std, generator=generator)
    parameter.copy_(drawn)


def working_dtype(name: str, parameter: Tensor, dtype: torch.dtype) -> torch.dtype:
    """What a parameter is kept in while computing in `dtype`: matrices in it, norms, routers, convolutions, rates and the weights of
    an indexer's heads in float32.

    All of the latter are small and used in float32: rounded, a vector would ignore small updates, a router ties.
    """
    return torch.float32 if _is_norm(name) or name.endswith(("router.weight", "indexer.weigh.weight", "mixer.conv", "A_log", "dt_bias")) else dtype


def to_working(model: nn.Module, dtype: torch.dtype) -> None:
    """Turn a model's own parameters into the working copy, in place."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(working_dtype(name, parameter, dtype))
