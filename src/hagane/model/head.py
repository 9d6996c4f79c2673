"""From hidden states to losses and log-probabilities without ever holding all the logits.

`nll_sum` computes its gradient in the forward pass (as in Liger and Cut Cross-Entropy): each chunk of logits is made once,
reduced and dropped. `token_logprobs`, whose gradient is known only later, makes the chunks again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hagane.kernels.elementwise import nll_gradient
from hagane.model.linear import Embedding

CHUNK = 1024
"""Tokens whose logits exist at once. 1,024 was the fastest measured on a CPU with a vocabulary of 8,192."""

LossAndGradient = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def loss_and_gradient(logit_NV: Tensor, target_N: Tensor, weight_N: Tensor) -> tuple[Tensor, Tensor]:
    """Σ weight · nll (float32 scalar), and its gradient for the logits in their dtype. One pass when compiled."""
    wide = logit_NV.float()
    logsum_N = wide.logsumexp(-1)
    picked_N = wide.gather(1, target_N[:, None])[:, 0]
    is_target = torch.arange(wide.shape[1], device=wide.device) == target_N[:, None]
    gradient = ((wide - logsum_N[:, None]).exp() - is_target.float()) * weight_N[:, None]
    return ((logsum_N - picked_N) * weight_N).sum(), gradient.to(logit_NV.dtype)


def _accumulate(total_VD: Tensor, gradient_NV: Tensor, hidden_ND: Tensor) -> None:
    if total_VD.dtype == gradient_NV.dtype:
        total_VD.addmm_(gradient_NV.t(), hidden_ND)
    else:
        total_VD += gradient_NV.t() @ hidden_ND


def _counted(weight_N: Tensor) -> Tensor | None:
    """Tokens of weight other than zero, padded with token 0 to whole chunks (compiled chunks have one size); None to take them all.

    Only on a CPU: elsewhere asking how many there are would wait for the device.
    """
    if weight_N.device.type != "cpu":
        return None
    kept_M = weight_N.nonzero()[:, 0]
    chunk = min(CHUNK, weight_N.shape[0])
    size = -(-kept_M.shape[0] // chunk) * chunk
    return F.pad(kept_M, (0, size - kept_M.shape[0])) if size < weight_N.shape[0] else None


class _NllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, weight_N: Tensor, step: LossAndGradient) -> Tensor:
        kept_M, whole = _counted(weight_N), hidden_ND
        if kept_M is not None:
            num_kept = int(weight_N.count_nonzero())
            hidden_ND, target_N, weight_N = hidden_ND[kept_M], target_N[kept_M], weight_N[kept_M]
            weight_N[num_kept:] = 0.0
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        hidden_gradient = torch.empty_like(hidden_ND)
        weight_gradient = torch.zeros(weight_VD.shape, dtype=torch.float32, device=weight_VD.device)
        for start in range(0, hidden_ND.shape[0], CHUNK):
            span = slice(start, start + CHUNK)
            loss, gradient_NV = step(F.linear(hidden_ND[span], weight_VD), target_N[span], weight_N[span])
            total += loss
            torch.mm(gradient_NV, weight_VD, out=hidden_gradient[span])
            _accumulate(weight_gradient, gradient_NV, hidden_ND[span])
        if kept_M is not None:
            hidden_gradient = torch.zeros_like(whole).index_copy_(0, kept_M[:num_kept], hidden_gradient[:num_kept])
        ctx.save_for_backward(hidden_gradient, weight_gradient.to(weight_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * gradient.to(hidden_gradient.dtype), weight_gradient * gradient.to(weight_gradient.dtype), None, None, None


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        logsum, picked = [], []
        for start in range(0, hidden_ND.shape[0], CHUNK):
            span = slice(start, start + CHUNK)
            logit_NV = F.linear(hidden_ND[span], weight_VD).float()
            logsum.append(logit_NV.logsumexp(-1))
            picked.append(logit_NV.gather(1, target_N[span, None])[:, 0])
        logsum_N = torch.cat(logsum)
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, logsum_N)
        return torch.cat(picked) - logsum_N

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_ND, weight_VD, target_N, logsum_N = ctx.saved_tensors
        hidden_gradient = torch.empty_like(hidden_ND)
        weight_gradient = torch.zeros(weight_VD.shape, dtype=torch.float32, device=weight_VD.device)
        for start in range(0, hidden_ND.shape[0], CHUNK):
            span = slice(start, start + CHUNK)
            # d logp[target] / d logit = [v is target] - p
            gradient_NV = (F.linear(hidden_ND[span], weight_VD).float() - logsum_N[span, None]).exp().neg_()
            gradient_NV.scatter_add_(1, target_N[span, None], torch.ones_like(gradient_NV[:, :1]))
            gradient_NV = (gradient_NV * gradient_N[span, None]).to(hidden_ND.dtype)
            torch.mm(gradient_NV, weight_VD, out=hidden_gradient[span])
            _accumulate(weight_gradient, gradient_NV, hidden_ND[span])
        return hidden_gradient, weight_gradient.to(weight_VD.dtype), None


class Head(nn.Module):
    """Logits = hidden · weightᵀ. The weight is its own (`head.weight`), or the embedding's when tied."""

    def __init__(self, vocabulary_size: int, width: int, tied_to: Embedding | None = None, device: torch.device | str | None = None) -> None:
        super().__init__()
        # in a tuple, so that the shared matrix is registered once, under the embedding's name
        self._tied_to = (tied_to,)
        if tied_to is None:
            self.weight = nn.Parameter(torch.empty(vocabulary_size, width, device=device))
        self.loss_and_gradient: LossAndGradient = loss_and_gradient

    @property
    def matrix(self) -> Tensor:
        (embedding,) = self._tied_to
        return self.weight if embedding is None else embedding.weight

    def compile_chunks(self, fused: bool = False) -> None:
        """Fuse the softmax and its gradient, by the compiler or (`fused`) by the kernel; the matrix products stay as they are."""
        self.loss_and_gradient = nll_gradient if fused else torch.compile(loss_and_gradient, dynamic=False, fullgraph=True)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 logits (..., V) of hidden states (..., D). Holds them all: for a few tokens at a time."""
        return F.linear(hidden, self.matrix).float()

    def nll_sum(self, hidden_BTD: Tensor, target_BT: Tensor, weight_BT: Tensor) -> Tensor:
        """Σ weight · -log p(target) over all tokens: a float32 scalar whose gradient is already computed.

        Tokens of weight 0 (prompts in tuning, padding) cost nothing on a CPU.
        """
        hidden_ND, target_N, weight_N = hidden_BTD.flatten(0, -2), target_BT.flatten(), weight_BT.flatten().float()
        if torch.is_grad_enabled():
            result: Tensor = _NllSum.apply(hidden_ND, self.matrix, target_N, weight_N, self.loss_and_gradient)  # type: ignore[no-untyped-call]
            return result
        return -(self.token_logprobs(hidden_ND, target_N) * weight_N).sum()

    def token_logprobs(self, hidden_BTD: Tensor, target_BT: Tensor) -> Tensor:
        """log p(target) of every token, float32, shaped like the targets. Its gradient makes the logits once more."""
        result: Tensor = _TokenLogprobs.apply(hidden_BTD.flatten(0, -2), self.matrix, target_BT.flatten())  # type: ignore[no-untyped-call]
        return result.view(target_BT.shape)
