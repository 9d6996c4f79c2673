"""Writing the token shards of one collection (format: see `shards`), whole or not at all.

Every file is written beside its place, synced and renamed, the index last: a folder without `index.json` is not encoded.
Threads wait for the disk while the next shard is being encoded.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hagane.data.pack import Rows
from hagane.data.shards import FORMAT
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import special_ids
from hagane.tokenizer.special import END_OF_TEXT

SYNC_THREADS = 8  # they only wait; one file after the other, syncing was a twentieth of the time of a small corpus


class EncodedShard(Frozen):
    """What is in one shard. `rows` and `over_long` (documents that no row can hold) are by context length."""

    source: str
    language: str
    tokens: int
    documents: int
    bytes: int
    sha256: str
    rows: dict[int, int]
    over_long: dict[int, int]
    target_tokens: int | None = None


class CollectionFacts(Frozen):
    """Sums over the shards of one collection."""

    tokens: int
    documents: int
    bytes: int
    over_long: int
    shards: dict[str, EncodedShard]
    seconds: float


class ShardWriter:
    """One shard being written: ids appended to a temporary file."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any], weighted: bool) -> None:
        self.name = name
        self.num_tokens = 0
        self.num_targets = 0 if weighted else None
        self.num_bytes = 0
        self.rows: dict[int, int] = {}
        self.over_long: dict[int, int] = {}
        self.digest = hashlib.sha256()
        self._starts = [0]
        self._dtype = dtype
        self.files: dict[str, IO[bytes]] = {
            part: _temporary(folder / part).open("wb", buffering=1 << 20) for part in (f"{name}.bin", *([f"{name}.weight.bin"] if weighted else []))
        }

    def add(self, ids: Sequence[int], num_bytes: int) -> None:
        """Append a document that was `num_bytes` of text."""
        self._write(ids)
        self._starts.append(self.num_tokens)
        self.num_bytes += num_bytes

    def extend(self, ids_T: NDArray[np.uint32], targets_T: NDArray[np.uint8], lengths_N: NDArray[np.int64], num_bytes: int) -> None:
        """Append documents of `lengths_N` ids each, with their targets: 1 or 0 for every id. Only for a weighted shard."""
        assert self.num_targets is not None
        self._starts += (self.num_tokens + np.cumsum(lengths_N)).tolist()
        self._write(ids_T)
        self.files[f"{self.name}.weight.bin"].write(targets_T.tobytes())
        self.num_targets += int(targets_T.sum())
        self.num_bytes += num_bytes

    def end(self, last: Sequence[int]) -> None:
        """Append what ends the stream; it belongs to the last document."""
        self._write(last)
        self._starts[-1] = self.num_tokens

    def _write(self, ids: Sequence[int] | NDArray[np.uint32]) -> None:
        data = np.array(ids, self._dtype).tobytes()
        self.files[f"{self.name}.bin"].write(data)
        self.digest.update(data)
        self.num_tokens += len(ids)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Start of every document and the end of the last, int64 [D + 1]."""
        return np.array(self._starts, np.int64)


class CollectionWriter:
    """One folder of shards being written. An index of an earlier attempt is removed first: it must not vouch for new files."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.json").unlink(missing_ok=True)
        self._started = time.monotonic()
        self._folder = folder
        self._vocabulary_size = tokenizer.get_vocab_size()
        self._dtype = np.dtype("<u2" if self._vocabulary_size <= 1 << 16 else "<u4")
        self.end_token = special_ids(tokenizer)[END_OF_TEXT]
        self._shards: dict[str, EncodedShard] = {}
        self._syncing: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(SYNC_THREADS, "sync")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def shard(self, name: str, weighted: bool = False) -> ShardWriter:
        return ShardWriter(self._folder, name, self._dtype, weighted)

    def close(self, shard: ShardWriter, packed: dict[int, tuple[Rows, int]], source: str, language: str) -> None:
        """Put the shard's files in place. `packed`: rows, and number of documents that are over-long, by context length."""
        for name, file in shard.files.items():
            file.close()
            self._place(name)
        for context, (rows, over_long) in packed.items():
            shard.rows[context] = rows.num_rows
            self._save(f"{shard.name}.rows-{context}.npz", rows.save)
            if shard.num_targets is not None:
                shard.over_long[context] = over_long
        self._save(f"{shard.name}.documents.npy", lambda path: _save_array(path, shard.offsets))
        self._shards[shard.name] = EncodedShard(
            source=source,
            language=language,
            tokens=shard.num_tokens,
            documents=len(shard.offsets) - 1,
            bytes=shard.num_bytes,
            sha256=shard.digest.hexdigest(),
            rows=shard.rows,
            over_long=shard.over_long,
            target_tokens=shard.num_targets,
        )

    def facts(self) -> CollectionFacts:
        """Sums over the closed shards, once all of their files are on the disk."""
        self._wait()
        shards = self._shards.values()
        return CollectionFacts(
            tokens=sum(shard.tokens for shard in shards),
            documents=sum(shard.documents for shard in shards),
            bytes=sum(shard.bytes for shard in shards),
            over_long=sum(max(shard.over_long.values(), default=0) for shard in shards),
            shards=self._shards,
            seconds=round(time.monotonic() - self._started, 3),
        )

    def write_index(self) -> None:
        """Say that the collection is whole."""
        self._wait()
        index = {
            "format": FORMAT,
            "dtype": "uint16" if self._dtype.itemsize == 2 else "uint32",
            "vocabulary_size": self._vocabulary_size,
            "end_token": self.end_token,
            "shards": {name: shard.model_dump(mode="json", exclude_none=True) for name, shard in self._shards.items()},
        }
        self._save("index.json", lambda path: path.write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8"))
        self._wait()

    def _save(self, name: str, write: Callable[[Path], object]) -> None:
        write(_temporary(self._folder / name))
        self._place(name)

    def _place(self, name: str) -> None:
        self._syncing.append(self._pool.submit(_sync_and_rename, self._folder / name))

    def _wait(self) -> None:
        """Until every file is in place. Raises the OSError of one that is not."""
        for future in self._syncing:
            future.result()
        self._syncing.clear()


def _sync_and_rename(path: Path) -> None:
    with _temporary(path).open("rb+") as file:
        os.fsync(file.fileno())
    _temporary(path).replace(path)


def _save_array(path: Path, values: NDArray[np.int64]) -> None:
    with path.open("wb") as file:
        np.save(file, values)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.writing")
