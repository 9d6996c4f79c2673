"""Boilerplate: lines that stand in many documents of one origin, such as notices, menus and footers. They are cut out of all of them.

An origin is a web host, the part of a record's `source` before its colon, or else the source of the recipe. Lines are compared by a hash
that ignores white space and takes all digits for equal, so that "Last changed on 3 May 2021" is one line. A line counts once per
document. It is boilerplate when it is in FEWEST documents of its origin and in SHARE of them (or in MANY), and is on average
no more than half of a document: what a document consists of is its content, and near-duplicates are another rule's business.

Bounded memory: 16 bytes per line lie in files, sorted by hash, and are counted AT_ONCE lines at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hagane.corpus import arrow
from hagane.corpus.rules.measure import Lines, measure
from hagane.corpus.shingles import Hashes, mix

FEWEST = 6  # documents
SHARE = 0.04  # of the documents of its origin
MANY = 1000  # documents are enough however large the origin is
MOST = 0.5  # of its documents, on average
AT_ONCE = 1 << 19


class LineFile(NamedTuple):
    """The lines of some documents: a .npy (L, 2) of hash and place (document of the file, bytes of the line), sorted by hash.

    One entry for each line of a document, its bytes added up where it stands there several times.
    """

    path: Path
    number_D: NDArray[np.int64]  # the documents that are meant, as the file numbers them
    origin_D: NDArray[np.int64]
    bytes_D: NDArray[np.int64]


@cache
def origin_hash(origin: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(origin.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"))


class Writer:
    """Collects the lines of documents as they are set aside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hashes: list[Hashes] = []
        self._places: list[NDArray[np.uint64]] = []

    def add(self, lines: Lines, document_P: NDArray[np.int64], origin_P: Hashes) -> None:
        """Lines of some pieces; `document_P` and `origin_P` are of these pieces."""
        self._hashes.append(mix(lines.hash_L ^ origin_P[lines.row_L]))
        self._places.append((document_P[lines.row_L].astype(np.uint64) << np.uint64(32)) | (lines.end_L - lines.start_L).astype(np.uint64))

    def close(self) -> None:
        hashes = np.concatenate([np.zeros(0, np.uint64), *self._hashes])
        places = np.concatenate([np.zeros(0, np.uint64), *self._places])
        documents = places >> np.uint64(32)
        order = np.lexsort((documents, hashes))
        hashes, documents, places = hashes[order], documents[order], places[order]
        new = np.ones(len(order), bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (documents[1:] != documents[:-1])
        starts = np.flatnonzero(new)
        num_bytes = np.add.reduceat(places & np.uint64(0xFFFFFFFF), starts) if len(starts) else places
        np.save(self.path, np.stack([hashes[starts], (documents[starts] << np.uint64(32)) | num_bytes], 1))


def boilerplate(files: Sequence[LineFile]) -> Hashes:
    """Sorted hashes of the lines that are to go; documents of `files` are those that are kept so far."""
    documents_of = np.bincount(np.concatenate([np.zeros(0, np.int64), *(file.origin_D for file in files)]))
    total = sum(_length(file.path) for file in files)
    parts = max(1, -(-total // AT_ONCE))
    found = [np.zeros(0, np.uint64)]
    for number in range(parts):
        bounds = [(number * 2**64) // parts, ((number + 1) * 2**64) // parts - 1]
        held = [_counted(file, np.uint64(bounds[0]), np.uint64(bounds[1])) for file in files]
        if held:
            hashes, origins, shares = (np.concatenate(column) for column in zip(*held, strict=True))
            found.append(_frequent(hashes, origins, shares, documents_of))
    return np.concatenate(found)


def _length(path: Path) -> int:
    return len(np.load(path, mmap_mode="r"))


def _counted(file: LineFile, low: np.uint64, high: np.uint64) -> tuple[Hashes, NDArray[np.int64], NDArray[np.float64]]:
    """Hash, origin and share of its document of every line between two hashes."""
    table_L2 = np.load(file.path, mmap_mode="r")
    first, last = np.searchsorted(table_L2[:, 0], low), np.searchsorted(table_L2[:, 0], high, side="right")
    hashes, document_L, bytes_L = _columns(table_L2[first:last], file)
    known = document_L >= 0
    document_L = document_L[known]
    return hashes[known], file.origin_D[document_L], bytes_L[known] / np.maximum(1, file.bytes_D[document_L])


def _columns(table_L2: NDArray[np.uint64], file: LineFile) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """Hash, document among those that are meant (-1: none of them) and bytes of each line."""
    numbers = (table_L2[:, 1] >> np.uint64(32)).astype(np.int64)
    place = np.full(max(int(numbers.max(initial=0)), int(file.number_D.max(initial=0))) + 1, -1, np.int64)
    place[file.number_D] = np.arange(len(file.number_D))
    return np.array(table_L2[:, 0]), place[numbers], (table_L2[:, 1] & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _frequent(hashes: Hashes, origin_L: NDArray[np.int64], share_L: NDArray[np.float64], documents_of: NDArray[np.int64]) -> Hashes:
    distinct, first, inverse, count = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    enough = np.maximum(FEWEST, np.minimum(MANY, SHARE * documents_of[origin_L[first]])) if len(distinct) else np.zeros(0)
    shares = np.bincount(inverse, share_L, minlength=len(distinct))
    chosen: Hashes = distinct[(count >= enough) & (shares <= MOST * count)]
    return chosen


def cut_bytes(file: LineFile, known: Hashes) -> NDArray[np.int64]:
    """How many bytes of each document are boilerplate."""
    hashes, document_L, bytes_L = _columns(np.load(file.path, mmap_mode="r"), file)
    chosen = (document_L >= 0) & is_known(hashes, known)
    return np.bincount(document_L[chosen], bytes_L[chosen], minlength=len(file.number_D)).astype(np.int64)


def is_known(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(hashes), bool)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes
    return found


def without(texts: Sequence[str], origins: Sequence[str], known: Hashes) -> Iterator[tuple[str, list[str]]]:
    """Each text without its lines of boilerplate, and these lines."""
    _, lines = measure(arrow.strings(texts))
    origin_P = np.array([origin_hash(origin) for origin in origins], np.uint64)
    goes = np.flatnonzero(is_known(mix(lines.hash_L ^ origin_P[lines.row_L]), known))
    bounds = np.searchsorted(lines.row_L[goes], np.arange(len(texts) + 1))
    for row, text in enumerate(texts):
        data, start = text.encode(), 0
        kept, cut = [], []
        for line in goes[bounds[row] : bounds[row + 1]]:
            first, last = int(lines.start_L[line]), int(lines.end_L[line])
            kept.append(data[start:first])
            cut.append(data[first:last].decode())
            start = last
            while start < len(data) and data[start] in b" \t\r\n":  # up to the next line, and over the empty ones after it
                start += 1
        kept.append(data[start:])
        yield b"".join(kept).decode(), cut
