"""Packing: which stretches of a token stream make up a row of fixed length. Computed once, in `encode`.

`stream_rows` cuts running text into windows that overlap by one token, so that every token but the first is a target
once. `whole_rows` puts whole conversations together by best-fit decreasing (Ding et al. 2024, "Fewer truncations
improve language modeling"): none is split. A segment of L tokens gives L-1 positions of input and target.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hagane.errors import DataError


@dataclass(frozen=True)
class Rows:
    """Row r is segments `starts_R1[r] : starts_R1[r + 1]`; a segment is [start, end) in the token stream."""

    starts_R1: np.ndarray  # int64 [R + 1]
    segments_S2: np.ndarray  # int64 [S, 2]

    @property
    def num_rows(self) -> int:
        return len(self.starts_R1) - 1

    @property
    def num_positions(self) -> int:
        """Positions of input and target in all rows: what is not padding."""
        return int((self.segments_S2[:, 1] - self.segments_S2[:, 0] - 1).sum())

    def row(self, index: int) -> np.ndarray:
        """The [start, end) segments of one row, int64 [n, 2]."""
        return self.segments_S2[self.starts_R1[index] : self.starts_R1[index + 1]]

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, row_starts=self.starts_R1, segments=self.segments_S2)

    @classmethod
    def load(cls, path: Path) -> Rows:
        """Raises DataError when the file is missing or damaged."""
        try:
            with np.load(path) as file:
                return cls(file["row_starts"], file["segments"])
        except FileNotFoundError:
            raise DataError(f"{path} is missing: this shard was not packed for this context length. Run the encode stage again.") from None
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"{path} is damaged ({error}). Run the encode stage again.") from None


@dataclass(frozen=True)
class Packing:
    """Rows, and the documents that could not be put in one: for the caller to count and report."""

    rows: Rows
    over_long: np.ndarray  # int64, indices of documents with more than context + 1 tokens
    too_short: np.ndarray  # int64, indices of documents with fewer than two tokens: nothing to predict


def stream_rows(num_tokens: int, context: int) -> Rows:
    """Windows of context + 1 tokens overlapping by one. The last one is shorter (padded when read), so that no token is lost."""
    start_R = np.arange(0, max(num_tokens - 1, 0), context, dtype=np.int64)
    end_R = np.minimum(start_R + context + 1, num_tokens)
    return Rows(np.arange(len(start_R) + 1, dtype=np.int64), np.stack([start_R, end_R], axis=1))


def whole_rows(documents: np.ndarray, context: int) -> Packing:
    """Pack whole documents, given by the offsets where they start plus the end of the last (int64 [D + 1])."""
    length_D = np.diff(documents)
    over_long = np.flatnonzero(length_D > context + 1)
    too_short = np.flatnonzero(length_D < 2)
    fits = np.flatnonzero((length_D >= 2) & (length_D <= context + 1))
    order = fits[np.argsort(-length_D[fits], kind="stable")]
    contents = _best_fit(order.tolist(), (length_D[order] - 1).tolist(), context)
    flat = np.fromiter((document for row in contents for document in row), dtype=np.int64)
    starts_R1 = np.zeros(len(contents) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in contents], out=starts_R1[1:])
    return Packing(Rows(starts_R1, np.stack([documents[flat], documents[flat + 1]], axis=1)), over_long, too_short)


def _best_fit(documents: list[int], sizes: list[int], capacity: int) -> list[list[int]]:
    """Each document goes to the fullest row it fits in; sizes come in decreasing order."""
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the room they have left
    has_room = 0  # bit r is set when with_room[r] is not empty
    for document, size in zip(documents, sizes):
        candidates = has_room >> size
        if candidates:
            room = size + (candidates & -candidates).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                has_room &= ~(1 << room)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(document)
        with_room[room - size].append(row)
        has_room |= 1 << (room - size)
    return rows
