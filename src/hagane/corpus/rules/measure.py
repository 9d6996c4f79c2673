"""What is counted of every document, so that a language's own text can say what is unusual: lines, words, signs, repetition.

All is computed on the bytes of UTF-8 of many documents at once. A byte of 128 or more counts as a letter: what that means differs from
script to script, which is why a document is only ever compared with others of its language (`fences.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hagane.corpus.shingles import Hashes, mix, powers

Bytes = NDArray[np.uint8]

RAW = (
    "bytes", "printed", "letters", "digits", "signs", "words", "single_letters", "mixed", "lines", "list_lines", "cut_lines", "repeated",
    "packed_from", "packed_to",
)  # fmt: skip
_PLACE = {name: index for index, name in enumerate(RAW)}
BLOCK = 1 << 18  # bytes looked at together: their 64-bit terms stay in the cache
WINDOW = 1 << 12  # bytes packed at a time, so that long documents do not look more repetitive than short ones
WINDOWS = 16  # of a document, spread over it
MIN_LINE = 24  # bytes of a line that may be told from another by its hash: shorter ones are "Example:" and "}"
MIN_PRINTED = 256  # bytes without white space: of less text shares say nothing
MIN_PACKED = 1 << 10
_PROSE_SIGNS = b".,;:!?'\"()-"
_UNDERLINES = b"=-~^*_+\"'."
_LIST_SIGNS = b"-*+|0123456789"


@dataclass(frozen=True)
class Feature:
    """A number per document, and on which side of its language it is suspect; `least` is the smallest spread that a language may have.

    Shares of 0 to 1, or natural logarithms of lengths in bytes.
    """

    name: str
    rule: str
    side: Literal["low", "high"]
    least: float
    what: str


# Where a document is beyond several fences the first is named. Lines that differ in digits only count as repeated: tables are told before.
FEATURES = (
    Feature("list_lines", "lists", "high", 0.1, "share of lines that begin with a list mark, a bar or a digit"),
    Feature("digits", "lists", "high", 0.03, "share of digits"),
    Feature("line_length", "lists", "low", 0.25, "logarithm of the mean length of a line"),
    Feature("packed", "repetition", "low", 0.04, "size after packing (LZ4, windows of 4 KiB) over size before"),
    Feature("repeated_lines", "repetition", "high", 0.06, "share of the text in lines that the document had before"),
    Feature("signs", "signs", "high", 0.02, "share of signs that are not those of prose"),
    Feature("single_letters", "broken_text", "high", 0.02, "share of words of one letter"),
    Feature("mixed_words", "broken_text", "high", 0.02, "changes from small letter to capital, and digits between Latin letters, per word"),
    Feature("word_length_low", "broken_text", "low", 0.1, "logarithm of the mean length of a word"),
    Feature("word_length_high", "broken_text", "high", 0.1, "the same"),
    Feature("cut_lines", "cut_lines", "high", 0.1, "share of lines that end in an ellipsis"),
)


def features(raw_DR: NDArray[np.float64]) -> NDArray[np.float64]:
    """(documents, FEATURES) of the sums of RAW; NaN where there is too little text to say."""
    raw = {name: raw_DR[:, index] for name, index in _PLACE.items()}
    one = np.float64(1)
    enough = raw["printed"] >= MIN_PRINTED
    word_length = np.log(np.maximum(raw["letters"], one) / np.maximum(raw["words"], one))
    columns = {
        "packed": np.where(raw["packed_from"] >= MIN_PACKED, raw["packed_to"] / np.maximum(raw["packed_from"], one), np.nan),
        "repeated_lines": raw["repeated"] / np.maximum(raw["bytes"], one),
        "list_lines": raw["list_lines"] / np.maximum(raw["lines"], one),
        "digits": raw["digits"] / np.maximum(raw["printed"], one),
        "line_length": np.log(np.maximum(raw["printed"], one) / np.maximum(raw["lines"], one)),
        "signs": raw["signs"] / np.maximum(raw["printed"], one),
        "single_letters": raw["single_letters"] / np.maximum(raw["words"], one),
        "mixed_words": raw["mixed"] / np.maximum(raw["words"], one),
        "word_length_low": word_length,
        "word_length_high": word_length,
        "cut_lines": raw["cut_lines"] / np.maximum(raw["lines"], one),
    }
    found: NDArray[np.float64] = np.stack([np.where(enough, columns[feature.name], np.nan) for feature in FEATURES], 1)
    return found


class Lines(NamedTuple):
    """Lines of running text, at least MIN_LINE bytes long: their hash, the row they are in, and their place there (first byte, byte after the last)."""

    hash_L: Hashes
    row_L: NDArray[np.int64]
    start_L: NDArray[np.int64]
    end_L: NDArray[np.int64]


def measure(texts: pa.StringArray) -> tuple[NDArray[np.float64], Lines]:
    """(rows, RAW) counts, and the lines of all rows. `texts` has no nulls."""
    raw_PR = np.zeros((len(texts), len(RAW)))
    found: list[Lines] = []
    for first, last, data_N, offset_P in _blocks(texts):
        lines = _lines(data_N, offset_P)
        _count_lines(raw_PR[first:last], data_N, lines)
        _count_bytes(raw_PR[first:last], data_N, offset_P)
        start_P = offset_P[:-1]
        long = (lines.end_L - lines.start_L >= MIN_LINE) & _running(data_N, lines, offset_P)
        row_L = lines.row_L[long]
        found.append(Lines(lines.hash_L[long], row_L + first, lines.start_L[long] - start_P[row_L], lines.end_L[long] - start_P[row_L]))
    if not found:
        return raw_PR, Lines(np.zeros(0, np.uint64), *(np.zeros(0, np.int64) for _ in range(3)))
    return raw_PR, Lines(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _blocks(texts: pa.StringArray) -> Iterator[tuple[int, int, Bytes, NDArray[np.int64]]]:
    """(first row, row after the last, their bytes, where rows begin and end in them), about BLOCK bytes at a time."""
    _, offsets, data = texts.buffers()
    offset_P = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    bytes_N = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    first = 0
    while first < len(texts):
        last = int(np.searchsorted(offset_P, offset_P[first] + BLOCK, side="right")) - 1
        last = min(max(last, first + 1), len(texts))
        if offset_P[last] > offset_P[first]:
            yield first, last, bytes_N[offset_P[first] : offset_P[last]], offset_P[first : last + 1] - offset_P[first]
        first = last


@cache
def _terms() -> Hashes:
    """A number per byte: white space is nothing and every digit the same, so that lines that differ in a date or a count are alike."""
    terms = mix(np.arange(1, 257, dtype=np.uint64))
    terms[np.frombuffer(b" \t\r\n\f\v", np.uint8)] = 0
    terms[np.frombuffer(b"0123456789", np.uint8)] = terms[ord("0")]
    return terms


def _lines(data_N: Bytes, offset_P: NDArray[np.int64]) -> Lines:
    """All lines that are not empty, without white space around them."""
    begins = np.zeros(len(data_N) + 1, bool)
    begins[1:] = data_N == 10
    begins[offset_P] = True
    start_L = np.flatnonzero(begins[:-1])
    stop_L = np.append(start_L[1:], len(data_N))  # one beyond the line's end, its line feed included where it has one
    row_L = np.searchsorted(offset_P, start_L, side="right") - 1
    # a polynomial of the bytes of a line, moved to the power 0 at its first printed byte; reduceat is a sum from each start to the next
    power, inverse = powers(1 << len(data_N).bit_length())
    sums = np.add.reduceat(_terms()[data_N] * power[: len(data_N)], start_L)
    first_L, end_L = start_L.copy(), stop_L.copy()
    space = data_N <= 32
    moving = np.flatnonzero(space[first_L])
    while len(moving):
        first_L[moving] += 1
        moving = moving[first_L[moving] < stop_L[moving]]
        moving = moving[space[first_L[moving]]]
    moving = np.flatnonzero(space[end_L - 1])
    while len(moving):
        end_L[moving] -= 1
        moving = moving[end_L[moving] > first_L[moving]]
        moving = moving[space[end_L[moving] - 1]]
    printed = np.flatnonzero(first_L < end_L)
    hashes = mix(sums[printed] * inverse[first_L[printed]])
    return Lines(hashes, row_L[printed], first_L[printed], end_L[printed])


def _running(data_N: Bytes, lines: Lines, offset_P: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which lines are neither code (fenced, or indented by four and more), nor headings and what underlines them, rows of tables, numbered steps
    or openings that end in a colon.

    Such a line may well be in many documents without being boilerplate: `2. Choose the action New.`
    """
    first_L, row_L = lines.start_L, lines.row_L
    begins = data_N[first_L]
    second, third = data_N[np.minimum(first_L + 1, len(data_N) - 1)], data_N[np.minimum(first_L + 2, len(data_N) - 1)]
    fence = ((begins == 96) | (begins == 126)) & (begins == second) & (begins == third) & (lines.end_L - first_L >= 3)
    fences = np.cumsum(fence)
    before = np.concatenate([np.zeros(1, np.int64), fences])[np.searchsorted(row_L, row_L)]  # those of earlier rows
    fenced = ((fences - before) % 2 == 1) | fence
    indent = [data_N[np.maximum(first_L - back, 0)] for back in (1, 2, 3, 4)]
    room_L = first_L - offset_P[row_L]
    spaces = (indent[0] == 32) & (indent[1] == 32) & (indent[2] == 32) & (indent[3] == 32)
    indented = ((indent[0] == 9) & (room_L >= 1)) | (spaces & (room_L >= 4))
    dots = [(mark == ord(".")) | (mark == ord(")")) for mark in (second, third)]
    digits = [(mark - np.uint8(48)) < 10 for mark in (begins, second)]
    steps = digits[0] & (dots[0] | (digits[1] & dots[1]))
    rule = np.isin(begins, np.frombuffer(_UNDERLINES, np.uint8)) & (begins == second) & (begins == third) & (lines.end_L - first_L >= 3)
    heading = np.concatenate([rule[1:] & (row_L[1:] == row_L[:-1]), np.zeros(min(1, len(rule)), bool)])
    opening = data_N[lines.end_L - 1] == ord(":")
    running: NDArray[np.bool_] = ~steps & ~rule & ~heading & ~opening & ~fenced & ~indented & (begins != ord("|")) & (begins != ord("#"))
    return running


