"""First pass: read one input, drop what cannot be kept, and set the rest aside by language, with the hash of every document."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hagane.corpus import arrow, leaks, near, pool
from hagane.corpus.accounts import Account, origin_of
from hagane.corpus.blocks import Trace
from hagane.corpus.clean import HASH_BYTES, document_hash, drop_reason, normalise_newlines, repair_encoding, split_long
from hagane.corpus.inputs import Input, check_unchanged
from hagane.corpus.language import UNDETERMINED, normalise_tag
from hagane.corpus.licenses import UNKNOWN, allowed
from hagane.corpus.overlap import load_runs, without_overlap
from hagane.corpus.personal import mask
from hagane.corpus.readers import read
from hagane.corpus.records import Damage, Drop, Record
from hagane.corpus.removal import Removed
from hagane.corpus.rules import contents, dumps, includes, lines, markup, twice
from hagane.corpus.rules.measure import RAW, measure
from hagane.corpus.sample import Seen, Take
from hagane.corpus.shingles import Hashes, shingles, word_hashes
from hagane.errors import DataError
from hagane.recipe.schema import CorpusSettings

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("lang", pa.string()), ("source", pa.string()), ("license", pa.string())])
BATCH_BYTES = 1 << 21  # text of one written batch: a row group of the final files
EXAMPLES = 20  # dropped documents kept per reason, to look at
DAMAGE_NAMED = 5  # per file: a manifest of millions of bad lines helps nobody
_OTHER_SHARE = 0.05  # of an input's sample, for each language that its first records did not show


@dataclass(frozen=True)
class Task:
    """One input to read, as it is sent to a process."""

    index: int
    item: Input
    take: Take
    settings: CorpusSettings
    folder: Path
    removed: Removed | None = None
    excluded: Path | None = None  # runs of words of evaluation items, as overlap.load_runs reads them


@dataclass
class Part:
    """Documents of one input and one language, set aside in `path`.

    Arrays have one entry per document (hash, bytes), per piece (which document, bytes, row of the file) or per batch of the file (its first row).
    `number_D` is what a document's number is in the files of signatures, lines and sketches.
    """

    path: Path
    language: str
    hash_D2: NDArray[np.uint64]
    bytes_D: NDArray[np.int64]
    id_D: NDArray[np.uint64]  # hash of the document's id
    document_P: NDArray[np.int64]
    bytes_P: NDArray[np.int64]
    row_P: NDArray[np.int64]
    start_B: NDArray[np.int64]
    groups: list[tuple[str, str]]  # origin and licence
    group_D: NDArray[np.int64]
    signatures: Path | None  # .npy of near.signature per document of the file; None where near-duplicates stay
    lines: Path | None  # as rules.lines.Writer leaves them; None where no rule applies
    sketch: Path | None  # as leaks.Writer leaves it; None where documents are not compared with held-out ones
    raw_DR: NDArray[np.float64]  # counts of rules.measure; no columns where no rule applies
    number_D: NDArray[np.int64]
    cut_D: NDArray[np.int64]  # bytes of boilerplate, found when everything was read
    leak_D: NDArray[np.bool_]  # which hold paragraphs of held-out text, found when that was chosen

    @property
    def licenses(self) -> list[str]:
        return sorted({self.groups[group][1] for group in np.unique(self.group_D).tolist()})

    def account(self, source: str, document: int) -> Account:
        """Whose account a document is on."""
        return Account(source, self.groups[self.group_D[document]][1], self.language)

    def select(self, keep_D: NDArray[np.bool_], language: str) -> Part:
        """Some of the documents, as a part of their own, of the same file."""
        keep_P, number_D = keep_D[self.document_P], np.cumsum(keep_D) - 1
        return Part(
            self.path,
            language,
            self.hash_D2[keep_D],
            self.bytes_D[keep_D],
            self.id_D[keep_D],
            number_D[self.document_P[keep_P]],
            self.bytes_P[keep_P],
            self.row_P[keep_P],
            self.start_B,
            self.groups,
            self.group_D[keep_D],
            self.signatures,
            self.lines,
            self.sketch,
            self.raw_DR[keep_D],
            self.number_D[keep_D],
            self.cut_D[keep_D],
            self.leak_D[keep_D],
        )


@dataclass
class Dropped:
    """Counts and a few examples of what is not kept, by reason, and of what is kept mended, by rule; `accounts` say whose documents were dropped."""

    documents: Counter[str] = field(default_factory=Counter)
    num_bytes: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    masked: Counter[tuple[str, str]] = field(default_factory=Counter)  # source and kind of personal data -> places
    excerpts: int = 0  # documents that a stretch was taken of
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    accounts: dict[tuple[Account, str], list[int]] = field(default_factory=dict)

    def wants(self, reason: str) -> bool:
        """Whether there is room for another example."""
        return len(self.examples.get(reason, ())) < EXAMPLES

    def add(self, reason: str, num_bytes: int, example: dict[str, Any], account: Account | None) -> None:
        """Count a document, or a part of one (then it is on nobody's account)."""
        self.documents[reason] += 1
        self.num_bytes[reason] += num_bytes
        self._show(reason, example)
        if account is not None:
            self._book(account, reason, 1, num_bytes)

    def repair(self, rule: str, example: dict[str, Any]) -> None:
        """Count a document that was mended."""
        self.repaired[rule] += 1
        self._show(rule, example)

    def _show(self, reason: str, example: dict[str, Any]) -> None:
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append({"reason": reason, **example})

    def _book(self, account: Account, reason: str, documents: int, num_bytes: int) -> None:
        entry = self.accounts.setdefault((account, reason), [0, 0])
        entry[0] += documents
        entry[1] += num_bytes

    def merge(self, other: Dropped) -> None:
        self.documents.update(other.documents)
        self.num_bytes.update(other.num_bytes)
        self.repaired.update(other.repaired)
        self.masked.update(other.masked)
        self.excerpts += other.excerpts
        for reason, examples in other.examples.items():
            own = self.examples.setdefault(reason, [])
            own.extend(examples[: EXAMPLES - len(own)])
        for (account, reason), (documents, num_bytes) in other.accounts.items():
            self._book(account, reason, documents, num_bytes)


@dataclass
class Gathered:
    """What came of one input."""

    index: int
    parts: list[Part]
    dropped: Dropped
    documents_in: int
    bytes_in: int
    bytes_read: int
    digest: str | None
    complete: bool
    damage: list[str]  # the first few sentences
    labels: Counter[str]  # documents set aside, by who said their language
    passed: Counter[str] = field(default_factory=Counter)  # bytes of text by language for which the sample had no room

    def seen(self, num_bytes: int) -> Seen:
        """For what the sample was estimated by; `num_bytes` is the size of the input."""
        taken = Counter({part.language: int(part.bytes_D.sum()) for part in self.parts})
        return Seen(taken, self.passed, 1.0 if self.complete else min(1.0, self.bytes_read / max(1, num_bytes)))


class _Writer:
    """Sets documents of one language aside, a batch at a time.

    With signatures where `near_duplicates` are looked for, a sketch where documents are `compared` with held-out ones, counts where they are `judged`.
    """

    def __init__(self, path: Path, language: str, near_duplicates: bool, compared: bool, judged: bool) -> None:
        self.language = language
        self.path = path
        self._signatures: list[near.Signatures] | None = [] if near_duplicates else None
        self._sketch = leaks.Writer(path.with_suffix(".sketch.npy")) if compared else None
        self._lines = lines.Writer(path.with_suffix(".lines.npy")) if judged else None
        self._raws: list[NDArray[np.float64]] = []
        self.taken = 0  # bytes of text
        self._rows: list[tuple[str, ...]] = []
        self._waiting = 0
        self._starts: list[int] = []
        self._hashes = bytearray()
        self._ids = bytearray()
        self._document_bytes: list[int] = []
        self._pieces: list[tuple[int, int]] = []
        self._groups: dict[tuple[str, str], int] = {}
        self._group_of: list[int] = []
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def add(
        self, identity: str, text: str, data: bytes, source: str, group: tuple[str, str], max_characters: int, room: float, words: Hashes | None
    ) -> None:
        """One document; `data` is its text in UTF-8, `group` its origin and licence, `words` its hashed words where they are known."""
        self._hashes += document_hash(text, data)
        if self._sketch is not None or self._signatures is not None:
            runs = shingles(word_hashes(text) if words is None else words, near.SHINGLE_WORDS)
            if self._sketch is not None:
                self._sketch.add(runs)
            if self._signatures is not None:
                self._signatures.append(near.signature_of(runs))
        self._ids += hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        document, total = len(self._document_bytes), 0
        pieces = split_long(text, max_characters)
        for number, piece in enumerate(pieces):
            if total > room:
                break  # the sample has enough; the rest of this document is like documents that were not looked at
            name = f"{identity}#{number}" if len(pieces) > 1 else identity
            num_bytes = len(piece.encode()) if len(pieces) > 1 else len(data)
            self._rows.append((name, piece, self.language, source, group[1]))
            self._pieces.append((document, num_bytes))
            total += num_bytes
        self._document_bytes.append(total)
        self._group_of.append(self._groups.setdefault(group, len(self._groups)))
        self.taken += total
        self._waiting += total
        if self._waiting >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            first = len(self._pieces) - len(self._rows)
            self._starts.append(first)
            columns = [arrow.strings(column) for column in zip(*self._rows, strict=True)]
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
            if self._lines is not None:
                raw_PR, found = measure(columns[1])
                self._raws.append(raw_PR)
                document_P = np.array([document for document, _ in self._pieces[first:]], np.int64)
                origin_G = np.array([lines.origin_hash(origin) for origin, _ in self._groups], np.uint64)
                self._lines.add(found, document_P, origin_G[np.array(self._group_of, np.int64)[document_P]])
        self._rows, self._waiting = [], 0

    def close(self) -> Part:
        self._flush()
        self._writer.close()
        self._file.close()
        pieces, documents = np.array(self._pieces, np.int64).reshape(-1, 2), len(self._document_bytes)
        signatures = None
        if self._signatures is not None:
            signatures = self.path.with_suffix(".npy")
            np.save(signatures, np.array(self._signatures, np.uint16).reshape(-1, near.BINS))
        if self._sketch is not None:
            self._sketch.close()
        raw_DR = np.zeros((documents, len(RAW) if self._lines is not None else 0))
        if self._lines is not None:
            self._lines.close()
            np.add.at(raw_DR, pieces[:, 0], np.concatenate([np.zeros((0, len(RAW))), *self._raws]))
        return Part(
            self.path,
            self.language,
            np.frombuffer(bytes(self._hashes), ">u8").astype(np.uint64).reshape(-1, HASH_BYTES // 8),
            np.array(self._document_bytes, np.int64),
            np.frombuffer(bytes(self._ids), ">u8").astype(np.uint64),
            pieces[:, 0].copy(),
            pieces[:, 1].copy(),
            np.arange(len(pieces)),
            np.array(self._starts, np.int64),
            list(self._groups),
            np.array(self._group_of, np.int64),
            signatures,
            self._lines.path if self._lines is not None else None,
            self._sketch.path if self._sketch is not None else None,
            raw_DR,
            np.arange(documents),
            np.zeros(documents, np.int64),
            np.zeros(documents, bool),
        )


def gather(task: Task) -> Gathered:
    """Read one input. Raises DataError for what cannot be read, unless `on_damage` is "keep": then it is counted."""
    item, settings, take = task.item, task.settings, task.take
    trace = Trace(on_bytes=pool.count)
    writers: dict[str, _Writer] = {}
    dropped = Dropped()
    unknown = Account(item.source, item.license or UNKNOWN, item.language or UNDETERMINED)  # of what was not read far enough to say
    damage: list[str] = []
    labels: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    documents_in = bytes_in = 0
    try:
        for found in _items(item, trace, take, settings):
            if isinstance(found, Drop):
                documents_in += 1
                example = {"file": item.name, "position": found.position, "what": found.what, "text": found.excerpt}
                dropped.add(found.reason, found.num_bytes, example, unknown)
                continue
            if isinstance(found, Damage):
                documents_in += not found.rest and found.record is None
                if settings.on_damage == "stop":
                    raise DataError(f"{found.what} {found.remedy}")
                if len(damage) < DAMAGE_NAMED:
                    damage.append(found.what)
                if found.record is None:
                    example = {"file": item.name, "position": found.position, "what": found.what, "text": found.excerpt}
                    dropped.add(found.reason, found.num_bytes, example, None if found.rest else unknown)
                    continue
                found = found.record
            looked_at = _keep(task, found, writers, dropped, labels, passed)
            documents_in += looked_at is not None
            bytes_in += looked_at or 0
            if take.budgets is not None and all(language in writers and writers[language].taken >= budget for language, budget in take.budgets.items()):
                break
        if trace.num_bytes:
            check_unchanged(item)
    finally:
        parts = [writers[language].close() for language in sorted(writers)]
    digest = trace.digest.hexdigest() if trace.digest is not None else None
    return Gathered(task.index, parts, dropped, documents_in, bytes_in, trace.num_bytes, digest, trace.at_end, damage, labels, passed)


def _keep(
    task: Task, record: Record, writers: dict[str, _Writer], dropped: Dropped, labels: Counter[str], passed: Counter[str]
) -> int | None:  # fmt: skip
    """Set the document aside, or count why not. Returns its bytes; None where its language has enough and it was not needed."""
    item, settings = task.item, task.settings
    text = normalise_newlines(record.text)
    data = text.encode("utf-8", "surrogatepass")
    num_bytes = len(data)
    identity = record.id or f"{item.name}:{record.position}"
    tag = normalise_tag(record.language) if record.language else item.language or UNDETERMINED
    if (excerpt := task.take.excerpt(text, num_bytes, record.position)) is not text:
        data = (excerpt or "").encode("utf-8", "surrogatepass")
        passed[tag or UNDETERMINED] += num_bytes - len(data)
        if excerpt is None:
            return None
        text, num_bytes = excerpt, len(data)
        dropped.excerpts += 1
    license = record.license or item.license or UNKNOWN
    account = Account(item.source, license, tag or UNDETERMINED)
    place = {"file": item.name, "position": record.position, "id": identity}
    refused = "removed" if task.removed and task.removed.names(identity) else None if allowed(license, settings.licenses) else "license"
    if refused is not None:
        dropped.add(refused, num_bytes, place | ({"text": _beginning(text), "what": license} if refused == "license" else {}), account)
        return num_bytes
    mended, reason = _mend(text, data, tag, task, dropped, place)
    if task.removed and task.removed.holds(mended):
        dropped.add("removed", num_bytes, place, account)
        return num_bytes
    data = data if mended is text else mended.encode("utf-8", "surrogatepass")
    reason = reason or drop_reason(mended, settings.min_characters, settings.max_damage, data)
    if tag is None and reason is None:
        reason = "bad_language"
        if settings.on_damage == "stop":
            raise DataError(
                f"{item.path}, record {record.position + 1:,}: {record.language!r} is not a BCP-47 language tag such as sv, zh-Hant or smj. "
                'Mend it, or set corpus.on_damage = "keep" to drop such documents, counted, and go on.'
            )
    if reason is not None or tag is None:
        dropped.add(reason or "bad_language", num_bytes, place | {"text": _beginning(text)}, account)
        return num_bytes
    words = None
    if task.excluded is not None and not _generated_problems(item):  # whose test items are held out by their own rule
        words = word_hashes(mended)
        rest = without_overlap(mended, load_runs(task.excluded), words)
        if rest is not None and len(rest.strip()) < settings.min_characters:
            rest = None
        if rest is not mended:
            words = None
            data = (rest or "").encode()
            lost = num_bytes if rest is None else len(mended.encode()) - len(data)
            dropped.add("evaluation_overlap", lost, place | {"text": _beginning(mended), "whole": rest is None}, account if rest is None else None)
        if rest is None:
            return num_bytes
        mended = rest
    room = float("inf")
    if task.take.budgets is not None:
        budgets = task.take.budgets
        budget = budgets.get(tag, _OTHER_SHARE * sum(budgets.values()))
        room = budget - (writers[tag].taken if tag in writers else 0)
        if room <= 0:
            passed[tag] += num_bytes
            return None
    if tag not in writers:
        again = f".{pool.attempt()}" if pool.attempt() else ""
        path, own = task.folder / f"{task.index:06d}.{tag}{again}.arrow", not _generated_problems(item)  # these are alike by design
        writers[tag] = _Writer(path, tag, own and settings.near_duplicates > 0, own and settings.held_out_overlap > 0, _ruled(item, tag))
    labels["none" if tag == UNDETERMINED else "record" if record.language else "source"] += 1
    source = record.source or f"{item.source}:{item.name}"
    group = (origin_of(identity, record.source, item.source), license)
    writers[tag].add(identity, mended, data, source, group, settings.max_characters, room, words)
    return num_bytes


def _mend(text: str, data: bytes, tag: str | None, task: Task, dropped: Dropped, place: dict[str, Any]) -> tuple[str, str | None]:
    """The text after every rule that mends a single document, and the reason where one of them leaves it out. `data` is the text in UTF-8."""
    before, (text, reason) = text, _cleaned(text, data, tag, task, dropped, place)
    if reason is None and task.settings.personal_data == "mask" and task.item.kind not in ("python", "problems"):
        masked, kinds = mask(text, tag or UNDETERMINED, data if text is before else None)
        if masked is not text:
            dropped.repair("personal_data", place | {"what": ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))})
            for kind, count in kinds.items():
                dropped.masked[task.item.source, kind] += count
            text = masked
    return text, reason


