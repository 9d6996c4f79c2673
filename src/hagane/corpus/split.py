"""Which documents are held out for evaluation, and which are duplicates: both follow from document hashes alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def first_of_equal(hash_DN: NDArray[np.uint64], rank_D: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for the first document, by rank and then in the order given, of every group with the same hash of N numbers (D, N)."""
    order = np.lexsort((rank_D, *hash_DN.T[::-1]))  # stable: equal hashes stay in order
    ordered = hash_DN[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    first = np.zeros(len(order), bool)
    first[order[new]] = True
    return first


MIN_DOCUMENTS = 4  # an interval by resampling documents needs some
MIN_BYTES = 32_000  # and bits per byte of less text than this is mostly noise
MIN_SHARE = 0.05  # but a small language keeps this much of itself for training, at least 95 %


def choose_held_out(hash_D2: NDArray[np.uint64], bytes_D: NDArray[np.int64], share: float, max_bytes: int) -> NDArray[np.bool_]:
    """Which documents of one language are held out: those whose hash lies below `share` of its range, in the order of their hashes.

    At most `max_bytes` together: what does not fit stays in training. At least one of two documents; where `share` is little
    text, up to 5 % so that a small language can be evaluated, too. Where nothing fits, the shortest is taken (and cut by the
    caller).
    """
    num_documents, num_bytes = len(hash_D2), int(bytes_D.sum())
    held_out = np.zeros(num_documents, bool)
    if num_documents < 2:
        return held_out
    order = np.lexsort((hash_D2[:, 1], hash_D2[:, 0]))
    below = int(np.searchsorted(hash_D2[order, 0], np.uint64(share * 2**63) * np.uint64(2)))
    minimum = max(1, min(MIN_DOCUMENTS, int(num_documents * MIN_SHARE)))
    minimum_bytes = min(MIN_BYTES, int(num_bytes * MIN_SHARE), max_bytes // 2)
    chosen, total = 0, 0
    for rank, document in enumerate(order):
        if (rank >= below and chosen >= minimum and total >= minimum_bytes) or total >= max_bytes or chosen == num_documents - 1:
            break
        if total + bytes_D[document] <= max_bytes:
            held_out[document] = True
            chosen, total = chosen + 1, total + int(bytes_D[document])
    if not chosen:
        held_out[order[np.argmin(bytes_D[order])]] = True
    return held_out
