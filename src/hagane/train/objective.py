"""Objectives: what a training step minimises. `(outputs, head, batch) -> loss summed over targets`; the loop divides by the global weight."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hagane.data.batch import Batch
from hagane.model.decoder import Outputs
from hagane.model.head import Head
from hagane.model.mtp import later

Objective = Callable[[Outputs, Head, Batch], Tensor]


def next_token(outputs: Outputs, head: Head, batch: Batch) -> Tensor:
    """Weighted negative log-likelihood of every target, summed: float32 scalar, nats."""
    return head.nll_sum(outputs.hidden_BTD, batch.targets_BT, batch.weight_BT)


OBJECTIVES: dict[str, Objective] = {"next_token": next_token}


def further_targets(batch: Batch, offset: int) -> tuple[Tensor, Tensor]:
    """The targets `offset` places further and what each counts: nothing where the document ends before."""
    targets_BT, _ = later(batch.targets_BT, batch.document_BT, offset)
    weight_BT, _ = later(batch.weight_BT, batch.document_BT, offset)
    return targets_BT, weight_BT


def further_weight(batch: Batch, offset: int) -> float:
    """Sum of those weights; of a batch that is still on the host."""
    return float(further_targets(batch, offset)[1].double().sum())


def further_tokens(outputs: Outputs, head: Head, batch: Batch) -> list[Tensor]:
    """For each module for multi-token prediction, like `next_token`: module k predicts the target k places further (DeepSeek-V3, eq. 24)."""
    pairs = ((hidden_BTD, further_targets(batch, offset)) for offset, hidden_BTD in enumerate(outputs.further, start=1))
    return [head.nll_sum(hidden_BTD, *targets) for hidden_BTD, targets in pairs]
