"""Muon: momentum whose singular values are all set to one, for the matrices inside the layers.

Jordan et al. 2024 (the quintic Newton–Schulz iteration and its constants); Liu et al. 2025, "Muon is scalable for LLM training"
(arXiv 2502.16982), eq. 4: an update scaled by 0.2 sqrt(max(m, n)) has the root mean square of an AdamW update, so learning
rate and weight decay mean the same for both. Matrices of equal shape, the experts of a layer included, are iterated as one batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MOMENTUM = 0.95
STEPS = 4
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def takes(name: str, parameter: Tensor) -> bool:
    """Whether Muon updates this parameter: matrices of mixers and feed-forwards (stacked experts too), not routers, embedding or head.

    A convolution is a few numbers per channel: a stack of vectors, not a map from one space to another.
    """
    return name.startswith(("layers.", "mtp.")) and parameter.ndim >= 2 and ".router." not in name and not name.endswith(".conv")


def orthogonalise(matrix_BMN: Tensor, steps: int = STEPS) -> Tensor:
    """Singular values moved near one (0.7 to 1.2), singular vectors kept: a batch of matrices, computed in bfloat16.

    Four iterations from the tighter norm do what Jordan's five do from the Frobenius norm.
    """
    a, b, c = COEFFICIENTS
    x = matrix_BMN.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = x @ x.mT
    # The root of the Gram matrix's norm bounds the largest singular value as well, and up to 3.7 times tighter for 192 rows:
    # as good as one more iteration (docs/notebook.md, "Muon's iterations").
    tighter = gram.norm(dim=(-2, -1), keepdim=True, dtype=torch.float32).clamp(min=1e-7).rsqrt()
    x, gram = x * tighter.bfloat16(), gram * (tighter * tighter).bfloat16()
    for index in range(steps):
        if index:
            gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon:
    """The update of the matrices it takes. Gradients are read from the masters' `grad`, momentum lives in tensors the caller keeps."""

    def __init__(self, masters: Mapping[str, Tensor], momentum: Mapping[str, Tensor]) -> None:
        self._masters, self._momentum = masters, momentum
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, master in masters.items():
            shapes.setdefault(tuple(master.shape[-2:]), []).append(name)
        self._groups: Sequence[list[str]] = list(shapes.values())

    @torch.no_grad()
    def step(self, learning_rate: float, weight_decay: float) -> None:
        """One update of all its masters that have a gradient; gradients are overwritten."""
        for group in self._groups:
            names = [name for name in group if self._masters[name].grad is not None]
            if not names:
                continue
            masters = [self._masters[name] for name in names]
            momentum = [self._momentum[name] for name in names]
            gradients = [master.grad for master in masters if master.grad is not None]
            torch._foreach_lerp_(momentum, gradients, 1 - MOMENTUM)
            torch._foreach_lerp_(gradients, momentum, MOMENTUM)  # Nesterov: a look ahead
            rows, columns = masters[0].shape[-2:]
            flat = torch.cat([gradient.reshape(-1, rows, columns) for gradient in gradients])
            update = orthogonalise(flat).float()
            torch._foreach_mul_(masters, 1 - learning_rate * weight_decay)
            parts = torch.split(update, [math.prod(master.shape[:-2]) for master in masters])
            scale = learning_rate * 0.2 * math.sqrt(max(rows, columns))
            torch._foreach_add_(masters, [part.reshape(master.shape) for part, master in zip(parts, masters, strict=True)], alpha=-scale)
