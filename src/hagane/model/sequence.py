"""What a mixer may know about where tokens are: positions, documents, window. Nothing else carries them.

A `Sequence` is what the caller gives. The decoder turns it once per micro-step, outside the blocks, into one `View` per
kind of mixer; inside a compiled block positions, documents and windows are tensors, so that none of them is baked in.
"""

from __future__ import annotations

from collections.abc import Sequence as Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

PADDING = -1
"""Document id of tokens that are not there: nobody attends to them, nothing counts them."""


@dataclass(frozen=True)
class Sequence:
    """Positions (B, T) int64 and document ids (B, T) int32. A token sees its own document up to itself, and no other.

    The tokens of a document stand side by side.
    Padding has document -1. With a cache, the tokens are the new ones of every slot, padded on the right.
    """

    position_BT: Tensor
    document_BT: Tensor

    @classmethod
    def plain(cls, rows: int, length: int, device: torch.device | str | None = None) -> Sequence:
        """Every row is one document from position 0."""
        position = torch.arange(length, device=device).expand(rows, length)
        return cls(position, torch.zeros(rows, length, dtype=torch.int32, device=device))

    @classmethod
    def ragged(cls, start_B: Collection[int], num_new_B: Collection[int], length: int, device: torch.device | str | None = None) -> Sequence:
        """Row b is one document whose next `num_new_B[b]` tokens, of `length` given, begin at position `start_B[b]`."""
        offset = torch.arange(length)
        position = torch.tensor(list(start_B))[:, None] + offset
        document = torch.where(offset < torch.tensor(list(num_new_B))[:, None], 0, PADDING).int()
        return cls(position.to(device), document.to(device))

    def to(self, device: torch.device | str) -> Sequence:
        return Sequence(self.position_BT.to(device), self.document_BT.to(device))


class View(NamedTuple):
    """A sequence as one kind of mixer sees it. S is T without a cache, and what the layer's cache returns with one.

    A recurrent mixer, which asks for `first_BT` and has no window, begins anew where `first_BT[b, t] == t` (every document's first
    token, padding too), leaves its state alone where `real_BT` is 0, and in generation reads from its own cache's placement
    which rows begin; nothing else says where documents are.
    """

    cosine_BTR: Tensor | None  # None where the mixer has no rotary positions
    sine_BTR: Tensor | None
    real_BT: Tensor  # float32: 1 where there is a token, 0 for padding
    # who sees whom, in one of two forms; neither for a mixer whose cache has no slots
    first_BT: Tensor | None  # int32: query t sees the keys from this one to itself
    mask_BTS: Tensor | None  # bool: query t may see key s


def visible(query_BT: Tensor, key_BS: Tensor, window: int | None) -> Tensor:
    """Causal and within the window: query position - key position in [0, window)."""
    distance = query_BT[:, :, None] - key_BS[:, None, :]
    mask = distance >= 0
    return mask if window is None else mask & (distance < window)


def document_mask(sequence: Sequence, window: int | None) -> Tensor:
    """Who sees whom in packed rows (B, T, T): same document, causal, within the window. Padding sees padding, so no row is empty."""
    document = sequence.document_BT
    slot_BT = torch.arange(document.shape[1], device=document.device)[None]
    return visible(slot_BT, slot_BT, window) & (document[:, :, None] == document[:, None, :])


def first_visible(sequence: Sequence, window: int | None) -> Tensor:
    """The first key that each query of packed rows sees (B, T) int32: `document_mask` as a number, the tokens between being all visible."""
    document = sequence.document_BT
    slot_T = torch.arange(document.shape[1], dtype=torch.int32, device=document.device)
    begins_BT = torch.ones_like(document, dtype=torch.bool)
    begins_BT[:, 1:] = document[:, 1:] != document[:, :-1]
    first_BT = torch.where(begins_BT, slot_T, 0).cummax(1).values
    return first_BT if window is None else torch.maximum(first_BT, slot_T - (window - 1))


def seen_keys(view: View, span: int) -> Tensor:
    """Who sees whom as a mask (B, T, S), whichever form the view has it in."""
    if view.mask_BTS is not None:
        return view.mask_BTS
    assert view.first_BT is not None
    slot_S = torch.arange(span, device=view.first_BT.device)
    return (slot_S >= view.first_BT[..., None]) & (slot_S <= slot_S[:, None])


def slot_mask(start_B: Tensor, num_tokens: int, span: int, window: int | None) -> Tensor:
    """Who sees whom in a cache (B, T, S): new token t of row b sits in slot start + t and sees the slots up to it."""
    query_BT = start_B[:, None] + torch.arange(num_tokens, device=start_B.device)
    return visible(query_BT, torch.arange(span, device=start_B.device)[None], window)
