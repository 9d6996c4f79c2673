"""Muon: momentum whose singular values are all set to one, for the matrices inside the layers.

Jordan et al. 2024 (momentum and the quintic Newton–Schulz iteration); Amsel et al. 2025, "The Polar Express" (arXiv 2505.16932: for every iteration the
quintic that brings the interval of the one before closest to one); Liu et al. 2025, "Muon is scalable for LLM training"
(arXiv 2502.16982), eq. 4: an update scaled by 0.2 sqrt(max(m, n)) has the root mean square of an AdamW update, so learning
rate and weight decay mean the same for both. Matrices of equal shape, the experts of a layer included, are iterated as one batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hagane.kernels import updates

MOMENTUM = 0.95
# Of x, x^3 and x^5, for each iteration: singular values from 0.01 to 1 end between 0.73 and 1.27. Beyond 1 the iteration diverges: CUSHION is for rounding.
COEFFICIENTS = ((8.09337, -23.62043, 17.44615), (3.63659, -2.72193, 0.53655), (2.66130, -1.97715, 0.45262))
CUSHION = 0.98


def takes(name: str, parameter: Tensor) -> bool:
    """Whether Muon updates this parameter: matrices of mixers and feed-forwards (stacked experts too), not routers, embedding or head.

    A convolution is a few numbers per channel: a stack of vectors, not a map from one space to another.
    """
    return name.startswith(("layers.", "mtp.")) and parameter.ndim >= 2 and ".router." not in name and not name.endswith(".conv")


def orthogonalise(matrix_BMN: Tensor, coefficients: Sequence[tuple[float, float, float]] = COEFFICIENTS) -> Tensor:
    """Singular values moved near one (0.7 to 1.3), singular vectors kept: a batch of matrices, computed in bfloat16.

    Three iterations of these do what four of Jordan's constants do from the same norm, five from the Frobenius norm (docs/notebook.md, "Muon's iterations").
    """
    x = matrix_BMN.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = x @ x.mT
    # The root of the Gram matrix's norm bounds the largest singular value as well as the Frobenius norm, and up to 3.7 times tighter for 192 rows.
    tighter = CUSHION * gram.norm(dim=(-2, -1), keepdim=True, dtype=torch.float32).clamp(min=1e-7).rsqrt()
    x, gram = x * tighter.bfloat16(), gram * (tighter * tighter).bfloat16()
    for index, (a, b, c) in enumerate(coefficients):
        if index:
            gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon:
    """The update of the matrices it takes. Momentum lives in tensors the caller keeps."""

    def __init__(self, masters: Mapping[str, Tensor], momentum: Mapping[str, Tensor], working: Mapping[str, Tensor | None] | None = None) -> None:
        """`working`: bfloat16 copies (None: a master that computes itself) that kernels round anew, on a CPU that has them; not given, nothing is rounded."""
        self._masters, self._momentum, self._working = masters, momentum, working
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, master in masters.items():
            shapes.setdefault(tuple(master.shape[-2:]), []).append(name)
        self._groups: Sequence[list[str]] = list(shapes.values())

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], learning_rate: float, weight_decay: float, scale: float = 1.0) -> None:
        """One update of all its masters that have a gradient, by `scale` times it; without kernels the gradients are overwritten."""
        for group in self._groups:
            names = [name for name in group if name in gradients]
            if not names:
                continue
            rows, columns = self._masters[names[0]].shape[-2:]
            shrink, step = 1 - learning_rate * weight_decay, learning_rate * 0.2 * math.sqrt(max(rows, columns))
            if self._working is None:
                self._step(names, [gradients[name] for name in names], shrink, step, scale)
            else:
                self._step_by_kernels(names, gradients, self._working, shrink, step, scale)

    def _step(self, names: list[str], gradients: list[Tensor], shrink: float, step: float, scale: float) -> None:
        masters, momentum = [self._masters[name] for name in names], [self._momentum[name] for name in names]
        if scale != 1.0:
            torch._foreach_mul_(gradients, scale)
        torch._foreach_lerp_(momentum, gradients, 1 - MOMENTUM)
        torch._foreach_lerp_(gradients, momentum, MOMENTUM)  # Nesterov: a look ahead
        update = orthogonalise(torch.cat([gradient.reshape(-1, *gradient.shape[-2:]) for gradient in gradients])).float()
        torch._foreach_mul_(masters, shrink)
        parts = torch.split(update, [math.prod(master.shape[:-2]) for master in masters])
        torch._foreach_add_(masters, [part.reshape(master.shape) for part, master in zip(parts, masters, strict=True)], alpha=-step)

    def _step_by_kernels(
        self, names: list[str], gradients: Mapping[str, Tensor], working: Mapping[str, Tensor | None], shrink: float, step: float, scale: float
    ) -> None:
        counts = [math.prod(self._masters[name].shape[:-2]) for name in names]
        ahead_BMN = torch.empty(sum(counts), *self._masters[names[0]].shape[-2:], dtype=torch.bfloat16)
        for name, part in zip(names, torch.split(ahead_BMN, counts), strict=True):
            updates.momentum(gradients[name], self._momentum[name], part, factor=MOMENTUM, scale=scale)
        update_BMN = orthogonalise(ahead_BMN).contiguous()
        for name, part in zip(names, torch.split(update_BMN, counts), strict=True):
            updates.descend(self._masters[name], part, working[name], shrink=shrink, step=step)
