"""Which files a source means: paths, folders and globs become a sorted list; what is of no known type is listed, never silently left out."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hagane.corpus.language import folder_language
from hagane.errors import DataError
from hagane.recipe.schema import Source

Kind = Literal["text", "jsonl", "parquet", "python", "problems"]
KINDS: dict[str, Kind] = {".txt": "text", ".md": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
KNOWN = ".txt, .md, .jsonl (each also .gz or .zst) and .parquet"
EMBEDDED: dict[str, Kind] = {"embedded:python": "python", "embedded:problems": "problems"}


@dataclass(frozen=True)
class Input:
    """One file, or one stream of a generator, with what its source says about its documents."""

    source: str
    kind: Kind
    path: str  # where it is; for a generator `embedded:...`
    name: str  # path below the source's folder: part of document ids and of the order, the same on every machine
    num_bytes: int = 0
    compression: str | None = None
    language: str | None = None  # for documents that carry none
    license: str | None = None


@dataclass
class Inputs:
    """The inputs in their order (source name, file name), and the files that were not taken: suffix -> count."""

    inputs: list[Input] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    ignored_examples: list[str] = field(default_factory=list)

    def ignore(self, path: Path) -> None:
        self.ignored["hidden" if path.name.startswith(".") else "".join(path.suffixes[-2:]).lower() or "no suffix"] += 1
        if len(self.ignored_examples) < 20:
            self.ignored_examples.append(str(path))


def kind_of(path: Path) -> tuple[Kind | None, str | None]:
    """Kind and compression by the suffixes; (None, None) where the type is unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    kind = KINDS.get(suffixes[-2] if compression and len(suffixes) > 1 else suffixes[-1] if suffixes else "")
    if kind is None or (kind == "parquet" and compression):
        return None, None
    return kind, compression


def list_inputs(sources: Sequence[Source], languages: Sequence[str] = ()) -> Inputs:
    """All inputs of all sources in the order in which duplicates are decided. Raises DataError for what is missing or empty.

    `languages` are those of the problem generator.
    """
    if not sources:
        raise DataError("the recipe names no text: give corpus.sources, or --corpus PATH.")
    found = Inputs()
    for source in sorted(sources, key=lambda source: source.name):
        before, ignored, seen = len(found.inputs), sum(found.ignored.values()), set[str]()
        for path in source.path:
            if path.startswith("embedded:"):
                found.inputs += _embedded(source, path, languages)
            else:
                _files(source, path, found, seen)
        if len(found.inputs) == before:
            there = ", ".join(source.path)
            skipped = sum(found.ignored.values()) - ignored
            if skipped:
                kinds = ", ".join(f"{count} {suffix}" for suffix, count in found.ignored.most_common(5))
                raise DataError(f"corpus source {source.name}: {there} holds {skipped} files, none of a known type ({kinds}). hagane reads {KNOWN}.")
            raise DataError(f"corpus source {source.name}: {there} is empty. Put text there: hagane reads {KNOWN}.")
    found.inputs.sort(key=lambda item: (item.source, item.name, item.path))
    return found


def fingerprint(sources: Sequence[Source]) -> str:
    """Digest of the names, sizes and times of all input files: changes when a file is added, removed or rewritten. Cheap: reads no content."""
    digest = hashlib.blake2b(digest_size=16)
    for item in list_inputs(sources, ("und",)).inputs:
        stat = None if item.path.startswith("embedded:") else Path(item.path).stat()
        digest.update(f"{item.source}\0{item.name}\0{stat and stat.st_size}\0{stat and stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _embedded(source: Source, path: str, languages: Sequence[str]) -> list[Input]:
    kind = EMBEDDED.get(path)
    if kind is None:
        raise DataError(f"corpus source {source.name}: {path} is not an embedded corpus. There are {' and '.join(EMBEDDED)}.")
    if kind == "python":
        return [Input(source.name, kind, path, path, language=source.language, license=source.license)]
    chosen = [source.language] if source.language else languages
    return [Input(source.name, kind, path, f"{path}/{language}", language=language, license=source.license) for language in chosen]


def _files(source: Source, pattern: str, found: Inputs, seen: set[str]) -> None:
    root = Path(pattern).expanduser()
    if root.exists():
        roots = [root]
    else:
        roots = [Path(match) for match in sorted(glob.glob(str(root), recursive=True))]  # noqa: PTH207 (an absolute pattern)
        if not roots:
            problem = "nothing matches" if glob.has_magic(pattern) else "there is no file or folder"
            raise DataError(f"corpus source {source.name}: {problem} {pattern}. Was it moved or deleted since the recipe was written?")
    named = len(roots) == 1 and roots[0].is_file()
    for start in roots:
        if start.is_dir():
            outer = [start.name] if start == root else [start.name, start.parent.name]  # `sv/*` may match folders inside that of a language
            for path in _walk(start, source.name):
                inner = path.relative_to(start)
                _add(source, path, inner.as_posix(), [*inner.parts[-2::-1], *outer], found, seen, named=False)
        else:
            _add(source, start, start.name, [start.parent.name], found, seen, named=named)


def _walk(start: Path, source: str) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"corpus source {source}: folder {error.filename} cannot be read: {error.strerror}. Give read permission, or name its parts.")

    return sorted(Path(folder) / name for folder, _, names in os.walk(start, onerror=refuse) for name in names)


def _add(source: Source, path: Path, name: str, folders: list[str], found: Inputs, seen: set[str], *, named: bool) -> None:
    kind, compression = kind_of(path)
    if path.name.startswith(".") or kind is None:
        if named:
            raise DataError(f"corpus source {source.name}: {path} is of an unknown type. hagane reads {KNOWN}.")
        found.ignore(path)
        return
    resolved = str(path.resolve())
    if resolved in seen:
        return
    seen.add(resolved)
    language = source.language or folder_language(folders)
    found.inputs.append(Input(source.name, kind, str(path), name, _size(path), compression, language, source.license))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
