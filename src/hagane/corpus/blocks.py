"""Decompressed blocks of a file, one at a time, with the digest of what was read. Knows when a compressed file stops too early.

The readers of the standard library and of zstandard hide where a damaged file ends; the decompressor objects do not.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from hagane.corpus.inputs import Input
from hagane.errors import DataError

READ_BYTES = 1 << 17  # compressed bytes at a time: about half a megabyte of text


class EndsTooSoonError(Exception):
    """The file stops in the middle of a compressed stream or of a record."""


class CorruptError(Exception):
    """The file's bytes are not what its compression or format says."""


@dataclass
class Trace:
    """How much of a file was read, and the digest of just that part."""

    num_bytes: int = 0
    at_end: bool = False
    on_bytes: Callable[[int], None] | None = None
    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, chunk: bytes) -> None:
        self.num_bytes += len(chunk)
        self.digest.update(chunk)
        if self.on_bytes:
            self.on_bytes(len(chunk))


def open_input(item: Input) -> BinaryIO:
    """Open for reading, or DataError that says what to do."""
    try:
        return Path(item.path).open("rb")
    except FileNotFoundError:
        raise DataError(f"{item.path} (corpus source {item.source}) is gone: it was there when the files were listed. Put it back and run again.") from None
    except PermissionError:
        raise DataError(f"{item.path} (source {item.source}) cannot be read: no permission. Give read permission, or take it out of the source.") from None
    except OSError as error:
        raise DataError(f"{item.path} (corpus source {item.source}) cannot be read: {error.strerror}.") from None


def blocks(item: Input, trace: Trace) -> Iterator[bytes]:
    """Decompressed bytes of a file in order. Raises EndsTooSoonError or CorruptError *after* the last good block, DataError where it cannot be opened."""
    with open_input(item) as file:
        chunks = _chunks(item, file, trace)
        if item.compression is None:
            yield from chunks
        else:
            yield from _decompressed(chunks, item.compression)
    trace.at_end = True


def _chunks(item: Input, file: BinaryIO, trace: Trace) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(READ_BYTES)
        except OSError as error:
            raise DataError(f"{item.path} (source {item.source}) cannot be read: {error.strerror}.") from None
        if not chunk:
            return
        trace.add(chunk)
        yield chunk


def _decompressed(chunks: Iterator[bytes], compression: str) -> Iterator[bytes]:
    def new() -> Any:
        return zlib.decompressobj(wbits=31) if compression == "gzip" else zstandard.ZstdDecompressor().decompressobj()

    decoder, fed = new(), True  # a compressed file of no bytes at all has lost its head, too
    for chunk in chunks:
        while chunk:
            try:
                block = decoder.decompress(chunk)
            except (zlib.error, zstandard.ZstdError) as error:
                raise CorruptError(str(error)) from None
            fed = True
            if block:
                yield block
            if not decoder.eof:
                break
            chunk = decoder.unused_data  # another member or frame may follow; gzip allows zeros for padding
            if compression == "gzip":
                chunk = chunk.lstrip(b"\0")
            decoder, fed = new(), False
    if fed:
        raise EndsTooSoonError
