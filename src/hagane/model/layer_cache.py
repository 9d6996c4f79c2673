"""What one mixer keeps between decoding steps. Layer caches only store; the `Cache` around them knows how far each row has come.

A mixer of another kind brings a class of its own, derived from `LayerCache`. One that holds a slot per token (`KeyValueCache`) rewinds
by forgetting lengths: what lies beyond them is never read and gets overwritten. One that holds a state which every token changes
cannot, so a snapshot copies it: that is what `LayerCache.snapshot` and `rewind` do unless overridden. Nor can one that keeps
the last tokens only (`WindowCache`).

Taking back tokens of the last forward pass (`retract`), row by row, is for drafts that were wrong: cheaper than a snapshot of everything.
A cache has to be prepared for it while it is empty.
"""

from __future__ import annotations

from copy import copy
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from hagane.model.linear import stepped
from hagane.model.sequence import slot_mask, visible


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

    def prepare(self, ahead: int) -> None:
        """Be ready to take back up to `ahead` tokens of a forward pass. Called once, while nothing is held."""
        raise NotImplementedError(f"{type(self).__name__} cannot take tokens back")

    def retract(self, num_B: Tensor) -> None:
        """Take back the last `num_B` tokens of each row, all of them of the last forward pass; the lengths go back in `Cache`."""
        raise NotImplementedError(f"{type(self).__name__} cannot take tokens back")


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

    def prepare(self, ahead: int) -> None:
        pass

    def retract(self, num_B: Tensor) -> None:
        pass


class WindowCache(KeyValueCache):
    """Keys and values of the last tokens of each row only: position p is kept in slot p mod capacity, so new tokens overwrite the oldest.

    The capacity is the window, rounded up to whole steps, or the length asked for where that is less. Where the new tokens of one
    forward pass fit beside the window, they are stored first and the slots are read; where they do not (a long prompt), the earliest
    of them still need what the latest overwrite: then the slots as they were and the new tokens are read side by side.
    """

    def __init__(
        self, rows: int, length: int, window: int, key: tuple[int, int], value: tuple[int, int], dtype: torch.dtype, device: torch.device | str | None
    ) -> None:
        super().__init__(rows, min(length, stepped(window)), key, value, dtype, device)
        self.window, self.length = window, length

    def prepare(self, ahead: int) -> None:
        """With so many slots more than the window, tokens that are taken back have overwritten none that is seen again, and are seen by none."""
        capacity = min(self.length, stepped(self.window + ahead))
        self.key_BKLH, self.value_BKLH = (slots.new_zeros((*slots.shape[:2], capacity, slots.shape[3])) for slots in self.tensors())

    @property
    def capacity(self) -> int:
        return self.key_BKLH.shape[2]

    def _fits(self, num_tokens: int) -> bool:
        """Whether all that the earliest new token sees is still there when the latest is stored."""
        assert self.placement is not None
        return self.window + num_tokens - 1 <= self.capacity or self.placement.span <= self.capacity

    def _num_read(self) -> int:
        """Slots up to the longest row, or all."""
        assert self.placement is not None
        return min(self.capacity, self.placement.span)

    def mask(self, real_BT: Tensor, window: int | None) -> Tensor:
        assert self.placement is not None and window == self.window
        start_B, num_tokens = self.placement.start_B, real_BT.shape[1]
        query_BT = start_B[:, None] + torch.arange(num_tokens, device=real_BT.device)
        if self._fits(num_tokens):
            key_BS = self._positions(start_B + real_BT.sum(1).to(start_B.dtype))
        else:
            key_BS = torch.cat((self._positions(start_B), query_BT), dim=1)
        # padding sees everything: no query may see nothing at all
        return visible(query_BT, key_BS, window) & (key_BS >= 0)[:, None] | (real_BT == 0)[:, :, None]

    def _positions(self, length_B: Tensor) -> Tensor:
        """The position of the token in every slot that is read (rows, slots) when rows hold so many tokens; negative where there is none."""
        slot_L = torch.arange(self._num_read(), device=length_B.device)
        return slot_L + (length_B[:, None] - 1 - slot_L).div(self.capacity, rounding_mode="floor") * self.capacity

    def append(self, key_BKTH: Tensor, value_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        """Store what stays of the new tokens; return the keys and values that `mask` speaks of."""
        assert self.placement is not None, "the decoder places tokens before its layers run"
        fits, num_read, new = self._fits(key_BKTH.shape[2]), self._num_read(), (key_BKTH, value_BKTH)
        if not fits:
            read = [torch.cat((slots[:, :, :num_read].to(tokens.dtype), tokens), dim=2) for slots, tokens in zip(self.tensors(), new, strict=True)]
        row, time, position, start_B, _ = self.placement
        # of two tokens for one slot only the later: which of them an indexed write leaves is not defined
        end_B = start_B + torch.zeros_like(start_B).index_add(0, row, torch.ones_like(row))
        kept = position >= end_B[row] - self.capacity
        row, time, slot = row[kept], time[kept], position[kept] % self.capacity
        self.key_BKLH[row, :, slot] = key_BKTH[row, :, time].to(self.key_BKLH.dtype)
        self.value_BKLH[row, :, slot] = value_BKTH[row, :, time].to(self.value_BKLH.dtype)
        if fits:
            read = [slots[:, :, :num_read].to(tokens.dtype) for slots, tokens in zip(self.tensors(), new, strict=True)]
        return read[0], read[1]

    def snapshot(self) -> tuple[Tensor, ...]:
        """Copies: tokens that come later overwrite what earlier lengths would see again."""
        return LayerCache.snapshot(self)

    def rewind(self, saved: tuple[Tensor, ...]) -> None:
        for mine, old in zip(self.tensors(), saved, strict=True):
            mine[:, :, : old.shape[2]] = old
