"""Router health: how evenly the experts of each layer are used, from sums over the steps of one log line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hagane.model.clamp import BOUNDS, Clamp
from hagane.model.config import ExpertsConfig, ModelConfig
from hagane.model.router import Stats
from hagane.train.facts import RouterHealth

SAMPLED = 512
"""Tokens of a step whose loss is set beside the experts they used: half a chunk of the head, computed once more."""

OFF_BUDGET = 0.1
"""How far the experts that tokens use may be from the budget of null experts before it is said: FLOPs of the routed experts are planned by it."""


class RouterSums:
    """Adds up router statistics on the device, in float64: counts stay exact, and nothing waits for the device."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, stats: Stats, moments_6: Tensor | None = None) -> None:
        """Statistics of one optimizer step, and the moments of its sample (see `moments`)."""
        for index, layer in enumerate(stats.layers):
            if layer is None:
                continue
            self._add(f"{index}.count_E", layer.count_E)
            self._add(f"{index}.probability_E", layer.probability_E)
            self._add(f"{index}.entropy_sum", layer.entropy_sum)
            self._add(f"{index}.num_tokens", layer.num_tokens)
            self._add(f"{index}.used_H", layer.used_H)
        self._add("moments", moments_6)

    def _add(self, key: str, value: Tensor | None) -> None:
        if value is None:
            return
        if key in self.tensors:
            self.tensors[key].add_(value.detach())
        else:
            self.tensors[key] = value.detach().double()

    def health(self, clamps: Sequence[Clamp] = ()) -> RouterHealth | None:
        """None where no layer has a router. `clamps`: of the routers, as they are now."""
        sums = {key: value.cpu() for key, value in self.tensors.items()}
        layers = sorted({int(key.partition(".")[0]) for key in sums if key != "moments"})
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
            **_used([sums[f"{layer}.used_H"] for layer in layers if f"{layer}.used_H" in sums], sums.get("moments")),
            **_clamped(clamps),
        )

    def clear(self) -> None:
        self.tensors = {}


def off_budget(config: ModelConfig, health: RouterHealth | None) -> str | None:
    """A sentence where the experts that tokens used on average are further from the budget of null experts than OFF_BUDGET; None where they are not."""
    ffn = next((layer.ffn for layer in config.layers if isinstance(layer.ffn, ExpertsConfig) and layer.ffn.null_experts), None)
    if ffn is None or health is None or health.mean_experts is None or abs(health.mean_experts / ffn.mean_used - 1) <= OFF_BUDGET:
        return None
    remedy = f"model.pattern.bias_rate (now {ffn.bias_rate:g})" if ffn.balance == "bias" else f"model.pattern.aux_coefficient (now {ffn.aux_coefficient:g})"
    return (
        f"tokens use {health.mean_experts:.3g} experts on average where the plan counts FLOPs with {ffn.mean_used:g} "
        f"({health.mean_experts / ffn.mean_used - 1:+.0%}). Train for more steps, or raise {remedy}."
    )


def moments(used_N: Tensor, loss_N: Tensor, weight_N: Tensor) -> Tensor:
    """What a correlation is made from, of tokens whose weight is not 0: count, sums of both, of both squared, and of their product."""
    counted_N = (weight_N > 0).double()
    used_N, loss_N = used_N.double(), loss_N.double()
    terms = (torch.ones_like(used_N), used_N, loss_N, used_N.square(), loss_N.square(), used_N * loss_N)
    return torch.stack([(term * counted_N).sum() for term in terms])


def correlation(moments_6: Tensor) -> float | None:
    """Pearson's; None where one of the two did not vary."""
    count, used, loss, used_square, loss_square, product = moments_6.tolist()
    variances = (count * used_square - used * used) * (count * loss_square - loss * loss)
    # of sums of a million terms in float64; equal values leave no more than their rounding
    if variances <= 1e-12 * used_square * loss_square * count * count:
        return None
    return float((count * product - used * loss) / variances**0.5)


def _used(layers: Sequence[Tensor], moments_6: Tensor | None) -> dict[str, Any]:
    """How many experts that are not null tokens used."""
    if not layers:
        return {}
    shares = [_normalised(used_H) for used_H in layers]
    mean_H = torch.stack(shares).mean(0)
    return {
        "mean_experts": float((mean_H * torch.arange(len(mean_H))).sum()),
        "experts_used": tuple(mean_H.tolist()),
        "loss_correlation": None if moments_6 is None else correlation(moments_6),
    }


def _clamped(clamps: Sequence[Clamp]) -> dict[str, float]:
    if not clamps:
        return {}
    outside = torch.stack([clamp.violations() > 0 for clamp in clamps]).double().mean()
    multiplier_B = torch.stack([clamp.log_multiplier_B for clamp in clamps]).amax(0).exp()
    return {"clamped_share": float(outside)} | {f"multiplier_{bound}": value for bound, value in zip(BOUNDS, multiplier_B.tolist(), strict=True)}


def _normalised(values: Tensor) -> Tensor:
    return values / values.sum().clamp(min=1e-30)


def _entropy(share_E: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(share_E).sum()
    return entropy


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
