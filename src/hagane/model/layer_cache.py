"""What one mixer keeps between decoding steps. Layer caches only store; the `Cache` around them knows how far each row has come.

A mixer of another kind brings a class of its own, derived from `LayerCache`. One that holds a slot per token (`KeyValueCache`) rewinds
by forgetting lengths: what lies beyond them is never read and gets overwritten. One that holds a state which every token changes
cannot, so a snapshot copies it: that is what `LayerCache.snapshot` and `rewind` do unless overridden.
"""

from __future__ import annotations

from copy import copy
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from hagane.model.sequence import slot_mask


class Placement(NamedTuple):
    """Where the real tokens of one forward pass go: token (row, time) into position `slot` of its row; rows are read up to `span`.

    `start_B` tokens were in each row before. Where it is 0, a recurrent mixer begins with an empty state whatever it finds: rows
    are reset, and given to other prompts, by setting their length to 0.
    """

    row_M: Tensor
    time_M: Tensor
    slot_M: Tensor
    start_B: Tensor
    span: int


class LayerCache:
    """Tensors whose first dimension is the row, under the attributes listed in `names`; `placement` is set before every forward pass."""

    names: ClassVar[tuple[str, ...]]
    placement: Placement | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, name) for name in self.names)

    def mask(self, real_BT: Tensor, window: int | None) -> Tensor | None:
        """Which of the slots that this cache returns in the placed forward pass each new token sees (B, T, S); None where there are no slots."""
        return None

    def select(self, row_B: Tensor) -> Self:
        """A layer cache of these rows, copied."""
        new = copy(self)
        for name in self.names:
            setattr(new, name, getattr(self, name)[row_B])
        new.placement = None
        return new

    def put(self, row_B: Tensor, other: Self) -> None:
        """Overwrite these rows with the rows of another cache, which may be made for fewer tokens."""
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine[row_B] = theirs

    def snapshot(self) -> tuple[Tensor, ...]:
        """What setting lengths back does not bring back: copies, given to `rewind` later."""
        return tuple(tensor.clone() for tensor in self.tensors())

    def rewind(self, saved: tuple[Tensor, ...]) -> None:
        for mine, old in zip(self.tensors(), saved, strict=True):
            mine.copy_(old)


class KeyValueCache(LayerCache):
    """Keys (rows, heads, length, dim) and values of every token; both may have numbers of heads and widths of their own, `(heads, dim)`."""

    names = ("key_BKLH", "value_BKLH")

    def __init__(
        self, rows: int, length: int, key: tuple[int, int], value: tuple[int, int], dtype: torch.dtype, device: torch.device | str | None
    ) -> None:
        # zeros: a masked slot still meets a weight of zero in the mixing product, and 0 · NaN is NaN
        self.key_BKLH, self.value_BKLH = (torch.zeros((rows, heads, length, dim), dtype=dtype, device=device) for heads, dim in (key, value))

    def mask(self, real_BT: Tensor, window: int | None) -> Tensor:
        assert self.placement is not None
        return slot_mask(self.placement.start_B, real_BT.shape[1], self.placement.span, window)

    def append(self, key_BKTH: Tensor, value_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens where the placement says; return the keys and values of every row up to the longest one."""
        assert self.placement is not None, "the decoder places tokens before its layers run"
        row, time, slot, _, span = self.placement
        self.key_BKLH[row, :, slot] = key_BKTH[row, :, time].to(self.key_BKLH.dtype)
        self.value_BKLH[row, :, slot] = value_BKTH[row, :, time].to(self.value_BKLH.dtype)
        return self.key_BKLH[:, :, :span].to(key_BKTH.dtype), self.value_BKLH[:, :, :span].to(value_BKTH.dtype)

    def put(self, row_B: Tensor, other: Self) -> None:
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine[row_B, :, : theirs.shape[2]] = theirs

    def snapshot(self) -> tuple[Tensor, ...]:
        return ()

    def rewind(self, saved: tuple[Tensor, ...]) -> None:
        pass
