"""`.warc`: pages as crawlers keep them (ISO 28500). HTML through the extractor of web pages, plain text as it is.

Our own code finds where a record begins and ends, so that one that is damaged can be named and the next one found; what is
in a record is read by warcio.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hagane.corpus.blocks import Trace, blocks
from hagane.corpus.formats.html import NotHtmlError, decode, page_of
from hagane.corpus.inputs import Input
from hagane.corpus.records import KEEP, CorruptError, Damage, Drop, EndsTooSoonError, Item, Record, Wanted, broken, too_long

_HEAD_BYTES = 1 << 16  # a record's own header is about 500 bytes
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_TYPE = re.compile(rb"^warc-type:[ \t]*(\w+)", re.IGNORECASE | re.MULTILINE)
_URI = re.compile(rb"^warc-target-uri:[ \t]*<?([^\s>]+)", re.IGNORECASE | re.MULTILINE)
_DOCUMENTS = (b"response", b"resource", b"conversion", b"continuation")  # the other types are about records, and no documents
_HTML = ("text/html", "application/xhtml+xml")
_LOOKS_LIKE_HTML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class _Framed:
    """One record: header and content, or what is known of one that is `wrong` (damaged) or too long (`data` is its header)."""

    data: bytes
    num_bytes: int
    wrong: str = ""
    cut: bool = False  # and that is because the file ends
    too_long: bool = False


class _Window:
    """The bytes ahead in a stream of blocks. An empty block stands for bytes that were lost."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self.held = bytearray()
        self.gap = False  # bytes were lost after those that are held
        self.end: Exception | None = None
        self._done = False

    def fill(self, num_bytes: int) -> bool:
        """Read on until so many bytes are held; False where the stream or a gap comes before."""
        while len(self.held) < num_bytes and not self.gap and not self._done:
            try:
                block = next(self._source, None)
            except (EndsTooSoonError, CorruptError) as error:
                block, self.end = None, error
            if block is None:
                self._done = True
            elif block:
                self.held += block
            else:
                self.gap = True
        return len(self.held) >= num_bytes

    def skip(self, num_bytes: int) -> bool:
        """Let go of so many bytes without holding them."""
        while num_bytes > len(self.held):
            num_bytes -= len(self.held)
            self.held.clear()
            if not self.fill(1):
                return False
        del self.held[:num_bytes]
        return True

    def next_record(self, start: int = 0) -> int:
        """Skip to the next `WARC/`, from `start` on, over gaps. Returns the bytes passed over."""
        passed = 0
        del self.held[:start]
        while True:
            found = self.held.find(b"WARC/")
            if found >= 0:
                del self.held[:found]
                return passed + found
            if not self.fill(len(self.held) + 1):
                if not self.gap:
                    passed += len(self.held)
                    self.held.clear()
                    return passed
                self.gap = False
                passed += len(self.held)
                self.held.clear()
            elif len(self.held) > _HEAD_BYTES:
                passed += len(self.held) - 4
                del self.held[:-4]


def _frames(window: _Window, limit: int) -> Iterator[_Framed]:
    """Records one after the other; after damage, on from the next `WARC/`."""
    while window.fill(1) or window.gap:
        if bytes(window.held[:1]) in (b"\r", b"\n"):  # two line ends close a record
            del window.held[:1]
            continue
        window.fill(_HEAD_BYTES)
        head = _END_OF_HEAD.search(window.held, 0, _HEAD_BYTES)
        length = _LENGTH.search(window.held, 0, head.end()) if head else None
        if not window.held.startswith(b"WARC/") or head is None or length is None:
            excerpt = bytes(window.held[:_HEAD_BYTES])
            yield _Framed(excerpt[:2000], window.next_record(1) + 1, wrong="it has no header" if head is None else "its header is not that of a record")
            continue
        size = head.end() + int(length[1])
        if int(length[1]) > limit:
            header = bytes(window.held[: head.end()])
            if window.skip(size):
                yield _Framed(header, size, too_long=True)
            else:
                yield _Framed(header, size, wrong="it ends too soon", cut=not window.gap)
            continue
        complete = window.fill(size)
        window.fill(size + 2)
        if complete and (bytes(window.held[size : size + 2]) in (b"\r\n", b"") or window.held[size : size + 1] == b"\n"):
            yield _Framed(bytes(window.held[:size]), size)
            del window.held[:size]
        else:  # its bytes may hold the next records: they are looked for in them
            header = bytes(window.held[: head.end()])
            cut = not complete and not window.gap
            passed = window.next_record(head.end()) + len(header)
            yield _Framed(header, passed, wrong="it ends too soon" if cut else "its length is not what its header says", cut=cut and not window.held)


