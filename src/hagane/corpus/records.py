"""What a reader gives: a document, a document that is left out by a stated limit, or damage with the sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hagane.corpus.inputs import Input


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


@dataclass(frozen=True)
class Drop:
    """A whole document that is left out as found, without being damaged: it never ends the run, and is always counted."""

    position: int
    reason: str  # too_long, not_text, http_status
    what: str
    num_bytes: int = 0
    excerpt: str = ""


Item = Record | Damage | Drop
Wanted = Callable[[int], bool]

KEEP = 'Mend it, or set corpus.on_damage = "keep" to {}, counted, and go on.'


class EndsTooSoonError(Exception):
    """The file stops in the middle of a compressed stream or of a record."""


class CorruptError(Exception):
    """The file's bytes are not what its compression or format says."""


class BombError(CorruptError):
    """A small compressed file that becomes a very large one: made to fill memory or disk, or no text."""


def not_utf8(item: Input, position: int, where: str) -> Damage:
    """Damage: bytes that are no UTF-8."""
    remedy = 'Convert it (for example with iconv -t UTF-8), or set corpus.on_damage = "keep" to drop what is damaged and go on.'
    return Damage(position, "encoding_damage", f"{item.path} is not UTF-8 {where}.", remedy)


def broken(item: Input, error: Exception, position: int, after: str, num_bytes: int = 0) -> Damage:
    """Damage that ends the file: it stops too early, is a compression bomb, or its bytes are wrong. `after` says what was read before."""
    fetch = 'Fetch the file again, or set corpus.on_damage = "keep" to go on without it.'
    if isinstance(error, EndsTooSoonError):
        what = f"{item.path} ends in the middle of a record ({after}). They were read; the rest is missing."
        return Damage(position, "truncated", what, fetch, num_bytes, rest=True)
    if isinstance(error, BombError):
        what = f"{item.path} is a compression bomb ({after}; {error}). The rest was not unpacked."
        return Damage(position, "compression_bomb", what, 'Take it out of the source, or set corpus.on_damage = "keep" to go on without it.', rest=True)
    what = f"{item.path} is damaged ({after}; {error}). The rest cannot be read."
    return Damage(position, "corrupt_file", what, fetch, num_bytes, rest=True)


def too_long(where: str, position: int, num_bytes: int, limit: int, excerpt: str = "") -> Drop:
    """A record over `corpus.max_record_bytes`. `num_bytes` may be what is known of it."""
    return Drop(position, "too_long", f"{where} has more than corpus.max_record_bytes = {limit:,} bytes.", num_bytes, excerpt)
