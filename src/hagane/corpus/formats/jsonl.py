"""`.jsonl`: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hagane.corpus.blocks import Trace, blocks
from hagane.corpus.inputs import Input
from hagane.corpus.records import KEEP, CorruptError, Damage, EndsTooSoonError, Item, Record, Wanted, broken, not_utf8, too_long

_EXCERPT = 200


@dataclass(frozen=True)
class _LongLine:
    num_bytes: int
    start: bytes


class _Lines:
    """Lines of a stream of blocks. One over the limit is counted but not held."""

    def __init__(self, source: Iterator[bytes], limit: int) -> None:
        self._source, self._limit = source, limit
        self._parts: list[bytes] = []
        self.num_bytes = 0  # of the line that is being put together
        self.ended = True  # whether the line just given had a line end

    def __iter__(self) -> Iterator[bytes | _LongLine]:
        for block in self._source:
            first, *others = block.split(b"\n")
            self._add(first)
            for piece in others:
                yield self._line()
                self._add(piece)
        self.ended = False
        yield self._line()

    def _add(self, piece: bytes) -> None:
        self.num_bytes += len(piece)
        if self.num_bytes <= self._limit:
            self._parts.append(piece)
        elif len(self._parts) != 1 or len(self._parts[0]) > _EXCERPT:
            self._parts = [b"".join([*self._parts, piece][:2])[:_EXCERPT]]

    def _line(self) -> bytes | _LongLine:
        parts, num_bytes = self._parts, self.num_bytes
        self._parts, self.num_bytes = [], 0
        if num_bytes > self._limit:
            return _LongLine(num_bytes, parts[0])
        return parts[0] if len(parts) == 1 else b"".join(parts)


def read_jsonl(item: Input, trace: Trace, wanted: Wanted, limit: int) -> Iterator[Item]:
    """The records of a file. Memory: about three times the longest line, which is at most `limit` bytes."""
    lines, position, line_number, num_read = _Lines(blocks(item, trace), limit), 0, 0, 0
    try:
        for line in lines:
            line_number += 1
            if not isinstance(line, _LongLine) and (not line or line.isspace()):
                continue
            if not wanted(position):
                num_read += 1
            elif isinstance(line, _LongLine):
                excerpt = line.start.decode("utf-8", "replace")
                yield too_long(f"{item.path}, line {line_number:,}", position, line.num_bytes, limit, excerpt)
            else:
                found = _parse_line(item, line, line_number, position, last=not lines.ended, num_read=num_read)
                num_read += isinstance(found, Record)
                del line  # it may be large, and the caller has work to do
                yield found
            position += 1
    except (EndsTooSoonError, CorruptError) as error:
        yield broken(item, error, position, f"after {num_read:,} documents", lines.num_bytes)


def _parse_line(item: Input, line: bytes, line_number: int, position: int, *, last: bool, num_read: int) -> Item:
    where = f"{item.path}, line {line_number:,}"
    try:
        text = line.decode("utf-8-sig" if line_number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        try:
            value = json.loads(line.decode("utf-8", "replace"))
        except json.JSONDecodeError:
            value = None
        repaired = record(item, position, value) if isinstance(value, dict) and isinstance(value.get(item.text_field), str) else None
        damage = not_utf8(item, position, f"in line {line_number:,} (byte {error.start + 1:,} of the line)")
        return Damage(position, damage.reason, damage.what, damage.remedy, len(line), line[:_EXCERPT].decode("utf-8", "replace"), record=repaired)
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        if last and num_read:  # no line end after it: the file was cut off while it was copied
            return broken(item, EndsTooSoonError(), position, f"after {num_read:,} documents", len(line))
        detail = f"{error.msg}, column {error.colno:,}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        return Damage(position, "damaged_record", f"{where} is not JSON ({detail}).", KEEP.format("drop such lines"), len(line), text[:_EXCERPT])
    value = value if isinstance(value, dict) else {}
    if not isinstance(value.get(item.text_field), str):
        keys = f" It has {', '.join(list(value)[:6])}." if value else ""
        what = f'{where} has no "{item.text_field}": every line must be a JSON object with the document\'s text.{keys}'
        return Damage(position, "no_text", what, no_text_remedy("lines", value), len(line), text[:_EXCERPT])
    return record(item, position, value)


def no_text_remedy(records: str, value: dict[str, Any]) -> str:
    """What to do about a record without text; if it may be under another name, the setting that says so."""
    other = next((name for name in ("content", "raw_content", "body", "document") if isinstance(value.get(name), str)), None)
    hint = f'If the text is in {other}, set text_field = "{other}" for the source. ' if other else ""
    return hint + KEEP.format(f"drop such {records}")


def record(item: Input, position: int, value: dict[str, Any]) -> Record:
    """A record from its fields: the text under `item.text_field`; id, language, source and licence under their usual names."""

    def text(*names: str) -> str | None:
        return next((str(value[name]) for name in names if value.get(name) not in (None, "")), None)

    return Record(position, value[item.text_field], text("id"), text("lang", "language"), text("source"), text("license", "licence"))
