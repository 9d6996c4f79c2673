"""Documents of a file as they stand, streaming: `.txt` and `.md` (one document), `.jsonl` (one a line), `.parquet` (one a row).

A reader yields a `Record` for a document and a `Damage` for one that could not be read. What damage means is for the caller
to say: it ends the run, or is counted.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hagane.corpus import arrow
from hagane.corpus.blocks import CorruptError, EndsTooSoonError, Trace, blocks, open_input
from hagane.corpus.inputs import Input
from hagane.errors import DataError

TEXT_BLOCK = 1 << 24  # characters: a .txt larger than this becomes several documents, cut at paragraph ends
_ROWS = 64  # parquet rows at a time: web documents are about 5 kB, books up to a megabyte


@dataclass(frozen=True)
class Record:
    """A document as found. `position` counts records from 0 in its file."""

    position: int
    text: str
    id: str | None = None
    language: str | None = None
    source: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Damage:
    """What could not be read: the drop reason, a sentence that says where and what, and how to mend it. `rest` where the rest of the file is lost."""

    position: int
    reason: str
    what: str
    remedy: str
    num_bytes: int = 0
    excerpt: str = ""
    rest: bool = False
    record: Record | None = None  # the document with replacement characters, to be judged like any other


Item = Record | Damage
Wanted = Callable[[int], bool]


def read(item: Input, trace: Trace, wanted: Wanted = lambda position: True) -> Iterator[Item]:
    """The documents of a file for which `wanted(position)` holds. Raises DataError where the file cannot be opened at all."""
    reader = {"text": _read_text, "jsonl": _read_jsonl, "parquet": _read_parquet}[item.kind]
    return reader(item, trace, wanted)


def _read_text(item: Input, trace: Trace, wanted: Wanted) -> Iterator[Item]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    replaced: Damage | None = None
    text, position, offset = "", 0, 0
    source = blocks(item, trace)
    end: Damage | None = None
    while True:
        try:
            block = next(source, None)
        except (EndsTooSoonError, CorruptError) as error:
            end = _broken(item, error, position, "paragraphs read so far are kept")
            block = None
        try:
            text += decoder.decode(block or b"", final=block is None and end is None)
        except UnicodeDecodeError as error:
            where = offset + len(block or b"") - len(error.object) + error.start
            replaced = replaced or _not_utf8(item, position, f"at byte {where:,}")
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            text += decoder.decode(error.object, final=block is None)
        if block is None:
            break
        offset += len(block)
        if len(text) > 2 * TEXT_BLOCK:
            cut = text.rfind("\n\n", 0, TEXT_BLOCK) + 2
            cut = cut if cut > 1 else TEXT_BLOCK
            if wanted(position):
                yield _text_item(position, text[:cut], f"{item.name}#{position}", replaced)
            text, position = text[cut:], position + 1
    if (text or not end) and wanted(position):
        yield _text_item(position, text, f"{item.name}#{position}" if position else item.name, replaced)
    if end:
        yield end


def _text_item(position: int, text: str, name: str, replaced: Damage | None) -> Item:
    if replaced is None:
        return Record(position, text, name)
    return Damage(position, replaced.reason, replaced.what, replaced.remedy, len(text.encode()), text[:200], record=Record(position, text, name))


def _read_jsonl(item: Input, trace: Trace, wanted: Wanted) -> Iterator[Item]:
    source, rest, position, line_number, num_read = blocks(item, trace), b"", 0, 0, 0
    while True:
        try:
            block = next(source, None)
        except (EndsTooSoonError, CorruptError) as error:
            yield _broken(item, error, position, f"after {num_read:,} documents", len(rest))
            return
        lines = ((rest + block) if block is not None else rest).split(b"\n")
        rest = lines.pop() if block is not None else b""
        for line in lines:
            line_number += 1
            if not line or line.isspace():
                continue
            if wanted(position):
                found = _parse_line(item, line, line_number, position, last=block is None, num_read=num_read)
                num_read += isinstance(found, Record)
                yield found
            else:
                num_read += 1
            position += 1
        if block is None:
            return


def _parse_line(item: Input, line: bytes, line_number: int, position: int, *, last: bool, num_read: int) -> Item:
    where = f"{item.path}, line {line_number:,}"
    try:
        text = line.decode("utf-8-sig" if line_number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        try:
            value = json.loads(line.decode("utf-8", "replace"))
        except json.JSONDecodeError:
            value = None
        repaired = _record(position, value) if isinstance(value, dict) and isinstance(value.get("text"), str) else None
        damage = _not_utf8(item, position, f"in line {line_number:,} (byte {error.start + 1:,} of the line)")
        return Damage(position, damage.reason, damage.what, damage.remedy, len(line), line[:200].decode("utf-8", "replace"), record=repaired)
    excerpt = text[:200]
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        if last and num_read:  # no line end after it: the file was cut off while it was copied
            return _broken(item, EndsTooSoonError(), position, f"after {num_read:,} documents", len(line))
        detail = f"{error.msg}, column {error.colno:,}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        return Damage(position, "damaged_record", f"{where} is not JSON ({detail}).", _KEEP.format("drop such lines"), len(line), excerpt)
    record = value if isinstance(value, dict) else {}
    if not isinstance(record.get("text"), str):
        keys = f" It has {', '.join(list(record)[:6])}." if record else ""
        what = f'{where} has no "text": every line must be a JSON object with the document\'s text.{keys}'
        return Damage(position, "no_text", what, _KEEP.format("drop such lines"), len(line), excerpt)
    return _record(position, record)


def _record(position: int, record: dict[str, Any]) -> Record:
    def text(*names: str) -> str | None:
        return next((str(record[name]) for name in names if record.get(name) not in (None, "")), None)

    return Record(position, record["text"], text("id"), text("lang", "language"), text("source"), text("license", "licence"))


def _read_parquet(item: Input, trace: Trace, wanted: Wanted) -> Iterator[Item]:
    with open_input(item) as raw:
        while chunk := raw.read(1 << 20):  # for the digest; parquet itself is read by seeking
            trace.add(chunk)
        raw.seek(0)
        try:
            file = pq.ParquetFile(raw)
        except (pa.ArrowInvalid, OSError) as error:
            yield _broken(item, CorruptError(str(error).splitlines()[0]), 0, "nothing was read")
            return
        names = file.schema_arrow.names
        if "text" not in names:
            raise DataError(f'{item.path} has no column "text" (it has {", ".join(names[:8])}). Rename the column that holds the documents to text.')
        columns = [name for name in ("text", "id", "lang", "language", "source", "license", "licence") if name in names]
        position = 0
        try:
            for batch in file.iter_batches(_ROWS, columns=columns):
                chosen = [row for row in range(len(batch)) if wanted(position + row)]
                for row, record in zip(chosen, batch.take(arrow.indices(chosen)).to_pylist(), strict=True):
                    if isinstance(record["text"], str):
                        yield _record(position + row, record)
                    else:
                        what = f"{item.path}, row {position + row:,} has no text."
                        yield Damage(position + row, "no_text", what, _KEEP.format("drop such rows"))
                position += len(batch)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
            yield _broken(item, CorruptError(str(error).splitlines()[0]), position, f"after {position:,} documents")
            return
    trace.at_end = True


_KEEP = 'Mend it, or set corpus.on_damage = "keep" to {}, counted, and go on.'


def _not_utf8(item: Input, position: int, where: str) -> Damage:
    remedy = 'Convert it (for example with iconv -t UTF-8), or set corpus.on_damage = "keep" to drop what is damaged and go on.'
    return Damage(position, "encoding_damage", f"{item.path} is not UTF-8 {where}.", remedy)


def _broken(item: Input, error: Exception, position: int, after: str, num_bytes: int = 0) -> Damage:
    fetch = 'Fetch the file again, or set corpus.on_damage = "keep" to go on without it.'
    if isinstance(error, EndsTooSoonError):
        what = f"{item.path} ends in the middle of a record ({after}). They were read; the rest is missing."
        return Damage(position, "truncated", what, fetch, num_bytes, rest=True)
    what = f"{item.path} is damaged ({after}; {error}). The rest cannot be read."
    return Damage(position, "corrupt_file", what, fetch, num_bytes, rest=True)
