"""Runs of consecutive words as 64-bit hashes: what near-duplicates and overlaps with evaluation sets are found by.

A word is a run of letters, marks and digits in lower case. In scripts that put no space between words (Han, kana,
Thai, Lao, Khmer, Burmese, Tibetan) every character is a word. All is computed on arrays of code points: a few numpy passes per text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BLOCK = 1 << 20  # characters hashed at a time
_BASE = 0x9E3779B97F4A7C15  # odd, so that its powers have inverses modulo 2^64
# Blocks without spaces between words: Thai and Lao, Tibetan, Burmese, Khmer, kana, Han and its extensions
_UNSPACED = ((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x32FFF))
_LIMIT = 0x33000  # no letters are assigned beyond it: the tables stay small
_OTHER, _LETTER, _WHOLE = np.uint8(0), np.uint8(1), np.uint8(2)
_WORD_CATEGORIES = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No"))


@cache
def _kinds() -> NDArray[np.uint8]:
    """By code point: not part of a word, part of one, or a word of its own."""
    kinds = np.zeros(_LIMIT + 1, np.uint8)
    kinds[:_LIMIT] = np.fromiter((unicodedata.category(chr(point)) in _WORD_CATEGORIES for point in range(_LIMIT)), np.uint8, _LIMIT)
    for first, last in _UNSPACED:
        kinds[first : last + 1] *= _WHOLE
    return kinds


@cache
def powers(size: int) -> tuple[Hashes, Hashes]:
    """_BASE and its inverse to the powers 0 .. size-1, modulo 2^64. `size` is a power of two, so that few are kept."""
    inverse = pow(_BASE, -1, 1 << 64)
    found = []
    for base in (_BASE, inverse):
        factors = np.full(size, base, np.uint64)
        factors[0] = 1
        found.append(np.multiply.accumulate(factors))
    return found[0], found[1]


def mix(value: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele et al. 2014): every bit of the input moves every bit of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def lowered(text: str) -> str:
    """Lower case, character by character, so that every one stays in its place (the few that would become two stay as they are)."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(low if len(low := character.lower()) == 1 else character for character in text)


def _split(text: str) -> tuple[NDArray[np.uint32], NDArray[np.bool_], NDArray[np.intp]]:
    """Code points, which of them are inside words, and where words begin."""
    points = np.frombuffer(lowered(text).encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[np.minimum(points, _LIMIT)]
    inside = kinds != _OTHER
    starts = inside.copy()
    starts[1:] &= (kinds[1:] == _WHOLE) | (kinds[1:] != kinds[:-1])
    return points, inside, np.flatnonzero(starts)


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """(place, part) of a text cut between words into parts of at most BLOCK characters, so that a book takes no more memory than a chapter."""
    start = 0
    while len(text) - start > BLOCK:
        end = max(text.rfind(" ", start, start + BLOCK), text.rfind("\n", start, start + BLOCK)) + 1
        end = end if end > start else start + BLOCK  # no space in so much text: a script without spaces, or no words
        yield start, text[start:end]
        start = end
    yield start, text[start:]


def word_starts(text: str) -> NDArray[np.intp]:
    """The place of the first character of every word, in order."""
    return np.concatenate([_split(part)[2] + place for place, part in _blocks(text)])


def word_hashes(text: str) -> Hashes:
    """A hash per word, in order."""
    return np.concatenate([_block_hashes(part) for _, part in _blocks(text)])


def _block_hashes(text: str) -> Hashes:
    points, inside, first = _split(text)
    if not len(first):
        return np.zeros(0, np.uint64)
    power, inverse = powers(1 << len(points).bit_length())
    # a polynomial of the characters of a word: a difference of prefix sums, moved to the power 0
    terms = np.where(inside, (points + np.uint32(1)).astype(np.uint64) * power[: len(points)], np.uint64(0))
    sums = np.zeros(len(points) + 1, np.uint64)
    np.cumsum(terms, out=sums[1:])
    last = np.append(first[1:], len(points))  # what lies between a word's end and the next start adds nothing
    return mix((sums[last] - sums[first]) * inverse[first])


def shingles(words: Hashes, length: int) -> Hashes:
    """A hash per run of `length` consecutive words, in order; none where there are fewer."""
    count = len(words) - length + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for offset in range(length):
        total = mix(total + words[offset : offset + count] + np.uint64(offset + 1))
    return total
