"""Which files a source means: paths, folders and globs become a sorted list; what is of no known type is listed, never silently left out."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from hagane.corpus import stores
from hagane.corpus.language import folder_language
from hagane.errors import DataError
from hagane.recipe.schema import PROBLEMS, Source

Kind = Literal["text", "markdown", "html", "notebook", "warc", "jsonl", "parquet", "python", "problems"]
KINDS: dict[str, Kind] = {
    ".txt": "text", ".rst": "text", ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html", ".ipynb": "notebook", ".warc": "warc",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip
ONE_DOCUMENT: frozenset[Kind] = frozenset({"text", "markdown", "html", "notebook"})  # a file is a document (a very large text, several)
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
KNOWN = ".txt, .md, .rst, .html, .ipynb, .warc, .jsonl (each also .gz or .zst) and .parquet"
_READERS: dict[Kind, tuple[str, ...]] = {"html": ("trafilatura",), "warc": ("warcio", "trafilatura")}  # what the extra `web` brings
EMBEDDED: dict[str, Kind] = {"embedded:python": "python", PROBLEMS: "problems"}


@dataclass(frozen=True, slots=True)
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
    identity: str = ""  # size and time or etag when it was listed
    text_field: str = "text"  # of a record: where its text is


@dataclass
class Inputs:
    """The inputs in their order (source name, file name), and the files that were not taken: suffix -> count."""

    inputs: list[Input] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    ignored_examples: list[str] = field(default_factory=list)

    def ignore(self, path: str, why: str | None = None) -> None:
        """Count a file that is not read, by its suffix or `why`."""
        file = PurePosixPath(path)
        self.ignored[why or ("hidden" if file.name.startswith(".") else "".join(file.suffixes[-2:]).lower() or "no suffix")] += 1
        if len(self.ignored_examples) < 20:
            self.ignored_examples.append(path)


def kind_of(path: PurePath) -> tuple[Kind | None, str | None]:
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
            elif stores.is_url(path):
                _stored(source, path, found, seen)
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
    _check_readers(found.inputs)
    return found


def problem_languages(sources: Sequence[Source]) -> tuple[str, ...]:
    """Those of generated problems, where a source is of them."""
    if not any(path == PROBLEMS for source in sources for path in source.path):
        return ()
    from hagane.corpus.embedded import LANGUAGES

    return tuple(LANGUAGES)


def _check_readers(inputs: Sequence[Input]) -> None:
    """Before anything is read: is there what the files need?"""
    for kind in {item.kind for item in inputs} & set(_READERS):
        for package in _READERS[kind]:
            if find_spec(package) is None:
                item = next(item for item in inputs if item.kind == kind)
                raise DataError(
                    f"{item.path} (corpus source {item.source}) cannot be read without the package {package}. "
                    "Install it with the extra `web`, pip install 'hagane[web]', or take such files out of the source."
                )


def fingerprint(sources: Sequence[Source]) -> str:
    """Digest of the names, sizes and times or etags of all input files: changes when one is added, removed or rewritten. Cheap: reads no content."""
    digest = hashlib.blake2b(digest_size=16)
    for item in list_inputs(sources, ("und",)).inputs:
        digest.update(f"{item.source}\0{item.name}\0{item.identity}\n".encode())
    return digest.hexdigest()


def check_unchanged(item: Input) -> None:
    """After reading: the file must be what it was when it was listed, or the corpus would be of no moment. Raises DataError."""
    if not item.identity:
        return
    try:
        now = stores.identity_of(item.path) if stores.is_url(item.path) else _identity(Path(item.path).stat())
    except OSError as error:
        raise DataError(f"{item.path} (corpus source {item.source}) is gone after it was read: {error.strerror or error}. Put it back and run again.") from None
    if stores.changed(item.identity, now):
        raise DataError(f"{item.path} (corpus source {item.source}) changed while it was read. Run again when nothing writes to it any more.")


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
            for folder, names in _walk(start, source.name, found):
                inner = folder.relative_to(start)
                place = _Folder(source, folder, "" if folder == start else f"{inner.as_posix()}/", [*reversed(inner.parts), *outer])
                for name in names:
                    place.add(name, found, seen, named=False)
        else:
            _Folder(source, start.parent, "", [start.parent.name]).add(start.name, found, seen, named=named)


def _walk(start: Path, source: str, found: Inputs) -> Iterator[tuple[Path, list[str]]]:
    """Folders and the names of their files, through symbolic links too; a folder is entered once, so that links may go round in a circle."""

    def refuse(error: OSError) -> None:
        raise DataError(f"corpus source {source}: folder {error.filename} cannot be read: {error.strerror}. Give read permission, or name its parts.")

    entered = {_place(start)}
    for folder, folders, names in os.walk(start, onerror=refuse, followlinks=True):
        yield Path(folder), sorted(names)
        for name in sorted(folders):
            place = _place(Path(folder) / name)
            if place is not None and place in entered:
                found.ignore(f"{folder}/{name}", "link to a folder that is read already")
                folders.remove(name)
            entered.add(place)
        folders.sort()


def _place(folder: Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _stored(source: Source, url: str, found: Inputs, seen: set[str]) -> None:
    files = stores.list_files(source.name, url)
    named = len(files) == 1 and not stores.is_pattern(url) and files[0].url.rstrip("/").endswith(stores.local_path(url).rstrip("/"))
    for file in files:
        path = PurePosixPath(stores.local_path(file.url))
        if (taken := _taken(source, path, file.url, found, named=named)) and file.url not in seen:
            seen.add(file.url)
            kind, compression = taken
            language = source.language or folder_language(list(path.parts[-2::-1]))
            found.inputs.append(
                Input(source.name, kind, file.url, file.name, file.num_bytes, compression, language, source.license, file.identity, source.text_field)
            )


def _taken(source: Source, path: PurePath, where: str, found: Inputs, *, named: bool) -> tuple[Kind, str | None] | None:
    """Kind and compression of a file of a known type. One that is not is counted; if the recipe names it, DataError."""
    kind, compression = (None, None) if path.name.startswith(".") else kind_of(path)
    if kind is not None:
        return kind, compression
    if named:
        raise DataError(f"corpus source {source.name}: {where} is of an unknown type. hagane reads {KNOWN}.")
    found.ignore(where)
    return None


class _Folder:
    """What is the same for all files of a folder, of which there may be very many; `name` is that of the folder below its source's, with a slash."""

    def __init__(self, source: Source, path: Path, name: str, folders: list[str]) -> None:
        self._source, self._path, self._name = source, "" if path == Path() else str(path), name
        self._resolved = os.path.realpath(path)
        self._language = source.language or folder_language(folders)

    def add(self, name: str, found: Inputs, seen: set[str], *, named: bool) -> None:
        """Take the file of this name, if it is of a known type and was not taken by another name."""
        path = os.path.join(self._path, name)  # noqa: PTH118 (five times as fast)
        taken = _taken(self._source, PurePath(name), path, found, named=named)
        if taken is None:
            return
        resolved = os.path.join(self._resolved, name)  # noqa: PTH118
        if os.path.islink(path):  # noqa: PTH114
            resolved = os.path.realpath(path)  # unlike Path.resolve it does not mind a link to itself: reading says what is wrong
        if resolved in seen:
            return
        seen.add(resolved)
        num_bytes, identity = _size_and_identity(path)
        own, (kind, compression) = self._source, taken
        found.inputs.append(Input(own.name, kind, path, self._name + name, num_bytes, compression, self._language, own.license, identity, own.text_field))


def _size_and_identity(path: str) -> tuple[int, str]:
    try:
        stat = os.stat(path)  # noqa: PTH116
    except OSError:  # gone, or a link that leads nowhere: said when it is read, where corpus.on_damage is known
        return 0, ""
    return stat.st_size, _identity(stat)


def _identity(stat: os.stat_result) -> str:
    return f"{stat.st_size}:mtime={stat.st_mtime_ns}"
