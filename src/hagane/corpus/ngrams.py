"""A bounded excerpt of a text, and its character n-grams as bucket numbers.

Languages are told apart by the character n-grams they prefer (Cavnar & Trenkle 1994, "N-Gram-Based Text Categorization"). Grams are
hashed into a fixed number of buckets (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"), so that
no list of them is kept.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WINDOW = 256  # characters looked at in one place
WINDOWS = 8  # places in a document: its beginning alone may be a title page or a licence
ORDERS = 4  # n-grams of one to four characters; a word of two letters between its spaces is a four-gram
BUCKET_BITS = 18
NUM_BUCKETS = 1 << BUCKET_BITS
NOTHING = 0  # the bucket that says nothing: what is no gram is put there
_TABLE = 1 << 16
_SPACE = 32
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth, TAOCP 3, section 6.4): spreads over the high bits
_STEP = np.uint64(0xD1342543DE82EF95)


def windows(text: str, count: int = WINDOWS) -> list[str]:
    """At most `count` pieces of `WINDOW` characters, spread evenly over the text from its beginning to its end; all of a short text."""
    if len(text) <= count * WINDOW:
        return [text[start : start + WINDOW] for start in range(0, max(1, len(text)), WINDOW)]
    last = len(text) - WINDOW
    starts = [number * last // (count - 1) for number in range(count)] if count > 1 else [last // 2]
    return [text[start : start + WINDOW] for start in starts]


def grams(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Buckets of all grams of all texts, (positions, `ORDERS`), and where each text starts among the positions.

    Upper case, digits, punctuation and the composition of accents make no difference. Every text has at least one position.
    """
    cleaned = [" " + unicodedata.normalize("NFC", text).casefold() + " " for text in texts]
    code_N = np.frombuffer("".join(cleaned).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
    text_N = np.repeat(np.arange(len(cleaned)), [len(text) for text in cleaned])
    small = code_N < _TABLE
    code_N = np.where(small, _letters()[np.where(small, code_N, _SPACE)], code_N)
    first_N = np.ones(len(code_N), bool)
    first_N[1:] = text_N[1:] != text_N[:-1]
    space_N = code_N == _SPACE
    kept_N = first_N | ~space_N
    kept_N[1:] |= ~space_N[:-1]  # of several spaces the first stays
    code_N, text_N = code_N[kept_N], text_N[kept_N]
    bucket_NK = np.zeros((len(code_N), ORDERS), np.int64)
    hash_N = np.zeros(len(code_N), np.uint64)
    for order in range(1, ORDERS + 1):
        count = len(code_N) - order + 1
        if count <= 0:
            break
        hash_N = hash_N[:count] * _STEP + (code_N[order - 1 :].astype(np.uint64) + np.uint64(order))
        bucket_N = (hash_N * _MULTIPLY >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)
        inside_N = text_N[:count] == text_N[order - 1 :]
        bucket_NK[:count, order - 1] = np.where(inside_N, bucket_N, NOTHING)
    bucket_NK[code_N == _SPACE, 0] = NOTHING
    starts_T = np.searchsorted(text_N, np.arange(len(cleaned)))
    return bucket_NK, starts_T


@lru_cache(maxsize=1)
def _letters() -> NDArray[np.int64]:
    """Code point -> itself for letters and the marks on them, space for everything else. CJK punctuation stays: it tells Chinese from Japanese."""
    table = np.arange(_TABLE, dtype=np.int64)
    for code in range(_TABLE):
        if not 0x3000 <= code < 0xD800 and unicodedata.category(chr(code))[0] not in "LM":
            table[code] = _SPACE
    return table
