"""Encoding: documents of the corpus, or conversations, become token shards (format: see `shards`).

`tokenizers` encodes two batches at a time on all cores, without Python's lock; meanwhile this thread reads the next and writes
the last one. Every file is written beside its place, synced and renamed, the index last: a folder without `index.json` is not encoded.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hagane.corpus.build import ShardFacts
from hagane.corpus.documents import open_shard, shard_path
from hagane.corpus.pool import Progress, silent
from hagane.data.pack import stream_rows, whole_rows
from hagane.data.shards import FORMAT
from hagane.errors import DataError
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import plain, special_ids
from hagane.tokenizer.chat import ChatEncoder, Conversation
from hagane.tokenizer.special import END_OF_TEXT

BATCH_BYTES = 1 << 20  # text handed to the tokenizer at once: enough documents to keep all cores busy, little enough to overlap

T = TypeVar("T")
U = TypeVar("U")


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


def encode_text(
    corpus: Path,
    shards: Mapping[str, ShardFacts],
    tokenizer: Tokenizer,
    folder: Path,
    contexts: Sequence[int],
    *,
    tokens_per_step: int = 0,
    progress: Progress = silent,
) -> CollectionFacts:
    """Encode `corpus/train/*.parquet` into `folder` (made if missing): every document is `<|endoftext|>` and its ids.

    Raises DataError where a shard is gone, or all shards together are less than `tokens_per_step`.
    """
    started = time.monotonic()
    writer = _Collection(folder, tokenizer)
    encoder, end = plain(tokenizer), writer.end_token
    total, done = sum(shard.bytes for shard in shards.values()), 0

    def encode(batch: list[tuple[str, str]]) -> list[Any]:
        encodings: list[Any] = encoder.encode_batch_fast([text for _, text in batch], add_special_tokens=False)
        return encodings

    streams = {name: writer.shard(name) for name in shards}
    for batch, encodings in _ahead(encode, _batches(corpus, shards)):
        for (name, text), encoding in zip(batch, encodings, strict=True):
            streams[name].add([end, *encoding.ids])
            streams[name].num_bytes += (size := len(text.encode()))
            done += size
        progress("encode", min(done, total - 1), total)
    for name, stream in streams.items():
        stream.close([end])
        for context in contexts:
            rows = stream_rows(stream.num_tokens, context)
            stream.rows[context] = rows.num_rows
            writer.save(f"{name}.rows-{context}.npz", rows.save)
        writer.add(name, stream, shards[name].source, shards[name].language)
    progress("encode", total, total)
    facts = writer.facts(started)
    _enough(facts, tokens_per_step)
    writer.write_index()
    return facts


def encode_conversations(
    conversations: Iterable[Conversation],
    tokenizer: Tokenizer,
    folder: Path,
    contexts: Sequence[int],
    *,
    shard: Callable[[Conversation], str] = lambda conversation: f"{conversation.source or 'chat'}.{conversation.language}",
    tokens_per_step: int = 0,
) -> CollectionFacts:
    """Encode whole conversations into shards named by `shard(conversation)`; what the model must write is its target.

    A conversation longer than a row of a context is left out of that packing and counted in `over_long`.
    """
    started = time.monotonic()
    writer = _Collection(folder, tokenizer)
    encoder = ChatEncoder(tokenizer)
    streams: dict[str, tuple[_Stream, str, str]] = {}
    for conversation in conversations:
        name = shard(conversation)
        if name not in streams:
            streams[name] = (writer.shard(name, weighted=True), conversation.source or name.split(".")[0], conversation.language)
        ids, targets = encoder.training(conversation)
        stream = streams[name][0]
        stream.add(ids, targets)
        stream.num_bytes += sum(len(value.encode()) for message in conversation.messages for key, value in message.items() if key != "role")
    for name in sorted(streams):
        stream, source, language = streams[name]
        stream.close()
        for context in contexts:
            packing = whole_rows(stream.offsets, context)
            stream.rows[context] = packing.rows.num_rows
            stream.over_long[context] = len(packing.over_long)
            writer.save(f"{name}.rows-{context}.npz", packing.rows.save)
        writer.add(name, stream, source, language)
    facts = writer.facts(started)
    _enough(facts, tokens_per_step)
    writer.write_index()
    return facts


def _enough(facts: CollectionFacts, tokens_per_step: int) -> None:
    if facts.tokens <= tokens_per_step or not facts.tokens:
        needs = f"one step of training reads {tokens_per_step:,}" if tokens_per_step else "that is nothing to train on"
        raise DataError(f"the text is only {facts.tokens:,} tokens; {needs}. Give more text with --corpus, or lower train.rows or train.context.")
    for context in {context for shard in facts.shards.values() for context in shard.over_long}:
        if not any(shard.rows[context] for shard in facts.shards.values()):
            raise DataError(f"every conversation is longer than train.context = {context} tokens. Raise train.context.")


def _batches(corpus: Path, shards: Iterable[str]) -> Iterator[list[tuple[str, str]]]:
    """(shard, text) in order, about BATCH_BYTES at a time: a batch may hold the end of one shard and the beginning of the next."""
    batch, size = [], 0
    for name in shards:
        with open_shard(shard_path(corpus, "train", name)) as file:
            for rows in file.iter_batches(64, columns=["text"]):
                for text in rows.column(0).to_pylist():
                    batch.append((name, text))
                    size += len(text)
                    if size >= BATCH_BYTES:
                        yield batch
                        batch, size = [], 0
    if batch:
        yield batch


def _ahead(work: Callable[[T], U], tasks: Iterable[T]) -> Iterator[tuple[T, U]]:
    """(task, work(task)) in order, two tasks under way: when one has only its longest document left, the cores go on with the next."""
    waiting: deque[tuple[T, Future[U]]] = deque()
    with ThreadPoolExecutor(2, "encode") as pool:
        for task in tasks:
            waiting.append((task, pool.submit(work, task)))
            if len(waiting) > 2:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


class _Stream:
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
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {".bin": _temporary(folder / f"{name}.bin").open("wb")}
        if weighted:
            self._files[".weight.bin"] = _temporary(folder / f"{name}.weight.bin").open("wb")

    def add(self, ids: Sequence[int], targets: Sequence[int] | None = None) -> None:
        self._write(ids)
        self._starts.append(self.num_tokens)
        if targets is not None and self.num_targets is not None:
            self._files[".weight.bin"].write(bytes(targets))
            self.num_targets += sum(targets)

    def _write(self, ids: Sequence[int]) -> None:
        data = np.array(ids, self._dtype).tobytes()
        self._files[".bin"].write(data)
        self.digest.update(data)
        self.num_tokens += len(ids)

    @property
    def num_documents(self) -> int:
        return len(self._starts) - 1

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Start of every document and the end of the last, int64 [D + 1]."""
        return np.array(self._starts, np.int64)

    def close(self, last: Sequence[int] = ()) -> None:
        """Append what ends the stream (it belongs to the last document) and put the files in place."""
        if last:
            self._write(last)
            self._starts[-1] = self.num_tokens
        for suffix, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            _temporary(self._folder / f"{self.name}{suffix}").replace(self._folder / f"{self.name}{suffix}")


