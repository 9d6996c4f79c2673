"""AdamW, or Muon beside it, on float32 masters of a model that computes in a lower precision.

The model's own parameters are the working copy: it is rounded anew from the masters after each step, so that nothing is lost to
bf16 but the rounding of one step's computation. Parameters that compute in float32 anyway (norms, routers) are their own masters.
Weight decay is on matrices other than the embedding table: shrinking embeddings makes early layers' gradients grow (OLMo 2, 2024, §3.3).
Norms are never decayed, so a norm stored around zero (Qwen3-Next: 1 + w) trains like ours, around one: AdamW's updates do not know where
a parameter lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from hagane.errors import TrainingError
from hagane.model.initial import to_working
from hagane.recipe.types import OptimizerKind, Phase
from hagane.train import muon


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies to this parameter: matrices, not vectors, tables or the few numbers per channel of a convolution."""
    return parameter.ndim >= 2 and not name.startswith("embedding.") and not name.endswith(".conv")


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to: `embedding`, `head`, `norm`, `layers`, `mtp`. The first two may have learning rates of their own."""
    return name.partition(".")[0]


class MasterOptimizer:
    """Masters, moments and gradients by canonical name, all float32 and allocated once."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, kind: OptimizerKind = "adamw") -> None:
        """Take the model's float32 weights as masters and turn the model into the working copy.

        `kind` "muon": the matrices inside the layers by Muon, everything else by AdamW.
        """
        masters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        to_working(model, dtype)
        self.working: dict[str, nn.Parameter] = dict(model.named_parameters())
        self.masters: dict[str, Tensor] = {
            name: parameter.data if parameter.dtype == torch.float32 else masters[name] for name, parameter in self.working.items()
        }
        self._narrow = [name for name, parameter in self.working.items() if parameter.dtype != torch.float32]
        self._wide = [name for name, parameter in self.working.items() if parameter.dtype == torch.float32]
        self._gradients = {name: torch.zeros_like(self.masters[name]) for name in self._narrow}
        by_muon = [name for name, master in self.masters.items() if kind == "muon" and muon.takes(name, master)]
        names = [name for name in self.masters if name not in by_muon]
        groups: dict[tuple[bool, str], list[Tensor]] = {}
        for name in names:
            groups.setdefault((decays(name, self.masters[name]), part_of(name)), []).append(self.masters[name])
        self._optimizer = torch.optim.AdamW([{"params": group, "decay": decay, "part": part} for (decay, part), group in groups.items()], fused=True)
        self.moments: dict[str, Tensor] = {}
        momentum = {name: torch.zeros_like(self.masters[name]) for name in by_muon}
        self.moments |= {f"{name}.mean": mean for name, mean in momentum.items()}
        self._muon = muon.Muon({name: self.masters[name] for name in by_muon}, momentum)
        for name, master in ((name, self.masters[name]) for name in names):
            mean, square = torch.zeros_like(master), torch.zeros_like(master)
            self.moments[f"{name}.mean"], self.moments[f"{name}.square"] = mean, square
            self._optimizer.state[master] = {"step": torch.zeros((), device=master.device), "exp_avg": mean, "exp_avg_sq": square}
        self._num_collected = 0
        self._frozen: frozenset[str] = frozenset()

    def freeze(self, names: Iterable[str]) -> None:
        """Leave these parameters, and no others, as they are from now on: neither gradients, nor weight decay, nor fading moments."""
        self._frozen = frozenset(names)
        for name, parameter in self.working.items():
            parameter.requires_grad_(name not in self._frozen)

    @torch.no_grad()
    def collect(self) -> None:
        """After each micro-step's backward pass: move the working gradients to float32, adding to those of earlier micro-steps."""
        missing = [name for name, parameter in self.working.items() if parameter.grad is None and name not in self._frozen]
        if missing:
            raise TrainingError(f"{missing[0]} got no gradient: the objective does not use it.")
        gradients = [self._gradients[name] for name in self._narrow if name not in self._frozen]
        working = [gradient for name in self._narrow if (gradient := self.working[name].grad) is not None]
        if gradients and self._num_collected == 0:
            torch._foreach_copy_(gradients, working)
        else:
            for gradient, addend in zip(gradients, working, strict=True):
                gradient.add_(addend)
        for name in self._narrow:
            self.working[name].grad = None
        self._num_collected += 1  # float32 parameters add up in their own gradient

    @torch.no_grad()
    def clip(self, limit: float) -> Tensor:
        """Scale the collected gradient to at most `limit` (0: never) in norm. Returns the norm before, float32 scalar."""
        for name in self._narrow:
            self.masters[name].grad = None if name in self._frozen else self._gradients[name]
        for name in self._wide:
            self.masters[name].grad = self.working[name].grad
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # multiplying by 1 changes no bit, so where looking is free the pass over memory is saved
        if limit > 0 and (norm.device.type != "cpu" or norm.item() > limit):
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @torch.no_grad()
    def step(self, learning_rate: float, phase: Phase) -> None:
        """One update of masters and working copy by the settings of a phase; the gradient is spent."""
        self._muon.step(learning_rate * phase.muon_ratio, phase.weight_decay)
        ratios = {"embedding": phase.embedding_ratio, "head": phase.head_ratio}
        for group in self._optimizer.param_groups:
            group.update(lr=learning_rate * ratios.get(group["part"], 1.0), weight_decay=phase.weight_decay if group["decay"] else 0.0)
            group.update(betas=(phase.beta1, phase.beta2), eps=phase.epsilon)
        self._optimizer.step()
        for name in self._frozen:  # one count of updates for all: a checkpoint has no other
            if self.masters[name] in self._optimizer.state:
                self._optimizer.state[self.masters[name]]["step"] += 1
        for name in self._wide:
            self.working[name].grad = None
        self._num_collected = 0
        self._refresh()

    @torch.no_grad()
    def _refresh(self) -> None:
        if self._narrow:
            torch._foreach_copy_([self.working[name].data for name in self._narrow], [self.masters[name] for name in self._narrow])

    @torch.no_grad()
    def load(self, masters: Mapping[str, Tensor], moments: Mapping[str, Tensor] | None = None, num_steps: int = 0) -> None:
        """Take masters and, from a checkpoint, moments and the number of updates. Raises TrainingError where names or shapes differ."""
        _copy_all(self.masters, masters)
        if moments is not None:
            _copy_all(self.moments, moments)
        for state in self._optimizer.state.values():
            state["step"].fill_(num_steps)
        self._refresh()


def _copy_all(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    if targets.keys() != values.keys():
        odd = sorted(targets.keys() ^ values.keys())
        raise TrainingError(f"the weights do not fit the model: {odd[0]} is on one side only ({len(odd)} such names).")
    for name, target in targets.items():
        if target.shape != values[name].shape:
            raise TrainingError(f"the weights do not fit the model: {name} is {tuple(values[name].shape)} where the model has {tuple(target.shape)}.")
        target.copy_(values[name])
