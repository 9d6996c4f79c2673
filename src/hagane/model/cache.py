"""What tokens already seen left behind, for generation: per-row lengths and no padding, so ragged rows cost what they hold.

Rewinding is setting lengths back, and giving each layer's cache what it saved for that (`layer_cache`): nothing where there is a slot
per token, its state where the mixer is recurrent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hagane.model.config import ModelConfig
from hagane.model.layer_cache import Placement
from hagane.model.linear import stepped
from hagane.model.mixer import layer_caches
from hagane.model.sequence import PADDING, Sequence


@dataclass(frozen=True)
class Snapshot:
    """How far each row had come, and what each layer's cache saved. Good until rows are selected or replaced."""

    length_B: tuple[int, ...]
    layers: tuple[tuple[Tensor, ...], ...]


class Cache:
    """The caches of all layers. Memory is fixed when it is made: rows × length tokens.

    `length_B` is a list of Python ints: how many tokens each row holds. Forward passes of the decoder extend it. `ahead` is how many
    tokens of a forward pass may be taken back by `retract`.
    """

    def __init__(self, config: ModelConfig, rows: int, length: int, dtype: torch.dtype, device: torch.device | str | None = None, *, ahead: int = 0) -> None:
        self.length = length
        self.device = device
        self.ahead = ahead
        self.length_B = [0] * rows
        self.layers = layer_caches(rows, length, config, dtype, device)
        for layer in self.layers if ahead else ():
            layer.prepare(ahead)

    @property
    def num_rows(self) -> int:
        return len(self.length_B)

    @property
    def nbytes(self) -> int:
        """Bytes held, filled or not."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.tensors())

    def sequence(self, num_new_B: list[int], num_tokens: int | None = None) -> Sequence:
        """The `Sequence` of the next tokens: `num_new_B[b]` for row b, of `num_tokens` (default: the most of any row) given."""
        return Sequence.ragged(self.length_B, num_new_B, max(num_new_B) if num_tokens is None else num_tokens, self.device)

    def span(self, longest: int) -> int:
        """How many slots of every row are read when the longest holds so many tokens."""
        return min(self.length, stepped(longest))

    def place(self, sequence: Sequence) -> list[int]:
        """Decide where the tokens of a forward pass go. Returns the rows' new lengths.

        Raises ValueError when a row would not fit, or its padding is not on the right.
        """
        real_BT = (sequence.document_BT != PADDING).cpu()
        if real_BT.shape[0] != self.num_rows:
            raise ValueError(f"{real_BT.shape[0]} rows of tokens for a cache of {self.num_rows} rows")
        num_new_B = real_BT.sum(1)
        if not torch.equal(real_BT, torch.arange(real_BT.shape[1]) < num_new_B[:, None]):
            raise ValueError("with a cache, padding must be on the right")
        start_B = torch.tensor(self.length_B)
        new_B: list[int] = (start_B + num_new_B).tolist()
        if max(new_B) > self.length:
            raise ValueError(f"the cache holds {self.length} tokens per row; {max(new_B)} are needed")
        row, time = real_BT.nonzero(as_tuple=True)
        slot = start_B[row] + time
        row, time, slot, start_B = (tensor.to(self.device) for tensor in (row, time, slot, start_B))
        placement = Placement(row, time, slot, start_B, self.span(max(new_B)))
        for layer in self.layers:
            layer.placement = placement
        return new_B

    def select(self, rows: Iterable[int]) -> None:
        """Keep these rows, in this order; the same row may be kept more than once. In place, layer by layer."""
        kept = list(rows)
        index = torch.tensor(kept, dtype=torch.int64, device=self.device)
        self.layers = [layer.select(index) for layer in self.layers]
        self.length_B = [self.length_B[row] for row in kept]

    def fork(self, row: int, count: int) -> Cache:
        """A new cache of `count` rows, each a copy of this row."""
        new = object.__new__(Cache)
        new.length, new.device, new.ahead, new.length_B = self.length, self.device, self.ahead, [self.length_B[row]] * count
        index = torch.full((count,), row, dtype=torch.int64, device=self.device)
        new.layers = [layer.select(index) for layer in self.layers]
        return new

    def put(self, rows: list[int], other: Cache) -> None:
        """Overwrite these rows with all the rows of another cache of the same model (new prompts into finished slots)."""
        if other.length > self.length or len(rows) != other.num_rows:
            raise ValueError(f"{other.num_rows} rows of {other.length} tokens do not fit {len(rows)} rows of {self.length}")
        index = torch.tensor(rows, dtype=torch.int64, device=self.device)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.put(index, theirs)
        for row, length in zip(rows, other.length_B, strict=True):
            self.length_B[row] = length

    def reset(self, rows: Iterable[int]) -> None:
        """Forget what these rows hold."""
        for row in rows:
            self.length_B[row] = 0

    def retract(self, num_B: list[int]) -> None:
        """Take back the last `num_B[b]` tokens of row b, which the last forward pass added. Raises ValueError where the cache was not made for so many."""
        if len(num_B) != self.num_rows or any(not 0 <= num <= min(self.ahead, held) for num, held in zip(num_B, self.length_B)):
            raise ValueError(f"of the last forward pass, up to {self.ahead} tokens of each of {self.num_rows} rows can be taken back, not {num_B}")
        if not any(num_B):
            return
        taken_B = torch.tensor(num_B, dtype=torch.int64, device=self.device)
        for layer in self.layers:
            layer.retract(taken_B)
        self.length_B = [held - num for held, num in zip(self.length_B, num_B, strict=True)]

    def snapshot(self) -> Snapshot:
        """How far the rows are now, for `rewind`: lengths, and copies of what lengths alone do not bring back."""
        return Snapshot(tuple(self.length_B), tuple(layer.snapshot() for layer in self.layers))

    def rewind(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of the same rows. Raises ValueError when rows are fewer, more or shorter than then."""
        if len(snapshot.length_B) != self.num_rows or any(old > now for old, now in zip(snapshot.length_B, self.length_B, strict=True)):
            raise ValueError("the snapshot is not of an earlier state of these rows")
        self.length_B = list(snapshot.length_B)
        for layer, saved in zip(self.layers, snapshot.layers, strict=True):
            layer.rewind(saved)
