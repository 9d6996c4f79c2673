"""Objectives: what a training step minimises. `(outputs, head, batch) -> loss summed over targets`; the loop divides by the global weight."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hagane.data.batch import Batch
from hagane.model.decoder import Outputs
from hagane.model.head import Head

Objective = Callable[[Outputs, Head, Batch], Tensor]


def next_token(outputs: Outputs, head: Head, batch: Batch) -> Tensor:
    """Weighted negative log-likelihood of every target, summed: float32 scalar, nats."""
    return head.nll_sum(outputs.hidden_BTD, batch.targets_BT, batch.weight_BT)


OBJECTIVES: dict[str, Objective] = {"next_token": next_token}
