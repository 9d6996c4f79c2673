"""Held-out text inside documents to train on: near-copies, and longer documents that hold most of a held-out one.

Near-duplicates (`near.py`) are pairs that are alike as wholes; here one may be a small part of the other, so what counts is the
containment of Broder 1997: the share of the one's runs of five words that are in the other. It is estimated from every SAMPLED-th run, chosen by its
hash so that equal runs are chosen in every document ("modulo sketches", same paper), and confirmed on the texts themselves.

Bounded memory: 8 bytes per sampled run lie in files and are read AT_ONCE at a time; only the runs of held-out documents are held.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hagane.corpus.shingles import Hashes

SAMPLED = 8  # one run in so many, a power of two
AT_ONCE = 1 << 20
_SUSPECT = 0.7  # of the share that is asked for: an estimate from 40 runs is off by 0.16 once in twenty
_HELD_PER_RUN = 20  # held-out documents that a run is looked up for: of many copies of one page the first stand for all
_STARTS = ".starts.npy"


class Sketch(NamedTuple):
    """Where the sampled runs of some documents stand: an .npy of runs, another of where each document begins; and the numbers there of those meant."""

    path: Path
    number_D: NDArray[np.int64]


class Writer:
    """Collects the sampled runs of documents as they are set aside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._runs: list[Hashes] = []

    def add(self, runs: Hashes) -> None:
        """The runs of the next document."""
        self._runs.append(np.unique(runs[runs & np.uint64(SAMPLED - 1) == 0]))

    def close(self) -> None:
        np.save(self.path, np.concatenate([np.zeros(0, np.uint64), *self._runs]))
        np.save(self.path.with_suffix(_STARTS), np.cumsum([0] + [len(runs) for runs in self._runs]))


def suspects(files: Sequence[Sketch], share: float, held_D: NDArray[np.float64], train_D: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pairs (P, 2) of a document to train on and a held-out one that may have `share` of its runs in it, or the other way round; in order.

    Documents are those of `files` in their order; `held_D` is the share of each that is held out.
    """
    offsets = np.cumsum([0] + [len(file.number_D) for file in files])
    held = np.flatnonzero(held_D > 0)
    run_S, held_S, held_size = _held_runs(files, offsets, held)
    held_size *= held_D[held]
    found = [np.zeros((0, 2), np.int64)]
    for number, file in enumerate(files):
        own_D = train_D[offsets[number] : offsets[number + 1]]
        if not own_D.any() or not len(run_S):
            continue
        key_M, size_D = _matches(file, own_D, run_S, held_S, len(held))
        key, count = np.unique(key_M, return_counts=True)
        document, which = np.divmod(key, len(held))
        suspect = count >= _SUSPECT * share * np.minimum(size_D[document], held_size[which])
        suspect &= document + offsets[number] != held[which]
        found.append(np.stack([document[suspect] + offsets[number], held[which[suspect]]], 1))
    return np.concatenate(found)


def contained(first: Hashes, second: Hashes) -> float:
    """The share of the runs of one document that are in the other, of the two shares the larger. Runs are unique; 0 where a document has none."""
    least = min(len(first), len(second))
    return len(np.intersect1d(first, second, assume_unique=True)) / least if least else 0.0


def _held_runs(files: Sequence[Sketch], offsets: NDArray[np.int64], held: NDArray[np.int64]) -> tuple[Hashes, NDArray[np.int64], NDArray[np.float64]]:
    """Sorted sampled runs of the held-out documents, which of these each is of, and how many each has."""
    runs, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for number, file in enumerate(files):
        chosen = np.flatnonzero((held >= offsets[number]) & (held < offsets[number + 1]))
        if not len(chosen):
            continue
        table_R, starts = _load(file)
        for which, place in zip(chosen.tolist(), file.number_D[held[chosen] - offsets[number]].tolist(), strict=True):
            own = np.array(table_R[starts[place] : starts[place + 1]])
            runs.append(own)
            numbers.append(np.full(len(own), which))
    run_S, held_S = np.concatenate(runs), np.concatenate(numbers)
    size = np.bincount(held_S, minlength=len(held)).astype(np.float64)
    order = np.lexsort((held_S, run_S))
    return run_S[order], held_S[order], size


def _matches(
    file: Sketch, train_D: NDArray[np.bool_], run_S: Hashes, held_S: NDArray[np.int64], num_held: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`document * num_held + held-out document` for every run that both have, and how many sampled runs each document has."""
    table_R, starts = _load(file)
    document_N = np.full(len(starts) - 1, -1, np.int64)  # by number in the file
    document_N[file.number_D[train_D]] = np.flatnonzero(train_D)
    keys = [np.zeros(0, np.int64)]
    for start in range(0, len(table_R), AT_ONCE):
        runs = np.array(table_R[start : start + AT_ONCE])
        document = document_N[np.searchsorted(starts, np.arange(start, start + len(runs)), side="right") - 1]
        runs, document = runs[document >= 0], document[document >= 0]
        first, last = np.searchsorted(run_S, runs), np.searchsorted(run_S, runs, side="right")
        for turn in range(_HELD_PER_RUN):
            both = np.flatnonzero(first + turn < last)
            if not len(both):
                break
            keys.append(document[both] * num_held + held_S[first[both] + turn])
    return np.concatenate(keys), np.diff(starts)[file.number_D]


def _load(file: Sketch) -> tuple[Hashes, NDArray[np.int64]]:
    """The runs, left in their file, and where each document's begin."""
    return np.load(file.path, mmap_mode="r"), np.load(file.path.with_suffix(_STARTS))
