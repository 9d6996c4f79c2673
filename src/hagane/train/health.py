"""Router health: how evenly the experts of each layer are used, from sums over the steps of one log line."""

from __future__ import annotations

import torch
from torch import Tensor

from hagane.model.router import Stats
from hagane.train.facts import RouterHealth


class RouterSums:
    """Adds up router statistics on the device, in float64: counts stay exact, and nothing waits for the device."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, stats: Stats) -> None:
        """Statistics of one optimizer step."""
        for index, layer in enumerate(stats.layers):
            if layer is None:
                continue
            values = {"count_E": layer.count_E, "probability_E": layer.probability_E, "entropy_sum": layer.entropy_sum, "num_tokens": layer.num_tokens}
            for name, value in values.items():
                key = f"{index}.{name}"
                if key in self.tensors:
                    self.tensors[key].add_(value.detach())
                else:
                    self.tensors[key] = value.detach().double()

    def health(self) -> RouterHealth | None:
        """None where no layer has a router."""
        sums = {key: value.cpu() for key, value in self.tensors.items()}
        layers = sorted({int(key.partition(".")[0]) for key in sums})
        if not layers:
            return None
        load = [_normalised(sums[f"{layer}.count_E"]) for layer in layers]
        marginal = [_normalised(sums[f"{layer}.probability_E"]) for layer in layers]
        return RouterHealth(
            max_violation=max(float(load_E.max() * len(load_E)) - 1.0 for load_E in load),
            dead_share=_mean([float((load_E == 0).double().mean()) for load_E in load]),
            effective_experts=_mean([float(_entropy(load_E).exp()) for load_E in load]),
            conditional_entropy=_mean([float(sums[f"{layer}.entropy_sum"] / sums[f"{layer}.num_tokens"].clamp(min=1)) for layer in layers]),
            marginal_entropy=_mean([float(_entropy(share_E)) for share_E in marginal]),
        )

    def clear(self) -> None:
        self.tensors = {}


def _normalised(values: Tensor) -> Tensor:
    return values / values.sum().clamp(min=1e-30)


def _entropy(share_E: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(share_E).sum()
    return entropy


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
