"""AdamW, or Muon beside it, on float32 masters of a model that computes in a lower precision.

The model's own parameters are the working copy: it is rounded anew from the masters after each step, so that nothing is lost to
bf16 but the rounding of one step's computation. Parameters that compute in float32 anyway (norms, routers) are their own masters.
Weight decay is on matrices other than the embedding table: shrinking embeddings makes early layers' gradients grow (OLMo 2, 2024, §3.3).
Norms are never decayed, so a norm stored around zero (Qwen3-Next: 1 + w) trains like ours, around one: AdamW's updates do not know where
a parameter lies.

On a CPU kernels do all that is between gradient and working copy in one pass, and read the gradient as the backward pass left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from hagane.errors import TrainingError
from hagane.kernels import updates
from hagane.model.indexer import is_indexers
from hagane.model.initial import to_working
from hagane.recipe.types import OptimizerKind, Phase
from hagane.train import muon


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies to this parameter: matrices, not vectors, tables or the few numbers per channel of a convolution."""
    return parameter.ndim >= 2 and not name.startswith("embedding.") and not name.endswith(".conv")


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to: `embedding`, `head`, `indexers`, `norm`, `layers`, `mtp`. The first three may have learning rates of
    their own."""
    return "indexers" if is_indexers(name) else name.partition(".")[0]


class MasterOptimizer:
    """Masters and moments by canonical name, all float32 and allocated once."""

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
        self._copies = {name: None if parameter.dtype == torch.float32 else parameter.data for name, parameter in self.working.items()}
        by_muon = [name for name, master in self.masters.items() if kind == "muon" and muon.takes(name, master)]
        self._by_adamw = [name for name in self.masters if name not in by_muon]
        self._indexers = frozenset(name for name in self.masters if is_indexers(name))
        self.moments: dict[str, Tensor] = {f"{name}.mean": torch.zeros_like(master) for name, master in self.masters.items()}
        self.moments |= {f"{name}.square": torch.zeros_like(self.masters[name]) for name in self._by_adamw}
        device = next(iter(self.masters.values())).device
        self._kernels = updates.serves(device, dtype)
        momentum = {name: self.moments[f"{name}.mean"] for name in by_muon}
        self._muon = muon.Muon({name: self.masters[name] for name in by_muon}, momentum, self._copies if self._kernels else None)
        self._adamw = None if self._kernels else self._torchs_adamw()
        self._num_steps = 0
        self._sums: dict[str, Tensor] = {}  # of the gradients of several micro-steps, float32
        self._gradients: dict[str, Tensor] = {}  # collected; empty once they are spent
        self._scale = 1.0  # what clipping multiplies them with, where that is left to the kernels
        self._frozen: frozenset[str] = frozenset()

    def _torchs_adamw(self) -> torch.optim.AdamW:
        groups: dict[tuple[bool, str], list[Tensor]] = {}
        for name in self._by_adamw:
            groups.setdefault((decays(name, self.masters[name]), part_of(name)), []).append(self.masters[name])
        made = torch.optim.AdamW([{"params": group, "decay": decay, "part": part} for (decay, part), group in groups.items()], fused=True)
        for name in self._by_adamw:
            master, mean, square = self.masters[name], self.moments[f"{name}.mean"], self.moments[f"{name}.square"]
            made.state[master] = {"step": torch.zeros((), device=master.device), "exp_avg": mean, "exp_avg_sq": square}
        return made

    def freeze(self, names: Iterable[str]) -> None:
        """Leave these parameters, and no others, as they are from now on: neither gradients, nor weight decay, nor fading moments."""
        self._frozen = frozenset(names)
        for name, parameter in self.working.items():
            parameter.requires_grad_(name not in self._frozen)

    @torch.no_grad()
    def collect(self, *, alone: bool = False) -> None:
        """After each micro-step's backward pass: add up the working gradients in float32. `alone`: there is just this one in the step."""
        missing = [name for name, parameter in self.working.items() if parameter.grad is None and name not in self._frozen]
        if missing:
            raise TrainingError(f"{missing[0]} got no gradient: the objective does not use it.")
        found = {name: parameter.grad for name, parameter in self.working.items() if parameter.grad is not None and name not in self._frozen}
        if alone and self._kernels:  # which read either precision
            self._gradients = {name: gradient.contiguous() for name, gradient in found.items()}
            return
        narrow = [name for name in self._narrow if name in found]
        for name in narrow:
            if name not in self._sums:
                self._sums[name] = torch.zeros_like(self.masters[name])
        sums, addends = [self._sums[name] for name in narrow], [found[name] for name in narrow]
        if narrow and not self._gradients:
            torch._foreach_copy_(sums, addends)
        else:
            for gradient, addend in zip(sums, addends, strict=True):
                gradient.add_(addend)
        for name in narrow:
            self.working[name].grad = None
        # float32 parameters add up in their own gradient
        self._gradients = {name: self._sums.get(name, gradient) for name, gradient in found.items()}

    @torch.no_grad()
    def clip(self, limit: float) -> Tensor:
        """Scale the collected gradient to at most `limit` (0: never) in norm. Returns the norm before, float32 scalar."""
        gradients = list(self._gradients.values())
        if self._kernels:
            value = updates.norm(gradients)
            self._scale = limit / (value + 1e-6) if limit > 0 and value > limit else 1.0
            return torch.tensor(value)
        norm = nn.utils.get_total_norm(gradients)
        # multiplying by 1 changes no bit, so where looking is free the pass over memory is saved
        if limit > 0 and (norm.device.type != "cpu" or norm.item() > limit):
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @torch.no_grad()
    def step(self, learning_rate: float, phase: Phase) -> None:
        """One update of masters and working copy by the settings of a phase; the gradient is spent."""
        self._num_steps += 1  # one count of updates for all, frozen ones too: a checkpoint has no other
        for gradients, ratio in self._by_ratio(phase.index_ratio):
            self._muon.step(gradients, learning_rate * phase.muon_ratio * ratio, phase.weight_decay, self._scale)
        ratios = {"embedding": phase.embedding_ratio, "head": phase.head_ratio, "indexers": phase.index_ratio}
        if self._adamw is None:
            for name in (name for name in self._by_adamw if name in self._gradients):
                decay = phase.weight_decay if decays(name, self.masters[name]) else 0.0
                updates.adamw(
                    self.masters[name], self._gradients[name], self.moments[f"{name}.mean"], self.moments[f"{name}.square"], self._copies[name],
                    step=self._num_steps, scale=self._scale, learning_rate=learning_rate * ratios.get(part_of(name), 1.0), weight_decay=decay,
                    betas=(phase.beta1, phase.beta2), epsilon=phase.epsilon,
                )  # fmt: skip
        else:
            self._step_torchs(self._adamw, learning_rate, phase, ratios)
        for parameter in self.working.values():
            parameter.grad = None
        self._gradients, self._scale = {}, 1.0

    def _by_ratio(self, index_ratio: float) -> Iterable[tuple[Mapping[str, Tensor], float]]:
        """The collected gradients in parts, each with what Muon multiplies its learning rate with: indexers apart where they have their own."""
        if index_ratio == 1 or not self._indexers:
            return ((self._gradients, 1.0),)
        parts: dict[bool, dict[str, Tensor]] = {False: {}, True: {}}
        for name, gradient in self._gradients.items():
            parts[name in self._indexers][name] = gradient
        return ((parts[False], 1.0), (parts[True], index_ratio))

    def _step_torchs(self, adamw: torch.optim.AdamW, learning_rate: float, phase: Phase, ratios: Mapping[str, float]) -> None:
        for name in self._by_adamw:
            self.masters[name].grad = self._gradients.get(name)
        for group in adamw.param_groups:
            group.update(lr=learning_rate * ratios.get(group["part"], 1.0), weight_decay=phase.weight_decay if group["decay"] else 0.0)
            group.update(betas=(phase.beta1, phase.beta2), eps=phase.epsilon)
        adamw.step()
        for name in self._frozen.intersection(self._by_adamw):
            adamw.state[self.masters[name]]["step"] += 1
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
        self._num_steps = num_steps
        for state in self._adamw.state.values() if self._adamw is not None else ():
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
