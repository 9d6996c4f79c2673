"""Keys and values of tokens already seen, for generation: per-row lengths and no padding, so ragged rows cost what they hold.

Layer caches only store; the `Cache` around them knows how far each row has come. Rewinding is setting lengths back:
what lies beyond them is never read and gets overwritten. A mixer of another kind (recurrent) brings a layer cache of
its own with the same methods, whose snapshot holds its state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hagane.model.config import AttentionConfig, ModelConfig
from hagane.model.linear import stepped
from hagane.model.sequence import PADDING, Sequence


class Placement(NamedTuple):
    """Where the real tokens of one forward pass go: token (row, time) into slot position `slot`; rows are read up to `span`."""

    row_M: Tensor
    time_M: Tensor
    slot_M: Tensor
    span: int


class LayerCache:
    """Keys and values (rows, kv heads, length, head_dim) of one attention layer."""

    def __init__(self, rows: int, length: int, config: AttentionConfig, dtype: torch.dtype, device: torch.device | str | None) -> None:
        shape = (rows, config.num_kv_heads, length, config.head_dim)
        # zeros: a masked slot still meets a weight of zero in the mixing product, and 0 · NaN is NaN
        self.key_BKLH = torch.zeros(shape, dtype=dtype, device=device)
        self.value_BKLH = torch.zeros(shape, dtype=dtype, device=device)
        self.placement: Placement | None = None

    def append(self, key_BKTH: Tensor, value_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens where the placement says; return the keys and values of every row up to the longest one."""
        assert self.placement is not None, "the decoder places tokens before its layers run"
        row, time, slot, span = self.placement
        self.key_BKLH[row, :, slot] = key_BKTH[row, :, time].to(self.key_BKLH.dtype)
        self.value_BKLH[row, :, slot] = value_BKTH[row, :, time].to(self.value_BKLH.dtype)
        return self.key_BKLH[:, :, :span].to(key_BKTH.dtype), self.value_BKLH[:, :, :span].to(value_BKTH.dtype)

    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.key_BKLH, self.value_BKLH

    def select(self, row_B: Tensor) -> LayerCache:
        """A layer cache of these rows, copied."""
        new = object.__new__(LayerCache)
        new.key_BKLH, new.value_BKLH, new.placement = self.key_BKLH[row_B], self.value_BKLH[row_B], None
        return new

    def put(self, row_B: Tensor, other: LayerCache) -> None:
        """Overwrite these rows with the rows of another cache, which may be shorter."""
        length = other.key_BKLH.shape[2]
        self.key_BKLH[row_B, :, :length] = other.key_BKLH
        self.value_BKLH[row_B, :, :length] = other.value_BKLH


@dataclass(frozen=True)
class Snapshot:
    """How far each row had come. Good until rows are selected or replaced."""

    length_B: tuple[int, ...]


class Cache:
    """The caches of all layers. Memory is fixed when it is made: rows × length tokens.

    `length_B` is a list of Python ints: how many tokens each row holds. Forward passes of the decoder extend it.
    """

    def __init__(self, config: ModelConfig, rows: int, length: int, dtype: torch.dtype, device: torch.device | str | None = None) -> None:
        self.length = length
        self.device = device
        self.length_B = [0] * rows
        self.layers = [LayerCache(rows, length, layer.mixer, dtype, device) for layer in config.layers]

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

    def place(self, sequence: Sequence) -> tuple[list[int], int]:
        """Decide where the tokens of a forward pass go. Returns the rows' new lengths, and how many slots of every row are read.

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
        placement = Placement(row.to(self.device), time.to(self.device), slot.to(self.device), min(self.length, stepped(max(new_B))))
        for layer in self.layers:
            layer.placement = placement
        return new_B, placement.span

    def starts(self) -> Tensor:
        return torch.tensor(self.length_B, device=self.device)

    def select(self, rows: Iterable[int]) -> None:
        """Keep these rows, in this order; the same row may be kept more than once. In place, layer by layer."""
        kept = list(rows)
        index = torch.tensor(kept, dtype=torch.int64, device=self.device)
        self.layers = [layer.select(index) for layer in self.layers]
        self.length_B = [self.length_B[row] for row in kept]

    def fork(self, row: int, count: int) -> Cache:
        """A new cache of `count` rows, each a copy of this row."""
        new = object.__new__(Cache)
        new.length, new.device, new.length_B = self.length, self.device, [self.length_B[row]] * count
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

    def snapshot(self) -> Snapshot:
        return Snapshot(tuple(self.length_B))

    def rewind(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of the same rows. Raises ValueError when rows are fewer, more or shorter than then."""
        if len(snapshot.length_B) != self.num_rows or any(old > now for old, now in zip(snapshot.length_B, self.length_B, strict=True)):
            raise ValueError("the snapshot is not of an earlier state of these rows")
        self.length_B = list(snapshot.length_B)