def _count_lines(raw_PR: NDArray[np.float64], data_N: Bytes, lines: Lines) -> None:
    """Add what is known of whole lines to the counts of their rows."""
    hash_L, row_L, first_L, end_L = lines
    rows = len(raw_PR)

    def add(name: str, chosen: NDArray[np.bool_], weight: NDArray[np.int64] | None = None) -> None:
        raw_PR[:, _PLACE[name]] += np.bincount(row_L[chosen], weight[chosen] if weight is not None else None, minlength=rows)

    add("lines", np.ones(len(row_L), bool))
    begins = data_N[first_L]
    second, third = data_N[np.minimum(first_L + 1, len(data_N) - 1)], data_N[np.minimum(first_L + 2, len(data_N) - 1)]
    marked = np.isin(begins, np.frombuffer(_LIST_SIGNS, np.uint8))
    # bullet U+2022, middle dot U+00B7, geometric shapes U+25xx
    marked |= (begins == 0xE2) & ((second == 0x80) & (third == 0xA2) | (second == 0x96) | (second == 0x97))
    marked |= (begins == 0xC2) & (second == 0xB7)
    add("list_lines", marked)
    tail = [data_N[np.maximum(end_L - back, first_L)] for back in (1, 2, 3)]
    dots = (tail[0] == 46) & (tail[1] == 46) & (tail[2] == 46)
    add("cut_lines", (dots | (tail[0] == 0xA6) & (tail[1] == 0x80) & (tail[2] == 0xE2)) & (end_L - first_L >= MIN_LINE))
    order = np.lexsort((hash_L, row_L))
    again = np.zeros(len(order), bool)
    again[order[1:]] = (hash_L[order[1:]] == hash_L[order[:-1]]) & (row_L[order[1:]] == row_L[order[:-1]])
    add("repeated", again, end_L - first_L)


