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

from hagane.corpus import stores
from hagane.corpus.inputs import Input
from hagane.corpus.records import BombError, CorruptError, Damage, Drop, EndsTooSoonError, Wanted, broken, too_long
from hagane.errors import DataError

READ_BYTES = 1 << 17  # compressed bytes at a time: about half a megabyte of text
BLOCK_BYTES = 1 << 20  # decompressed bytes at a time, at most (gzip)
ZSTD_BYTES = 1 << 10  # fed at a time: a zstd block of 4 bytes may become 128 KiB, so this is 32 MiB at the very most
_ZSTD_BLOCK = 1 << 17  # put together again to at least this much, which is what makes a block worth handing on
BOMB_RATIO = 256  # a 4,096-fold repeated line packs 300 times with zstd; text, logs and tables pack 3 to 50 times
BOMB_BYTES = 1 << 26  # below this much, a high ratio does no harm
_GZIP_HEAD = b"\x1f\x8b\x08"  # RFC 1952, section 2.3.1: magic and the one method there is


@dataclass
class Trace:
    """How much of a file was read, and the digest of just that part (None where the file was not read in order)."""

    num_bytes: int = 0
    at_end: bool = False
    on_bytes: Callable[[int], None] | None = None
    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, chunk: bytes) -> None:
        self.num_bytes += len(chunk)
        if self.digest is not None:
            self.digest.update(chunk)
        if self.on_bytes:
            self.on_bytes(len(chunk))

    def add_unordered(self, num_bytes: int) -> None:
        """Bytes read by seeking: counted, and no digest of a beginning can be given."""
        self.digest = None
        self.num_bytes += num_bytes
        if self.on_bytes:
            self.on_bytes(num_bytes)


def open_input(item: Input) -> BinaryIO:
    """Open for reading, or DataError that says what to do."""
    try:
        return stores.open_url(item.path) if stores.is_url(item.path) else Path(item.path).open("rb")
    except FileNotFoundError:
        raise DataError(f"{item.path} (corpus source {item.source}) is gone: it was there when the files were listed. Put it back and run again.") from None
    except PermissionError:
        raise DataError(f"{item.path} (source {item.source}) cannot be read: no permission. Give read permission, or take it out of the source.") from None
    except OSError as error:
        raise DataError(f"{item.path} (corpus source {item.source}) cannot be read: {error.strerror or error}.") from None


def blocks(item: Input, trace: Trace, *, mend: bool = False) -> Iterator[bytes]:
    """Decompressed bytes of a file in order. Raises EndsTooSoonError or CorruptError *after* the last good block, DataError where it cannot be opened.

    `mend`: of a gzip file that is one member per record, a damaged member is skipped, and an empty block given in its place.
    """
    with open_input(item) as file:
        chunks = _chunks(item, file, trace)
        if item.compression is None:
            yield from chunks
        elif item.compression == "gzip":
            yield from _checked(_gunzipped(chunks, mend), trace)
        else:
            yield from _checked(_unzstd(chunks), trace)
    trace.at_end = True


def whole(item: Input, trace: Trace, wanted: Wanted, limit: int) -> bytes | Damage | Drop | None:
    """All bytes of a file that is one document, or what a reader gives in their place: Damage where it cannot be read, None where it is not wanted.

    Drop as soon as it has more than `limit`.
    """
    held: list[bytes] = []
    total = 0
    try:
        for block in blocks(item, trace):
            total += len(block)
            if total > limit:
                return too_long(item.path, 0, max(total, item.num_bytes), limit) if wanted(0) else None
            held.append(block)
    except (EndsTooSoonError, CorruptError) as error:
        return broken(item, error, 0, "nothing was read")
    return b"".join(held) if wanted(0) else None


def _chunks(item: Input, file: BinaryIO, trace: Trace) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(READ_BYTES)
        except OSError as error:
            raise DataError(f"{item.path} (source {item.source}) cannot be read: {error.strerror or error}.") from None
        if not chunk:
            return
        trace.add(chunk)
        yield chunk


def _checked(source: Iterator[bytes], trace: Trace) -> Iterator[bytes]:
    """The same blocks, until they are so much more than what was read that they cannot be text."""
    total = 0
    for block in source:
        total += len(block)
        if total > BOMB_BYTES and total > BOMB_RATIO * trace.num_bytes:
            raise BombError(f"{trace.num_bytes:,} bytes became {total:,}")
        yield block


def _gunzipped(chunks: Iterator[bytes], mend: bool) -> Iterator[bytes]:
    decoder: Any = zlib.decompressobj(wbits=31)
    fed = True  # a compressed file of no bytes at all has lost its head, too
    for chunk in chunks:
        while chunk:
            if decoder is None:  # after damage: the next member
                found = chunk.find(_GZIP_HEAD)
                if found < 0:
                    break
                chunk, decoder = chunk[found:], zlib.decompressobj(wbits=31)
            try:
                block = decoder.decompress(chunk, BLOCK_BYTES)
            except zlib.error as error:
                if not mend:
                    raise CorruptError(str(error)) from None
                yield b""
                decoder, chunk, fed = None, chunk[1:], False
                continue
            fed = True
            if block:
                yield block
            if decoder.eof:  # another member may follow; zeros are allowed for padding
                chunk = decoder.unused_data.lstrip(b"\0")
                decoder, fed = zlib.decompressobj(wbits=31), False
            else:
                chunk = decoder.unconsumed_tail
    if fed:
        raise EndsTooSoonError


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    decoder, fed = zstandard.ZstdDecompressor().decompressobj(), True
    held: list[bytes] = []
    num_held = 0
    pieces = (chunk[start : start + ZSTD_BYTES] for chunk in chunks for start in range(0, len(chunk), ZSTD_BYTES))
    for piece in pieces:
        while piece:
            try:
                block = decoder.decompress(piece)
            except zstandard.ZstdError as error:
                if held:
                    yield b"".join(held)
                raise CorruptError(str(error)) from None
            fed = True
            held.append(block)
            num_held += len(block)
            if num_held >= _ZSTD_BLOCK:
                yield b"".join(held)
                held, num_held = [], 0
            if not decoder.eof:
                break
            piece = decoder.unused_data  # another frame may follow
            decoder, fed = zstandard.ZstdDecompressor().decompressobj(), False
    if held:
        yield b"".join(held)
    if fed:
        raise EndsTooSoonError
