"""First pass: read one input, drop what cannot be kept, and set the rest aside by language, with the hash of every document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hagane.corpus import arrow, pool
from hagane.corpus.blocks import Trace
from hagane.corpus.clean import HASH_BYTES, document_hash, drop_reason, normalise_newlines, split_long
from hagane.corpus.inputs import Input
from hagane.corpus.language import UNDETERMINED, normalise_tag
from hagane.corpus.readers import Damage, Record, read
from hagane.corpus.sample import Take
from hagane.errors import DataError
from hagane.recipe.schema import CorpusSettings

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("lang", pa.string()), ("source", pa.string()), ("license", pa.string())])
BATCH_BYTES = 1 << 21  # text of one written batch: a row group of the final files
UNKNOWN_LICENSE = "unknown"
EXAMPLES = 20  # dropped documents kept per reason, to look at
_OTHER_SHARE = 0.05  # of an input's sample, for each language that its first records did not show


@dataclass(frozen=True)
class Task:
    """One input to read, as it is sent to a process."""

    index: int
    item: Input
    take: Take
    settings: CorpusSettings
    folder: Path


@dataclass
class Part:
    """Documents of one input and one language, set aside in `path`.

    Arrays have one entry per document (hash, bytes), per piece (which document, bytes, row of the file) or per batch of the file (its first row).
    """

    path: Path
    language: str
    hash_D2: NDArray[np.uint64]
    bytes_D: NDArray[np.int64]
    document_P: NDArray[np.int64]
    bytes_P: NDArray[np.int64]
    row_P: NDArray[np.int64]
    start_B: NDArray[np.int64]
    licenses: list[str]

    def select(self, keep_D: NDArray[np.bool_], language: str, licenses: list[str]) -> Part:
        """Some of the documents, as a part of their own, of the same file."""
        keep_P, number_D = keep_D[self.document_P], np.cumsum(keep_D) - 1
        return Part(
            self.path,
            language,
            self.hash_D2[keep_D],
            self.bytes_D[keep_D],
            number_D[self.document_P[keep_P]],
            self.bytes_P[keep_P],
            self.row_P[keep_P],
            self.start_B,
            licenses,
        )


@dataclass
class Dropped:
    """Counts and a few examples of what is not kept, by reason."""

    documents: Counter[str] = field(default_factory=Counter)
    num_bytes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, reason: str, num_bytes: int, example: dict[str, Any]) -> None:
        self.documents[reason] += 1
        self.num_bytes[reason] += num_bytes
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append({"reason": reason, **example})

    def merge(self, other: Dropped) -> None:
        self.documents.update(other.documents)
        self.num_bytes.update(other.num_bytes)
        for reason, examples in other.examples.items():
            own = self.examples.setdefault(reason, [])
            own.extend(examples[: EXAMPLES - len(own)])


@dataclass
class Gathered:
    """What came of one input."""

    index: int
    parts: list[Part]
    dropped: Dropped
    documents_in: int
    bytes_in: int
    bytes_read: int
    digest: str
    complete: bool
    labels: Counter[str]  # documents set aside, by who said their language


class _Writer:
    """Sets documents of one language aside, a batch at a time."""

    def __init__(self, path: Path, language: str) -> None:
        self.language = language
        self.path = path
        self.taken = 0  # bytes of text
        self._rows: list[tuple[str, ...]] = []
        self._waiting = 0
        self._starts: list[int] = []
        self._hashes = bytearray()
        self._document_bytes: list[int] = []
        self._pieces: list[tuple[int, int]] = []
        self._licenses: set[str] = set()
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def add(self, identity: str, text: str, source: str, license: str, max_characters: int, room: float) -> None:
        self._hashes += document_hash(text)
        document, total = len(self._document_bytes), 0
        pieces = split_long(text, max_characters)
        for number, piece in enumerate(pieces):
            if total > room:
                break  # the sample has enough; the rest of this document is like documents that were not looked at
            name = f"{identity}#{number}" if len(pieces) > 1 else identity
            num_bytes = len(piece.encode())
            self._rows.append((name, piece, self.language, source, license))
            self._pieces.append((document, num_bytes))
            total += num_bytes
        self._document_bytes.append(total)
        self._licenses.add(license)
        self.taken += total
        self._waiting += total
        if self._waiting >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._starts.append(len(self._pieces) - len(self._rows))
            self._writer.write_batch(pa.RecordBatch.from_arrays([arrow.strings(column) for column in zip(*self._rows, strict=True)], schema=SCHEMA))
        self._rows, self._waiting = [], 0

    def close(self) -> Part:
        self._flush()
        self._writer.close()
        self._file.close()
        pieces = np.array(self._pieces, np.int64).reshape(-1, 2)
        return Part(
            self.path,
            self.language,
            np.frombuffer(bytes(self._hashes), ">u8").astype(np.uint64).reshape(-1, HASH_BYTES // 8),
            np.array(self._document_bytes, np.int64),
            pieces[:, 0].copy(),
            pieces[:, 1].copy(),
            np.arange(len(pieces)),
            np.array(self._starts, np.int64),
            sorted(self._licenses),
        )


def gather(task: Task) -> Gathered:
    """Read one input. Raises DataError for what cannot be read, unless `on_damage` is "keep": then it is counted."""
    item, settings, take = task.item, task.settings, task.take
    trace = Trace(on_bytes=pool.count)
    writers: dict[str, _Writer] = {}
    dropped = Dropped()
    labels: Counter[str] = Counter()
    documents_in = bytes_in = 0
    try:
        for found in _items(item, trace, take, settings.on_damage):
            if isinstance(found, Damage):
                documents_in += not found.rest and found.record is None
                if settings.on_damage == "stop":
                    raise DataError(f"{found.what} {found.remedy}")
                if found.record is None:
                    dropped.add(found.reason, found.num_bytes, {"file": item.name, "position": found.position, "what": found.what, "text": found.excerpt})
                    continue
                found = found.record
            looked_at = _keep(task, found, writers, dropped, labels)
            documents_in += looked_at is not None
            bytes_in += looked_at or 0
            if take.budgets is not None and all(language in writers and writers[language].taken >= budget for language, budget in take.budgets.items()):
                break
    finally:
        parts = [writers[language].close() for language in sorted(writers)]
    return Gathered(task.index, parts, dropped, documents_in, bytes_in, trace.num_bytes, trace.digest.hexdigest(), trace.at_end, labels)


def _keep(task: Task, record: Record, writers: dict[str, _Writer], dropped: Dropped, labels: Counter[str]) -> int | None:
    """Set the document aside, or count why not. Returns its bytes; None where its language has enough and it was not needed."""
    item, settings = task.item, task.settings
    text = normalise_newlines(record.text)
    num_bytes = len(text.encode("utf-8", "surrogatepass"))
    identity = record.id or f"{item.name}:{record.position}"
    reason = drop_reason(text, settings.min_characters, settings.max_damage)
    tag = normalise_tag(record.language) if record.language else item.language or UNDETERMINED
    if tag is None and reason is None:
        reason = "bad_language"
        if settings.on_damage == "stop":
            raise DataError(
                f"{item.path}, record {record.position + 1:,}: {record.language!r} is not a BCP-47 language tag such as sv, zh-Hant or smj. "
                'Mend it, or set corpus.on_damage = "keep" to drop such documents, counted, and go on.'
            )
    if reason is not None or tag is None:
        example = {"file": item.name, "position": record.position, "id": identity, "text": text[:200].encode("utf-8", "replace").decode()}
        dropped.add(reason or "bad_language", num_bytes, example)
        return num_bytes
    room = float("inf")
    if task.take.budgets is not None:
        budgets = task.take.budgets
        budget = budgets.get(tag, _OTHER_SHARE * sum(budgets.values()))
        room = budget - (writers[tag].taken if tag in writers else 0)
        if room <= 0:
            return None
    if tag not in writers:
        writers[tag] = _Writer(task.folder / f"{task.index:06d}.{tag}.arrow", tag)
    labels["none" if tag == UNDETERMINED else "record" if record.language else "source"] += 1
    source = record.source or f"{item.source}:{item.name}"
    writers[tag].add(identity, text, source, record.license or item.license or UNKNOWN_LICENSE, settings.max_characters, room)
    return num_bytes


def _items(item: Input, trace: Trace, take: Take, on_damage: str) -> Iterator[Record | Damage]:
    if item.kind in ("python", "problems"):
        yield from _generated(item, trace, take)
        return
    try:
        yield from read(item, trace, take.wanted)
    except DataError as error:
        if on_damage == "stop":
            raise
        yield Damage(0, "unreadable", str(error), "", item.num_bytes, rest=True)


def _generated(item: Input, trace: Trace, take: Take) -> Iterator[Record]:
    from hagane.corpus import embedded

    if item.kind == "python":
        records = embedded.python_documents()
    else:
        num_bytes = sum((take.budgets or {}).values())
        records = embedded.documents(take.seed, item.language or UNDETERMINED, round(num_bytes))
    for position, record in enumerate(records):
        if take.wanted(position):
            chunk = record["text"].encode()
            trace.add(chunk)
            yield Record(position, record["text"], record.get("id"), record.get("lang"), record.get("source"), record.get("license"))
    trace.at_end = True
