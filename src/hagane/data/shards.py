"""Reading the token shards that `encode` wrote: memory-mapped ids, document starts and packed rows.

    {collection}/index.json           format, dtype, vocabulary_size, end_token, shards {name: {language, source, tokens, documents, ...}}
    {collection}/{shard}.bin          ids, little-endian, one flat stream
    {collection}/{shard}.weight.bin   uint8 per token: 1 where it is a training target (absent: every token is)
    {collection}/{shard}.documents.npy          int64, start of every document, plus the end
    {collection}/{shard}.rows-{context}.npz     the packing (see `pack`)
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hagane.data.batch import Row
from hagane.data.pack import Rows
from hagane.errors import DataError

FORMAT = 1


class Shard:
    """One source in one language: a stream of token ids, opened without reading it."""

    def __init__(self, folder: Path, name: str, dtype: str, facts: dict[str, Any]) -> None:
        self.name = name
        self.path = folder / f"{name}.bin"
        self.num_tokens = int(facts["tokens"])
        self.facts = facts
        self._folder = folder
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._rows: dict[int, Rows] = {}

    @cached_property
    def tokens(self) -> np.ndarray:
        return self._map(self.path, self._dtype)

    @cached_property
    def weight(self) -> np.ndarray | None:
        path = self._folder / f"{self.name}.weight.bin"
        return self._map(path, np.dtype(np.uint8)) if path.exists() else None

    @cached_property
    def documents(self) -> np.ndarray:
        """Where each document starts, plus the end of the last: int64 [D + 1]."""
        path = self._folder / f"{self.name}.documents.npy"
        try:
            return np.asarray(np.load(path))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} is missing or damaged ({error}). Run the encode stage again.") from None

    def rows(self, context: int) -> Rows:
        """The packing for rows of `context` positions."""
        if context not in self._rows:
            self._rows[context] = Rows.load(self._folder / f"{self.name}.rows-{context}.npz")
        return self._rows[context]

    def row(self, context: int, index: int) -> Row:
        """Read one packed row, padded to `context`."""
        row = Row(
            tokens_T=np.zeros(context, np.int64),
            targets_T=np.zeros(context, np.int64),
            weight_T=np.zeros(context, np.float32),
            position_T=np.zeros(context, np.int64),
            document_T=np.full(context, -1, np.int32),
            num_tokens=0,
        )
        filled, next_document = 0, 0
        for start, end in self.rows(context).row(index).tolist():
            here = slice(filled, filled + end - start - 1)
            ids = self.tokens[start:end]
            row.tokens_T[here], row.targets_T[here] = ids[:-1], ids[1:]
            row.weight_T[here] = 1 if self.weight is None else self.weight[start + 1 : end]
            starts = self._starts_within(start, end - 1) - start
            counted = np.repeat(np.arange(len(starts)), np.diff(starts, append=end - 1 - start))
            row.position_T[here] = np.arange(end - 1 - start) - starts[counted]
            row.document_T[here] = next_document + counted
            next_document += len(starts)
            filled = here.stop
        row.num_tokens = filled
        return row

    def _starts_within(self, start: int, end: int) -> np.ndarray:
        """Document starts in [start, end), `start` itself always the first: a segment may begin inside a document."""
        first, last = np.searchsorted(self.documents, [start + 1, end])
        return np.concatenate([[start], self.documents[first:last]])

    def _map(self, path: Path, dtype: np.dtype[Any]) -> np.ndarray:
        try:
            size = path.stat().st_size
        except OSError:
            raise DataError(f"{path} is missing. Run the encode stage again.") from None
        if size != self.num_tokens * dtype.itemsize:
            raise DataError(f"{path} has {size:,} bytes where index.json says {self.num_tokens:,} tokens of {dtype.itemsize}. Run the encode stage again.")
        return np.memmap(path, dtype=dtype, mode="r") if size else np.zeros(0, dtype)


class Collection:
    """The shards under one folder of `encode`: `text` (running text) or `tune` (whole conversations)."""

    def __init__(self, folder: Path) -> None:
        path = folder / "index.json"
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path} is missing: there is no encoded data here. Run the encode stage first.") from None
        except ValueError as error:
            raise DataError(f"{path} is damaged ({error}). Run the encode stage again.") from None
        if index.get("format") != FORMAT:
            raise DataError(f"{path} has format {index.get('format')}; this version of hagane reads {FORMAT}. Run the encode stage again.")
        self.folder = folder
        self.vocabulary_size = int(index["vocabulary_size"])
        self.end_token = index.get("end_token")
        self.shards = {name: Shard(folder, name, index["dtype"], facts) for name, facts in index["shards"].items()}

    def shard(self, name: str) -> Shard:
        """Raises DataError for a name that was not encoded."""
        if name not in self.shards:
            held = ", ".join(sorted(self.shards)) or "nothing"
            raise DataError(f"the mixture names {name}, but {self.folder} holds only {held}. Run the encode stage again.")
        return self.shards[name]
