"""Excerpts of the labelled documents that reading has set aside: what the classifier learns from, and what it is measured on.

Which documents these are follows from their hashes and the seed alone, so neither the number of processes nor the order of files matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hagane.corpus.ngrams import WINDOW, WINDOWS, windows
from hagane.corpus.parts import SCHEMA, Part

PIECES = 320  # learned from and measured on, per language
TRAIN_CHARACTERS = 500_000  # per language
_HELD_OUT = 4  # one document in so many is measured on
_FEW_DOCUMENTS = 8  # below this the pieces of long documents are what is divided


def sample(parts: Sequence[Part], seed: int) -> tuple[list[str], list[str]]:
    """Excerpts of a language's pieces, to learn from and to measure on: first pieces of documents first, documents in the order of their hashes."""
    key_D = [_mixed(part.hash_D2[:, 0], seed) for part in parts]
    key_P = np.concatenate([key[part.document_P] for key, part in zip(key_D, parts, strict=True)])
    turn_P = np.concatenate([turns(part.document_P) for part in parts])
    part_P = np.repeat(np.arange(len(parts)), [len(part.document_P) for part in parts])
    piece_P = np.concatenate([np.arange(len(part.document_P)) for part in parts])
    order = np.lexsort((part_P, key_P, turn_P))
    new = np.ones(len(order), bool)
    new[1:] = (key_P[order][1:] != key_P[order][:-1]) | (turn_P[order][1:] != turn_P[order][:-1])  # of equal documents one
    chosen = order[new][:PIECES]
    _, rank = np.unique(key_P[chosen], return_inverse=True)
    divided = rank if rank.max(initial=0) + 1 >= _FEW_DOCUMENTS else np.arange(len(chosen))
    measured = divided % _HELD_OUT == 1
    count = max(WINDOWS, TRAIN_CHARACTERS // (WINDOW * max(1, len(chosen))))
    texts = texts_of(parts, part_P[chosen], piece_P[chosen])
    learned = [" ".join(windows(text, count)) for text, held in zip(texts, measured, strict=True) if not held]
    return learned, ["".join(windows(text)) for text, held in zip(texts, measured, strict=True) if held]


def _mixed(hash_D: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Another order of the hashes for every seed; unlike that of the held-out split, which is theirs."""
    mixed: NDArray[np.uint64] = (hash_D ^ np.uint64((seed + 1) * 0x9E3779B97F4A7C15 & (2**64 - 1))) * np.uint64(0xD1342543DE82EF95)
    return mixed


def turns(document_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of each piece within its document."""
    return np.arange(len(document_P)) - np.searchsorted(document_P, document_P)


def texts_of(parts: Sequence[Part], part_N: NDArray[np.int64], piece_N: NDArray[np.int64]) -> list[str]:
    """The text of some pieces; every batch that holds one is read once."""
    texts = [""] * len(part_N)
    for number in np.unique(part_N):
        part, wanted = parts[number], np.flatnonzero(part_N == number)
        row_W = part.row_P[piece_N[wanted]]
        batch_W = np.searchsorted(part.start_B, row_W, side="right") - 1
        for batch, columns in batches(part, ("text",), sorted(set(batch_W.tolist()))):
            for place in np.flatnonzero(batch_W == batch):
                texts[wanted[place]] = columns["text"][int(row_W[place] - part.start_B[batch])].as_py()
    return texts


def batches(part: Part, columns: Sequence[str], numbers: Sequence[int] | None = None) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """(number, columns by name) of some batches of a part's file, or of all."""
    options = pa.ipc.IpcReadOptions(included_fields=[SCHEMA.get_field_index(name) for name in columns])
    with pa.memory_map(str(part.path)) as source:
        reader = pa.ipc.open_file(source, options=options)
        for number in range(len(part.start_B)) if numbers is None else numbers:
            batch = reader.get_batch(number)
            yield number, {name: batch.column(name) for name in columns}
