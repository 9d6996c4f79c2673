"""Documents that reading has set aside: one Arrow file per task and language, and arrays of what must be known of all documents at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hagane.corpus import arrow, leaks, near
from hagane.corpus.accounts import Account
from hagane.corpus.clean import HASH_BYTES, document_hash, split_long
from hagane.corpus.rules import lines
from hagane.corpus.rules.measure import RAW, measure
from hagane.corpus.shingles import Hashes, shingles, word_hashes

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("lang", pa.string()), ("source", pa.string()), ("license", pa.string())])
BATCH_BYTES = 1 << 21  # text of one written batch: a row group of the final files


@dataclass
class Part:
    """Documents of one task and one language, set aside in `path`.

    Arrays have one entry per document (hash, bytes, which input it is from), per piece (which document, bytes, row of the file) or per batch of the file
    (its first row). `number_D` is what a document's number is in the files of signatures, lines and sketches.
    """

    path: Path
    language: str
    hash_D2: NDArray[np.uint64]
    bytes_D: NDArray[np.int64]
    id_D: NDArray[np.uint64]  # hash of the document's id
    file_D: NDArray[np.int64]  # the input's place among all
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
            self.file_D[keep_D],
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


class Writer:
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
        self._rows: list[tuple[str, ...]] = []
        self._waiting = 0
        self._starts: list[int] = []
        self._hashes = bytearray()
        self._ids = bytearray()
        self._files: list[int] = []
        self._document_bytes: list[int] = []
        self._pieces: list[tuple[int, int]] = []
        self._groups: dict[tuple[str, str], int] = {}
        self._group_of: list[int] = []
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def add(
        self, file: int, identity: str, text: str, data: bytes, source: str, group: tuple[str, str], max_characters: int, room: float, words: Hashes | None
    ) -> int:
        """One document of input `file`; `data` is its text in UTF-8, `group` its origin and licence, `words` its hashed words where they are known.

        Returns the bytes that were set aside.
        """
        self._hashes += document_hash(text, data)
        if self._sketch is not None or self._signatures is not None:
            runs = shingles(word_hashes(text) if words is None else words, near.SHINGLE_WORDS)
            if self._sketch is not None:
                self._sketch.add(runs)
            if self._signatures is not None:
                self._signatures.append(near.signature_of(runs))
        self._ids += hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._files.append(file)
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
        self._waiting += total
        if self._waiting >= BATCH_BYTES:
            self._flush()
        return total

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
            np.array(self._files, np.int64),
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
