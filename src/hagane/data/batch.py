"""The batch one micro-step sees: tokens, targets, weights, positions, documents and sources, every row `context` long."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of one micro-step. Padding has token 0, weight 0 and document -1; attention stays inside a document."""

    tokens_BT: Tensor  # int64
    targets_BT: Tensor  # int64, the token after each input token
    weight_BT: Tensor  # float32, what each target counts in the loss
    position_BT: Tensor  # int64, from 0 at each document start (or row start)
    document_BT: Tensor  # int32, numbered within the row
    source_B: Tensor  # int32, index into `names`
    names: tuple[str, ...]  # shards of the mixture
    counters: tuple[int, ...]  # the sample counter of each row: with the seed, all that names a row
    rows: tuple[int, ...]  # the row's number in its shard
    weight_sum: float  # sum of weight_BT, known without asking the device
    num_tokens: int  # positions that are not padding

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`. From pinned memory the copy does not wait."""
        if torch.device(device).type == "cpu":
            return self
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Batch(**{**vars(self), **moved})

    def describe(self) -> str:
        """Shards and rows for a person: `stdlib.en rows 3, 17 (samples 120, 122)`."""
        parts = []
        for index, name in enumerate(self.names):
            chosen = [i for i, source in enumerate(self.source_B.tolist()) if source == index]
            if chosen:
                rows = ", ".join(str(self.rows[i]) for i in chosen)
                counters = ", ".join(str(self.counters[i]) for i in chosen)
                parts.append(f"{name} rows {rows} (samples {counters})")
        return "; ".join(parts)


@dataclass
class Row:
    """One packed row as arrays of `context` entries, padding at the end."""

    tokens_T: np.ndarray
    targets_T: np.ndarray
    weight_T: np.ndarray
    position_T: np.ndarray
    document_T: np.ndarray
    num_tokens: int


def collate(
    rows: list[Row], *, sources: list[int], names: tuple[str, ...], counters: list[int], numbers: list[int], pin: bool = False
) -> Batch:
    """Stack rows of equal length. `pin` puts the tensors in page-locked memory for a copy that does not wait."""

    def stack(values: list[np.ndarray]) -> Tensor:
        tensor = torch.from_numpy(np.stack(values))
        return tensor.pin_memory() if pin else tensor

    weight_BT = np.stack([row.weight_T for row in rows])
    return Batch(
        tokens_BT=stack([row.tokens_T for row in rows]),
        targets_BT=stack([row.targets_T for row in rows]),
        weight_BT=stack([row.weight_T for row in rows]),
        position_BT=stack([row.position_T for row in rows]),
        document_BT=stack([row.document_T for row in rows]),
        source_B=torch.tensor(sources, dtype=torch.int32),
        names=names,
        counters=tuple(counters),
        rows=tuple(numbers),
        weight_sum=float(weight_BT.sum(dtype=np.float64)),
        num_tokens=sum(row.num_tokens for row in rows),
    )
