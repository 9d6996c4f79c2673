"""Phases of a model with indexers: dense attention first, then the indexers alone, then sparse attention (DeepSeek-V3.2-Exp, 2025, section 2.1).

The published model was trained densely to its end, its indexers were warmed up on a thousandth of that and all of it went on sparse for
a tenth. A run that begins from nothing does the same in shares of its steps; the learning rate of the model is what it would be without.
A short run has no steps to lose: there the rest learns on while indexers warm up, unless the recipe has it wait (docs/notebook.md, "Sparse attention at
equal tokens").
"""

from __future__ import annotations

from hagane.model.config import LatentConfig, ModelConfig
from hagane.recipe.schema import TrainSettings
from hagane.recipe.types import IndexMode, Phase

WARMUP_RATE = 1e-3  # of the indexers' warm-up, in the published training: a thousand steps at width 7,168
WARMUP_REACH, HIGHEST_WARMUP_RATE = 512.0, 0.1
"""Steps x learning rate x width that a warm-up needs until the indexers choose what attention reads (docs/notebook.md, "Warming up indexers"), and what
may be asked of a step. What they still lack is not learned later: a key that is never read is never missed."""
RAMP = 0.05  # of the warm-up's steps, until its learning rate is reached


def with_indexers(phases: tuple[Phase, ...], config: ModelConfig, settings: TrainSettings) -> tuple[Phase, ...]:
    """Phases of training a model from nothing, cut as `settings` say where it has indexers."""
    if not any(isinstance(layer.mixer, LatentConfig) and layer.mixer.index is not None for layer in config.layers):
        return phases
    return index_phases(phases, config.width, *settings.index_shares, alone=settings.index_warmup == "alone")


def warmup_rate(width: int, num_steps: int) -> float:
    """Learning rate of so many steps of warm-up: what the reach asks, at least the published one."""
    return min(max(WARMUP_RATE, WARMUP_REACH / (width * num_steps)), HIGHEST_WARMUP_RATE)


def index_ratio(index_rate: float, learning_rate: float) -> float:
    """What the learning rate of a phase is multiplied with for indexers that warm up beside the rest: never less than 1."""
    return max(1.0, index_rate / learning_rate) if learning_rate else 1.0


def indexer_reason(phases: tuple[Phase, ...]) -> dict[str, str]:
    """Why a pretraining has these phases: under "indexers", nothing for a model without."""
    total = sum(phase.num_steps for phase in phases)
    share = {mode: sum(phase.num_steps for phase in phases if phase.index == mode) / total for mode in ("dense", "warmup", "together", "sparse")}
    first = next((phase for phase in phases if phase.index in ("warmup", "together")), None)
    if first is None:
        return {}
    which = "alone" if first.index == "warmup" else "beside the rest"
    return {
        "indexers": f"{share['dense']:.0%} of pretraining reads all keys, {share[first.index]:.0%} teaches the indexers {which} at "
        f"{first.learning_rate * first.index_ratio:.2g} (the fewer steps, the faster), {share['sparse']:.0%} reads chosen keys (DeepSeek-V3.2-Exp 2025); "
        "override: train.index_dense_share, train.index_warmup_share, train.index_warmup"
    }


def index_phases(phases: tuple[Phase, ...], width: int, dense_share: float, warmup_share: float, *, alone: bool) -> tuple[Phase, ...]:
    """The same steps: the first `dense_share` of them dense, `warmup_share` of warm-up, of the indexers `alone` or together with the rest, then sparse.

    Pieces without steps are left out.
    """
    total = sum(phase.num_steps for phase in phases)
    dense_end, warmup_steps = round(total * dense_share), round(total * warmup_share)
    spans: list[tuple[IndexMode, int, int]] = [
        ("dense", 0, dense_end), ("warmup" if alone else "together", dense_end, dense_end + warmup_steps), ("sparse", dense_end + warmup_steps, total)
    ]  # fmt: skip
    pieces, start, rate = [], 0, warmup_rate(width, max(1, warmup_steps))
    for phase in phases:
        for index, begin, end in spans:
            first, last = max(begin - start, 0), min(end - start, phase.num_steps)
            if first < last:
                pieces.append(_warmup(phase, last - first, rate) if index == "warmup" else _piece(phase, first, last, index, rate))
        start += phase.num_steps
    return tuple(pieces)


def _warmup(phase: Phase, num_steps: int, learning_rate: float) -> Phase:
    changes = {"num_steps": num_steps, "index": "warmup", "learning_rate": learning_rate, "warmup_steps": max(1, round(RAMP * num_steps))}
    return phase.model_copy(update={"name": f"{phase.name}-warmup", "decay_share": 0.0, "final_share": 1.0, **changes})


def _piece(phase: Phase, first: int, last: int, index: IndexMode, index_rate: float) -> Phase:
    """Steps `first` to `last` of a phase as a phase of their own, with the same learning rates; together with it indexers begin at `index_rate` or more."""
    plateau = phase.num_steps * (1 - phase.decay_share)

    def share(step: int) -> float:
        """Of the peak, without the warm-up."""
        return 1.0 if step <= plateau else 1 - (1 - phase.final_share) * (step - plateau) / (phase.num_steps - plateau)

    begun = share(first)
    peak = phase.learning_rate * begun
    changes = {
        "name": phase.name if index == "sparse" else f"{phase.name}-{index}", "num_steps": last - first, "index": index,
        "index_ratio": index_ratio(index_rate, peak) if index == "together" else 1.0, "learning_rate": peak,
        "warmup_steps": max(0, phase.warmup_steps - first), "decay_share": max(0.0, min(last - plateau, last - first)) / (last - first),
        "final_share": share(last) / begun if begun else 0.0,
    }  # fmt: skip
    return phase.model_copy(update=changes)
