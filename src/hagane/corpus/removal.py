"""Documents that must not be learned from any more: the list of a run, kept in `removed.json`, and taking them out of what was made before.

A document is named by its id or a glob. What is found is listed by id and by the hash of its text, so that a copy under another id
stays out, too. The list is part of the key of the corpus stage; a corpus made again, from whatever is in the sources then, leaves them out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hagane.corpus.clean import document_hash
from hagane.folder import read_json, write_atomic

LIST = "removed.json"
_PIECE = re.compile(r"#[0-9]+\Z")
_RENAMED = re.compile(r"~[0-9a-f]{16}(?=(?:#[0-9]+)?\Z)")


@dataclass(frozen=True)
class Removed:
    """What is not to be kept: globs on ids, and hashes of texts in hexadecimal."""

    patterns: tuple[str, ...]
    hashes: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.patterns or self.hashes)

    def names(self, identity: str) -> bool:
        """Whether a document with this id is among them."""
        return matches(identity, self.patterns)

    def holds(self, text: str) -> bool:
        """Whether this text is among them."""
        return bool(self.hashes) and document_hash(text).hex() in self.hashes

    def digest(self) -> str:
        content = json.dumps([sorted(self.patterns), sorted(self.hashes)])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def matches(identity: str, patterns: Iterable[str]) -> bool:
    """Whether an id, or that of the document that a piece is of, is one of the patterns or fits one."""
    plain = _RENAMED.sub("", identity)  # the hash that was added to an id which another document had
    names = {identity, plain, _PIECE.sub("", identity), _PIECE.sub("", plain)}
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns for name in names)


def load(folder: Path, patterns: Sequence[str] = ()) -> Removed:
    """The list of a run folder, and the patterns of its recipe."""
    kept: dict[str, Any] = read_json(folder / LIST) if (folder / LIST).exists() else {"patterns": [], "hashes": []}
    return Removed((*patterns, *kept["patterns"]), frozenset(kept["hashes"]))


def add(folder: Path, patterns: Sequence[str], hashes: Iterable[str]) -> None:
    """Put more on the list of a run folder."""
    before = load(folder)
    content = {"patterns": sorted({*before.patterns, *patterns}), "hashes": sorted({*before.hashes, *hashes})}
    write_atomic(folder / LIST, json.dumps(content, ensure_ascii=False, indent=1))


def whole_id(identity: str) -> str:
    """The id of the document that a piece is of. (A document whose own id ends in # and a number is taken for a piece.)"""
    return _PIECE.sub("", identity)
