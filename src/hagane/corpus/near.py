"""Near-duplicates: documents that share most of their runs of five words, found without comparing every pair.

MinHash (Broder 1997) in its one-permutation form (Li et al. 2012) with optimal densification (Shrivastava 2017): one hash per
shingle, its high bits choose a bin, the smallest hash of a bin is the bin's value; the share of equal bins of two documents estimates
the Jaccard similarity of their sets of shingles. Locality-sensitive hashing compares only documents that agree in a whole band of
bins: 32 bands of 8 find a pair of similarity 0.8 with probability 0.997. What the estimate confirms is an edge; of every
connected component the first document is kept, in the order in which exact duplicates are decided.

Bounded memory: 512 bytes per document lie in files, a band takes 16 bytes of memory per document at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hagane.corpus.shingles import Hashes, mix, shingles, word_hashes

SHINGLE_WORDS = 5
BINS = 256
ROWS = 8  # bins of a band
FEWEST = 8  # shingles: of less text the estimate says nothing
_BLOCK = 1 << 16  # pairs compared at a time
_ATTEMPTS = 32  # of all empty bins to find a filled one, at once: a text of a few lines needs as many

Signatures = NDArray[np.uint16]


def signature(text: str) -> Signatures:
    """(BINS,) of a document. Texts of fewer than FEWEST shingles have all zeros, which is like nothing."""
    return signature_of(shingles(word_hashes(text), SHINGLE_WORDS))


def signature_of(hashes: Hashes) -> Signatures:
    """The same of shingles already hashed."""
    if len(hashes) < FEWEST:
        return np.zeros(BINS, np.uint16)
    ordered = np.sort(hashes)
    bins = (ordered >> np.uint64(56)).astype(np.intp)  # the high 8 bits: one of BINS
    first = np.searchsorted(bins, np.arange(BINS))
    filled = np.zeros(BINS, bool)
    filled[bins] = True
    values = np.zeros(BINS, np.uint64)
    values[filled] = ordered[first[filled]]
    # An empty bin borrows from one chosen at random, the same one in every document where that is filled (Shrivastava 2017, alg. 1).
    empty, attempt = np.flatnonzero(~filled), 1
    source = np.arange(BINS)
    while len(empty):
        chosen_AE = _choices(attempt)[:, empty]
        found_AE = filled[chosen_AE]
        first_E = found_AE.argmax(0)
        every = np.arange(len(empty))
        found = found_AE[first_E, every]
        source[empty[found]] = chosen_AE[first_E, every][found]
        empty, attempt = empty[~found], attempt + _ATTEMPTS
    # 16 bits of a mix of value and bin: two different shingles agree by chance once in 65,535; zero is kept for "nothing"
    mixed = mix(values[source] ^ np.arange(BINS).astype(np.uint64))
    return (mixed % np.uint64(65535)).astype(np.uint16) + np.uint16(1)


@functools.cache
def _choices(attempt: int) -> NDArray[np.intp]:
    """(_ATTEMPTS, BINS) of which bin each bin would borrow from in this attempt and those after it."""
    bins = np.arange(BINS, dtype=np.uint64)
    return np.stack([(mix(bins + np.uint64(number << 16)) % np.uint64(BINS)).astype(np.intp) for number in range(attempt, attempt + _ATTEMPTS)])


def similarity(first_PB: Signatures, second_PB: Signatures) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of pairs (P, BINS): standard error sqrt(J (1 - J) / 256), more for short texts."""
    equal: NDArray[np.float64] = (first_PB == second_PB).mean(1)
    return equal


class Signed(NamedTuple):
    """Where the signatures of some documents stand: a .npy array (rows, BINS), and the row of each document."""

    path: Path
    row_D: NDArray[np.int64]


class _Table:
    """The signatures of all documents, left in their files."""

    def __init__(self, files: Sequence[Signed]) -> None:
        self._maps: list[Signatures] = [np.load(file.path, mmap_mode="r") for file in files]
        self._rows = [file.row_D for file in files]
        self._offsets = np.cumsum([0] + [len(file.row_D) for file in files])

    def column(self, first: int, count: int) -> Signatures:
        """(documents, count) of all documents: some of their bins."""
        parts = [rows_RB[row_D, first : first + count] for rows_RB, row_D in zip(self._maps, self._rows, strict=True)]
        return np.concatenate(parts) if parts else np.zeros((0, count), np.uint16)

    def rows(self, documents: NDArray[np.int64]) -> Signatures:
        """(len(documents), BINS), read file by file."""
        found = np.empty((len(documents), BINS), np.uint16)
        file_D = np.searchsorted(self._offsets, documents, side="right") - 1
        for file in np.unique(file_D):
            here = np.flatnonzero(file_D == file)
            found[here] = self._maps[file][self._rows[file][documents[here] - self._offsets[file]]]
        return found


def clusters(
    files: Sequence[Signed],
    keep_D: NDArray[np.bool_],
    threshold: float,
    rank_D: NDArray[np.int64] | None = None,
    on_share: Callable[[float], None] = lambda share: None,
) -> NDArray[np.int64]:
    """For every document the first document (by rank, then in order) of its cluster; itself where nothing is like it.

    The documents are those of `files` in their order; those with `keep_D` false take no part. `on_share` is told how much is done.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    table = _Table(files)
    order = np.arange(len(keep_D)) if rank_D is None else np.argsort(rank_D, kind="stable")
    taking_part = order[(keep_D & (table.column(0, 1)[:, 0] != 0))[order]]
    edges = [np.zeros((0, 2), np.int64)]
    for band in range(BINS // ROWS):
        keys = _keys(table.column(band * ROWS, ROWS)[taking_part])
        edges.append(_confirmed(_candidates(keys, taking_part), table, threshold))
        on_share((band + 1) * ROWS / BINS)
    pairs = np.unique(np.concatenate(edges), axis=0)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(keep_D), len(keep_D)))
    _, label_D = connected_components(graph, directed=False)
    _, first_L, inverse_D = np.unique(label_D[order], return_index=True, return_inverse=True)  # the first of a label is the smallest index
    found = np.empty(len(keep_D), np.int64)
    found[order] = order[first_L[inverse_D]]
    return found


def _keys(band_DR: Signatures) -> Hashes:
    """One 64-bit key per document of a band's 8 x 16 bits."""
    halves_D2 = np.ascontiguousarray(band_DR).view(np.uint64)
    return mix(mix(halves_D2[:, 0]) + halves_D2[:, 1])


def _candidates(keys: Hashes, documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (P, 2) with the same key: each document with the first of its bucket and with the one before it, earlier one first."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    if not len(same):
        return np.zeros((0, 2), np.int64)
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    head = np.maximum.accumulate(np.where(new, np.arange(len(ordered)), 0))
    places = np.concatenate([np.stack([head[same], same], 1), np.stack([same - 1, same], 1)])
    return np.unique(documents[order[places]], axis=0)


def _confirmed(pairs: NDArray[np.int64], table: _Table, threshold: float) -> NDArray[np.int64]:
    """The pairs whose whole signatures agree in at least `threshold` of their bins."""
    good = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(pairs), _BLOCK):
        some = pairs[start : start + _BLOCK]
        good.append(some[similarity(table.rows(some[:, 0]), table.rows(some[:, 1])) >= threshold])
    return np.concatenate(good)