def _cleaned(text: str, data: bytes, tag: str | None, task: Task, dropped: Dropped, place: dict[str, Any]) -> tuple[str, str | None]:
    """Encoding, markup, contents, dumps and second copies."""
    settings = task.settings
    if settings.repair_encoding and (fixed := repair_encoding(text, data)) is not text:
        text = fixed
        dropped.repaired["encoding"] += 1
    if not _ruled(task.item, tag or UNDETERMINED):
        return text, None
    if settings.rules.markup and task.item.kind not in ("html", "warc"):  # of which only the main text was read
        plain = markup.mend(includes.resolved(text, task.item))
        if plain is None:
            return text, markup.NO_PAGE
        if plain is not text:
            dropped.repair("markup", place | (_change(text, plain) if dropped.wants("markup") else {}))
            text = plain
    for rule, wanted, mended in (
        ("contents", settings.rules.contents, contents.without_contents),
        ("dumps", settings.rules.dumps, dumps.without_dumps),
        ("twice", settings.rules.twice, twice.without_copies),
    ):
        if wanted and (rest := mended(text)) is not text:
            dropped.repair(rule, place | (_change(text, rest) if dropped.wants(rule) else {}))
            text = rest
    return text, None


def _change(before: str, after: str) -> dict[str, str]:
    """Where two texts begin to differ, each with a little of what is around it."""
    same = next((index for index, (one, other) in enumerate(zip(before, after)) if one != other), min(len(before), len(after)))
    start = max(0, same - 40)
    return {"text": _beginning(before[start:]), "after": _beginning(after[start:])}


def _beginning(text: str) -> str:
    return text[:200].encode("utf-8", "replace").decode()


def _generated_problems(item: Input) -> bool:
    return item.kind == "problems"


def _ruled(item: Input, tag: str) -> bool:
    """Whether the rules of cleaning apply: code is not prose, and what hagane generates or ships is clean."""
    return item.kind not in ("python", "problems") and not tag.startswith("code")


def _items(item: Input, trace: Trace, take: Take, settings: CorpusSettings) -> Iterator[Record | Damage | Drop]:
    if item.kind in ("python", "problems"):
        yield from _generated(item, trace, take)
        return
    try:
        yield from read(item, trace, take.wanted, settings.max_record_bytes)
    except DataError as error:
        if settings.on_damage == "stop":
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