def read_warc(item: Input, trace: Trace, wanted: Wanted, limit: int) -> Iterator[Item]:
    """The pages of an archive; the address is the id. Positions count the records that could be documents."""
    window = _Window(blocks(item, trace, mend=True))
    position = num_read = 0
    for frame in _frames(window, limit):
        head = frame.data[:_HEAD_BYTES]
        kind, address = _TYPE.search(head), _URI.search(head)
        url = address[1].decode("utf-8", "replace") if address else None
        where = f"{item.path}, record {position + 1:,}" + (f" ({url})" if url else "")
        if frame.cut and window.end is not None:
            break  # said below, for the file
        if frame.wrong:
            what = f"{where} is damaged: {frame.wrong}. {num_read:,} documents were read before."
            yield Damage(position, "damaged_record", what, KEEP.format("drop such records"), frame.num_bytes, head[:200].decode("utf-8", "replace"))
            position += 1
        elif kind and kind[1].lower() in _DOCUMENTS:
            if wanted(position):
                found = too_long(where, position, frame.num_bytes, limit, url or "") if frame.too_long else _document(frame.data, position, url, where)
                num_read += isinstance(found, Record)
                yield found
            position += 1
    if window.end is not None:
        yield broken(item, window.end, position, f"after {num_read:,} documents", len(window.held))


def _document(data: bytes, position: int, url: str | None, where: str) -> Item:
    """What one record holds."""
    try:
        kind, charset, status, content = _content(data)
    except Exception as error:  # warcio raises many kinds on headers and encodings that are wrong
        what = f"{where} is damaged: {type(error).__name__}: {error}."
        return Damage(position, "damaged_record", what, KEEP.format("drop such records"), len(data), data[:200].decode("utf-8", "replace"))
    if status not in (None, "200"):
        return Drop(position, "http_status", f"{where} is an answer with status {status}.", len(content), url or "")
    if kind in _HTML or (not kind and _LOOKS_LIKE_HTML.match(content[:_HEAD_BYTES])):
        try:
            page = page_of(content, charset)
        except NotHtmlError as error:
            excerpt = content[:200].decode("utf-8", "replace")
            return Damage(position, "damaged_record", f"{where} is not a web page ({error}).", KEEP.format("drop such records"), len(content), excerpt)
        return Record(position, page.text, url, page.language)
    if kind == "text/plain":
        return Record(position, decode(content, charset), url)
    return Drop(position, "not_text", f"{where} is {kind or 'of no stated type'}, neither HTML nor plain text.", len(content), url or "")


def _content(data: bytes) -> tuple[str, str | None, str | None, bytes]:
    """Media type, charset, HTTP status and decoded content of a record."""
    from warcio.recordloader import ArcWarcRecordLoader

    record: Any = ArcWarcRecordLoader().parse_record_stream(io.BytesIO(data), known_format="warc")
    http = record.http_headers
    content = record.content_stream().read()
    if record.rec_type == "continuation":
        return "a continued record", None, None, content
    headers = http or record.rec_headers
    kind, _, parameters = (headers.get_header("Content-Type") or "").partition(";")
    if http and not kind:
        kind = record.rec_headers.get_header("WARC-Identified-Payload-Type") or ""
    charset = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", parameters, re.IGNORECASE)
    return kind.strip().lower(), charset[1] if charset else None, http.get_statuscode() if http else None, content
