"""Health of indexers: how far their choice is from attention, and how many keys are read, from sums over the steps of one log line."""

from __future__ import annotations

import torch
from torch import Tensor

from hagane.model.router import Stats


class IndexSums:
    """Adds up statistics of all indexers on the device, in float64; part of a checkpoint, so that a line does not depend on interruptions."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, stats: Stats) -> None:
        """Statistics of one optimizer step."""
        for layer in stats.indexers:
            for name, value in layer._asdict().items() if layer is not None else ():
                self.tensors[name] = self.tensors[name] + value.double() if name in self.tensors else value.double()

    def health(self) -> dict[str, float] | None:
        """Per token, means over layers: nats of divergence, and keys read. None where no indexer learned."""
        if not self.tensors:
            return None
        num_tokens = max(1.0, float(self.tensors["num_tokens"]))
        return {"divergence": float(self.tensors["divergence_sum"]) / num_tokens, "keys_read": float(self.tensors["read_sum"]) / num_tokens}

    def clear(self) -> None:
        self.tensors = {}
