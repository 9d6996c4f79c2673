"""Evaluation items inside the text to train on: found by runs of thirteen words, and cut out with the paragraph around them.

Thirteen words as in Brown et al. 2020 ("Language models are few-shot learners", appendix C). Items shorter than that cannot be told
from ordinary text and are not looked for. A document that is mostly evaluation items is dropped whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hagane.corpus.blocks import Trace, blocks
from hagane.corpus.inputs import Input, list_inputs
from hagane.corpus.readers import read
from hagane.corpus.records import CorruptError, EndsTooSoonError, Record
from hagane.corpus.shingles import Hashes, shingles, word_hashes, word_starts
from hagane.errors import DataError
from hagane.recipe.schema import Source

RUN_WORDS = 13
MOST_CUT = 0.5  # of a document's characters: with more of it gone, what is left is not a text


def excluded_source(paths: Sequence[str]) -> list[Source]:
    """The evaluation files as a source, for listing and fingerprints; none where no path is given."""
    return [Source(name="evaluation", path=tuple(paths))] if paths else []


def evaluation_runs(paths: Sequence[str]) -> Hashes:
    """Sorted hashes of every run of RUN_WORDS words in every string of the files. Raises DataError for what cannot be read."""
    found = [shingles(word_hashes(text), RUN_WORDS) for item in list_inputs(excluded_source(paths)).inputs for text in _strings(item)]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)


def _strings(item: Input) -> Iterator[str]:
    """All strings of a file: of JSON and parquet the values of whatever fields they are in."""
    try:
        if item.kind == "parquet":
            with pq.ParquetFile(item.path) as file:
                for batch in file.iter_batches(256):
                    yield from _values(batch.to_pylist())
            return
        if item.kind not in ("text", "jsonl"):
            yield from (found.text for found in read(item, Trace()) if isinstance(found, Record))
            return
        content = b"".join(blocks(item, Trace())).decode("utf-8-sig")
        if item.kind == "text":
            yield content
            return
        for number, line in enumerate(content.split("\n"), 1):
            if line.strip():
                try:
                    yield from _values(json.loads(line))
                except json.JSONDecodeError as error:
                    raise DataError(f"{item.path}, line {number:,} is not JSON ({error.msg}). Mend it, or take the file out of corpus.exclude.") from None
    except (EndsTooSoonError, CorruptError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise DataError(f"{item.path} of corpus.exclude is damaged ({str(error) or 'it ends too soon'}). Fetch it again, or take it out.") from None


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _values(item)
    elif isinstance(value, dict):
        yield from _values(list(value.values()))


@cache
def load_runs(path: Path) -> Hashes:
    """What `evaluation_runs` found and `np.save` wrote: mapped into memory once per process."""
    runs: Hashes = np.load(path, mmap_mode="r")
    return runs


def without_overlap(text: str, known: Hashes, words: Hashes | None = None) -> str | None:
    """The text without the paragraphs (lines) that share a run of words with `known`; the same object where none does, None where most would go.

    `words` are the hashes of its words where these are known.
    """
    runs = shingles(word_hashes(text) if words is None else words, RUN_WORDS)
    if not len(runs) or not len(known):
        return text
    place = np.minimum(np.searchsorted(known, runs), len(known) - 1)
    hits = np.flatnonzero(known[place] == runs)
    if not len(hits):
        return text
    starts = word_starts(text)
    cut = np.zeros(len(text), bool)
    for hit in hits:
        first, last = int(starts[hit]), int(starts[hit + RUN_WORDS - 1])
        end = text.find("\n", last)
        cut[text.rfind("\n", 0, first) + 1 : len(text) if end < 0 else end + 1] = True
    if cut.mean() > MOST_CUT:
        return None
    edges = np.flatnonzero(np.diff(np.concatenate([[True], cut, [True]]).astype(np.int8)))
    return "".join(text[first:last] for first, last in zip(edges[::2], edges[1::2], strict=True))