def _count_bytes(raw_PR: NDArray[np.float64], data_N: Bytes, offset_P: NDArray[np.int64]) -> None:
    """Add the counts of bytes and of neighbouring bytes, and how well windows of the text can be packed."""
    lower = (data_N - np.uint8(97)) < 26
    upper = (data_N - np.uint8(65)) < 26
    ascii = lower | upper
    letter = ascii | (data_N >= 128)
    digit = (data_N - np.uint8(48)) < 10
    printed = data_N > 32
    sign = printed & ~letter & ~digit
    for mark in _PROSE_SIGNS:
        sign &= data_N != mark
    edge = np.zeros(1, bool)
    before, after = np.concatenate([edge, letter[:-1]]), np.concatenate([letter[1:], edge])
    first_P, last_P = offset_P[:-1][np.diff(offset_P) > 0], offset_P[1:][np.diff(offset_P) > 0] - 1
    before[first_P] = False
    after[last_P] = False
    starts = letter & ~before
    mixed = np.zeros(len(data_N), bool)  # a digit between Latin letters; between those of a script without spaces it is an ordinary number
    mixed[1:-1] = digit[1:-1] & ascii[:-2] & ascii[2:]
    mixed[1:] |= upper[1:] & lower[:-1]
    mixed[first_P] = False
    mixed[last_P] &= ~digit[last_P]  # its other neighbour is in the next row
    masks = {"printed": printed, "letters": letter, "digits": digit, "signs": sign, "words": starts, "single_letters": starts & ~after, "mixed": mixed}
    count = np.count_nonzero
    for row, (start, end) in enumerate(zip(offset_P[:-1].tolist(), offset_P[1:].tolist())):
        counts = raw_PR[row]
        counts[0] += end - start
        for name, mask in masks.items():
            counts[_PLACE[name]] += count(mask[start:end])
        if end - start >= MIN_PACKED:
            step = max(WINDOW, (end - start) // WINDOWS)
            for begin in range(start, end - MIN_PACKED + 1, step):
                window = data_N[begin : min(begin + WINDOW, end)]
                counts[-2] += len(window)
                counts[-1] += pa.compress(window, codec="lz4_raw", asbytes=False).size
