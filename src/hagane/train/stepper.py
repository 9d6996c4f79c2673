"""One optimizer step: micro-batches forward and backward, clipping, optimizer, routers. The loop and the probe use this same code.

Everything here is a function of its inputs: nothing reads a clock, and nothing waits for the device unless its results are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from hagane.data.batch import Batch
from hagane.data.source import StepData
from hagane.errors import TrainingError
from hagane.kernels.build import load
from hagane.kernels.memory import give_back_freed_memory, keep_freed_memory
from hagane.kernels.threads import pinned
from hagane.model.config import ModelConfig
from hagane.model.decoder import Decoder, Outputs, needs_compiler
from hagane.model.indexer import is_indexers
from hagane.model.router import Stats
from hagane.model.sequence import Sequence
from hagane.recipe.types import IndexMode, OptimizerKind, Phase
from hagane.train.health import SAMPLED, moments
from hagane.train.objective import OBJECTIVES, further_tokens, further_weight
from hagane.train.optimizer import MasterOptimizer

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


Shape = tuple[int, int, IndexMode]


def shape_of(phase: Phase) -> Shape:
    """What a compiled step depends on: rows, context, and what indexers do."""
    return phase.rows, phase.context, phase.index


@dataclass(frozen=True)
class StepResult:
    """Scalars on the device, and router statistics summed over the step."""

    loss: Tensor  # mean over targets, nats
    auxiliary_loss: Tensor  # of routers and indexers, mean over tokens
    mtp_loss: Tensor  # mean over targets and modules for multi-token prediction, nats; 0 without
    gradient_norm: Tensor  # before clipping
    stats: Stats
    moments_6: Tensor | None  # of a sample's losses and the experts it used (`health.moments`); None without null experts
    first: bool  # of its shape: compiling was part of it


class Stepper:
    """A decoder, its optimizer, and the way from a batch to the next weights."""

    def __init__(self, config: ModelConfig, *, device: str, dtype: str, compiled: bool, seed: int, optimizer: OptimizerKind = "adamw") -> None:
        self.device = torch.device(device)
        self.decoder = Decoder(config, device=self.device)
        self.decoder.init_weights(seed)
        self.optimizer = MasterOptimizer(self.decoder, DTYPES[dtype], optimizer)
        self.decoder.train()
        self.shapes: set[Shape] = set()  # already trained on, hence compiled for
        self._index: IndexMode = "sparse"
        if compiled:
            self.decoder.compile_parts()

    def step(self, data: StepData, phase: Phase, learning_rate: float) -> StepResult:
        """Train on one global batch. The results may still be under way on the device."""
        self._enter(phase.index)
        shape = shape_of(phase)
        first = shape not in self.shapes
        if first:
            self.decoder.build_products(phase.rows * phase.context)
        # not while compiling: the compiler's processes would inherit one processor
        with pinned(torch.get_num_threads()) if self.device.type == "cpu" and not first else nullcontext():
            result = self._step(data, phase, learning_rate, first)
        self.shapes.add(shape)
        return result

    def _enter(self, index: IndexMode) -> None:
        """What a phase lets learn of a model with indexers; no effect on others."""
        indexers = [name for name in self.optimizer.working if is_indexers(name)]
        if index == self._index or not indexers:
            return
        others = [name for name in self.optimizer.working if not is_indexers(name)]
        self.optimizer.freeze({"sparse": [], "dense": indexers, "warmup": others, "together": []}[index])
        self.decoder.index_mode(index)
        self._index = index

    def _step(self, data: StepData, phase: Phase, learning_rate: float, first: bool) -> StepResult:
        if data.weight_sum <= 0:
            raise TrainingError(f"there is nothing to learn from in {data.describe()}: no token of these rows is a target. Check how they were encoded.")
        objective = OBJECTIVES[phase.objective]
        loss_sum, auxiliary_sum, mtp_sum = (torch.zeros((), device=self.device) for _ in range(3))
        num_modules = len(self.decoder.mtp)
        # mean over the targets of each module, then over modules (DeepSeek-V3, eq. 25)
        shares = [num_modules * max(sum(further_weight(micro, k) for micro in data.batches), 1.0) for k in range(1, num_modules + 1)]
        total: Stats | None = None
        sampled: Tensor | None = None
        for micro in data.batches:
            batch = micro.to(self.device)
            outputs = self.decoder(batch.tokens_BT, Sequence(batch.position_BT, batch.document_BT), further=num_modules > 0)
            with torch.set_grad_enabled(self._index != "warmup"):  # then they are watched only: nothing that they depend on learns
                loss = objective(outputs, self.decoder.head, batch) / data.weight_sum
                further = torch.zeros((), device=self.device)
                for module, share in zip(further_tokens(outputs, self.decoder.head, batch), shares, strict=True):
                    further = further + module / share
            auxiliary = self.decoder.auxiliary_loss_sum(outputs.stats) / data.num_tokens
            (loss + auxiliary + phase.mtp_coefficient * further).backward()  # type: ignore[no-untyped-call]
            self.optimizer.collect(alone=len(data.batches) == 1)
            loss_sum += loss.detach()
            auxiliary_sum += auxiliary.detach()
            mtp_sum += further.detach()
            stats = outputs.stats.detached()
            total = stats if total is None else total + stats
            if sampled is None:
                sampled = self._sampled(outputs, batch)
        assert total is not None
        norm = self.optimizer.clip(phase.clip)
        self.optimizer.step(learning_rate, phase)
        if self._index != "warmup":
            self.decoder.router_step(total)
        return StepResult(loss_sum, auxiliary_sum, mtp_sum, norm, total, sampled, first)

    @torch.no_grad()
    def _sampled(self, outputs: Outputs, batch: Batch) -> Tensor | None:
        """Losses of the first tokens of a micro-batch beside the experts they used; None where none can be null."""
        used_N = outputs.stats.used()
        if used_N is None:
            return None
        part = slice(0, SAMPLED)
        loss_N = -self.decoder.head.token_logprobs(outputs.hidden_BTD.detach().flatten(0, 1)[part], batch.targets_BT.flatten()[part])
        return moments(used_N[part], loss_N, batch.weight_BT.flatten()[part])


def compiles(config: ModelConfig, *, device: str, dtype: str) -> bool:
    """Whether a compiled step of this model has anything that only the compiler can make."""
    return needs_compiler(config, torch.device(device), DTYPES[dtype])


@contextmanager
def torch_set_up(*, threads: int, compiled: bool, device: str = "cpu") -> Iterator[None]:
    """Torch's global switches while training: threads, deterministic kernels, static shapes. Put back afterwards.

    The C library's habit of giving memory back is switched off for good: it cannot be asked what it was.
    """
    give_back_freed_memory()
    keep_freed_memory()
    num_threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        if threads:
            torch.set_num_threads(threads)
        # warn only: an operation without a deterministic kernel must not stop a run
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        with _compiler_set_up(device) if compiled else nullcontext():
            yield
    finally:
        torch.set_num_threads(num_threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


@contextmanager
def _compiler_set_up(device: str) -> Iterator[None]:
    """Static shapes, and room for layers of many kinds and phases of many shapes, which all compile one forward function.

    On a CPU the compiler tries every instruction set of the processor with a small program of its own, eight seconds in all where nothing is kept. That our
    kernels could be built for this very processor and loaded says as much.

    The compiler's modules take seconds to import: only where something is compiled.
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    before = dynamo.automatic_dynamic_shapes, dynamo.recompile_limit
    # kernels picked by timing them could differ from one attempt to the next
    settings: dict[str, bool] = {"deterministic": True} if hasattr(inductor, "deterministic") else {}
    if device == "cpu" and inductor.cpp.vec_isa_ok is None and load("threads") is not None:
        settings["cpp.vec_isa_ok"] = True
    dynamo.automatic_dynamic_shapes, dynamo.recompile_limit = False, 64
    try:
        with inductor.patch(settings):
            yield
    finally:
        dynamo.automatic_dynamic_shapes, dynamo.recompile_limit = before
