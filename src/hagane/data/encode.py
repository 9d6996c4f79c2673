"""Encoding: documents of the corpus, or conversations, become token shards (format: see `shards`).

`tokenizers` encodes two batches at a time on all cores, without Python's lock; meanwhile this thread reads the next and writes
the last one.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tokenizers import Tokenizer

from hagane.corpus.build import ShardFacts
from hagane.corpus.documents import open_shard, shard_path
from hagane.corpus.pool import Progress, silent
from hagane.data.pack import stream_rows, whole_rows
from hagane.data.writer import CollectionFacts, CollectionWriter, ShardWriter
from hagane.errors import DataError
from hagane.tokenizer.bpe import pieces, plain, pre_tokenizer_is_ours
from hagane.tokenizer.chat import EncodedBatch

BATCH_BYTES = 1 << 19  # text handed to the tokenizer at once: enough to keep all cores busy, little enough to overlap
PIECE_CHARACTERS = 1500  # of a document encoded at a time; anything from 500 to 2,000 is as fast

T = TypeVar("T")
U = TypeVar("U")


class _Document(NamedTuple):
    """A document of a shard in pieces, or the end of the shard (None)."""

    shard: str
    pieces: list[str] | None
    num_bytes: int


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
    total, done = sum(shard.bytes for shard in shards.values()), 0
    # the words of another pre-tokenizer may span the places where a text is cut
    size = PIECE_CHARACTERS if pre_tokenizer_is_ours(tokenizer) else None
    with CollectionWriter(folder, tokenizer) as writer:
        shard: ShardWriter | None = None
        for document, encodings in _encoded(corpus, shards, plain(tokenizer), size):
            shard = shard or writer.shard(document.shard)
            if document.pieces is None:
                shard.end([writer.end_token])
                packed = {context: (stream_rows(shard.num_tokens, context), 0) for context in contexts}
                writer.close(shard, packed, shards[shard.name].source, shards[shard.name].language)
                shard = None
                continue
            ids = [writer.end_token]
            for encoding in encodings:
                ids += encoding.ids
            shard.add(ids, document.num_bytes)
            done += document.num_bytes
            progress("encode", min(done, total - 1), total)
        progress("encode", total, total)
        return _finished(writer, tokens_per_step)


def write_conversations(
    batches: Iterable[EncodedBatch], tokenizer: Tokenizer, folder: Path, contexts: Sequence[int], *, tokens_per_step: int = 0
) -> CollectionFacts:
    """Write whole conversations into the shards that they name; what the model must write is its target.

    A conversation longer than a row of a context is left out of that packing and counted in `over_long`.
    """
    opened: dict[str, tuple[ShardWriter, str, str]] = {}
    with CollectionWriter(folder, tokenizer) as writer:
        for batch in batches:
            if batch.shard not in opened:
                opened[batch.shard] = (writer.shard(batch.shard, weighted=True), batch.source, batch.language)
            opened[batch.shard][0].extend(batch.ids_T, batch.targets_T, batch.lengths_N, batch.num_bytes)
        for name in sorted(opened):
            stream, source, language = opened[name]
            packings = {context: whole_rows(stream.offsets, context) for context in contexts}
            writer.close(stream, {context: (packing.rows, len(packing.over_long)) for context, packing in packings.items()}, source, language)
        return _finished(writer, tokens_per_step)


def _finished(writer: CollectionWriter, tokens_per_step: int) -> CollectionFacts:
    """Write the index of a collection that is large enough, else raise DataError."""
    facts = writer.facts()
    if facts.tokens <= tokens_per_step or not facts.tokens:
        needs = f"one step of training reads {tokens_per_step:,}" if tokens_per_step else "that is nothing to train on"
        raise DataError(f"the text is only {facts.tokens:,} tokens; {needs}. Give more text with --corpus, or lower train.rows or train.context.")
    for context in {context for shard in facts.shards.values() for context in shard.over_long}:
        if not any(shard.rows[context] for shard in facts.shards.values()):
            raise DataError(f"every conversation is longer than train.context = {context} tokens. Raise train.context.")
    writer.write_index()
    return facts


def _encoded(corpus: Path, shards: Iterable[str], encoder: Tokenizer, size: int | None) -> Iterator[tuple[_Document, Iterator[Any]]]:
    """Every document in order, with the library's encodings of its pieces."""

    def encode(batch: list[_Document]) -> list[Any]:
        texts = [piece for document in batch for piece in document.pieces or ()]
        encodings: list[Any] = encoder.encode_batch_fast(texts, add_special_tokens=False)
        return encodings

    for batch, encodings in _ahead(encode, _batches(_documents(corpus, shards, size))):
        rest = iter(encodings)
        for document in batch:
            yield document, itertools.islice(rest, len(document.pieces or ()))


def _documents(corpus: Path, shards: Iterable[str], size: int | None) -> Iterator[_Document]:
    """Every document in pieces of `size` characters, or whole."""
    for name in shards:
        with open_shard(shard_path(corpus, "train", name)) as file:
            for rows in file.iter_batches(64, columns=["text"]):
                for text in rows.column(0).to_pylist():
                    yield _Document(name, [text] if size is None else pieces(text, size), len(text.encode()))
        yield _Document(name, None, 0)


def _batches(documents: Iterable[_Document]) -> Iterator[list[_Document]]:
    """About BATCH_BYTES of text at a time: a batch may hold the end of one shard and the beginning of the next."""
    batch: list[_Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += document.num_bytes
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ahead(work: Callable[[T], U], tasks: Iterable[T]) -> Iterator[tuple[T, U]]:
    """(task, work(task)) in order, two tasks under way: the cores go on with the next while the first is handed over."""
    waiting: deque[tuple[T, Future[U]]] = deque()
    with ThreadPoolExecutor(2, "encode") as pool:
        for task in tasks:
            waiting.append((task, pool.submit(work, task)))
            if len(waiting) > 2:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