class _Collection:
    """One folder of shards being written. An index of an earlier attempt is removed first: it must not vouch for new files."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.json").unlink(missing_ok=True)
        self._folder = folder
        self._vocabulary_size = tokenizer.get_vocab_size()
        self._dtype = np.dtype("<u2" if self._vocabulary_size <= 1 << 16 else "<u4")
        self.end_token = special_ids(tokenizer)[END_OF_TEXT]
        self._shards: dict[str, EncodedShard] = {}

    def shard(self, name: str, weighted: bool = False) -> _Stream:
        return _Stream(self._folder, name, self._dtype, weighted)

    def save(self, name: str, write: Callable[[Path], None]) -> None:
        """Let `write(path)` write a temporary file, then sync it and put it in place."""
        temporary = _temporary(self._folder / name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(self._folder / name)

    def add(self, name: str, stream: _Stream, source: str, language: str) -> None:
        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, stream.offsets)

        self.save(f"{name}.documents.npy", write)
        self._shards[name] = EncodedShard(
            source=source,
            language=language,
            tokens=stream.num_tokens,
            documents=stream.num_documents,
            bytes=stream.num_bytes,
            sha256=stream.digest.hexdigest(),
            rows=stream.rows,
            over_long=stream.over_long,
            target_tokens=stream.num_targets,
        )

    def facts(self, started: float) -> CollectionFacts:
        shards = self._shards.values()
        return CollectionFacts(
            tokens=sum(shard.tokens for shard in shards),
            documents=sum(shard.documents for shard in shards),
            bytes=sum(shard.bytes for shard in shards),
            over_long=sum(max(shard.over_long.values(), default=0) for shard in shards),
            shards=self._shards,
            seconds=round(time.monotonic() - started, 3),
        )

    def write_index(self) -> None:
        index = {
            "format": FORMAT,
            "dtype": "uint16" if self._dtype.itemsize == 2 else "uint32",
            "vocabulary_size": self._vocabulary_size,
            "end_token": self.end_token,
            "shards": {name: shard.model_dump(mode="json", exclude_none=True) for name, shard in self._shards.items()},
        }

        def write(path: Path) -> None:
            path.write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8")

        self.save("index.json", write)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.writing")
