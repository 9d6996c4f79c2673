"""`hagane corpus rebuild`: a corpus made again from its manifest alone, and whether it is the same.

The manifest names sources, settings and seed, `files.jsonl` beside it a digest of what was read of every file, and the manifest one of every
shard: whoever has the texts can prove what a model was trained on, or see which file is another one now.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hagane.corpus import pool
from hagane.corpus.build import build_corpus
from hagane.corpus.manifest import FILES, FORMAT, MANIFEST
from hagane.corpus.removal import Removed
from hagane.corpus.versions import versions
from hagane.errors import RunError
from hagane.folder import disk_error, read_json
from hagane.recipe.load import checked
from hagane.recipe.schema import CorpusSettings, Source

_SHOWN = 10


@dataclass(frozen=True)
class Rebuilt:
    """What differs between a corpus and the one that was made again: files by what is the matter with them, shards, versions of libraries."""

    files: int
    shards: int
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    shards_differ: list[str] = field(default_factory=list)
    versions: dict[str, tuple[str, str]] = field(default_factory=dict)  # of the manifest, here

    @property
    def same(self) -> bool:
        return not (self.changed or self.gone or self.new or self.shards_differ)

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.same:
            yield f"the same: {self.files:,} files read, {self.shards:,} shards equal to the byte"
            return
        for what, names in (
            ("read otherwise than the manifest says (another content, or another part of it)", self.changed),
            ("in the manifest and not read now", self.gone),
            ("read now and not in the manifest", self.new),
            ("shards that differ", self.shards_differ),
        ):
            if names:
                yield f"{len(names):,} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for name, (before, now) in self.versions.items():
            yield f"made with {name} {before}, here it is {now}: that alone may change bytes"


def find_manifest(place: Path) -> Path:
    """The manifest that a file, a corpus folder or a run folder means. Raises RunError where there is none."""
    for path in (place, place / MANIFEST, place / "corpus" / MANIFEST):
        if path.is_file():
            return path
    raise RunError(f"{place} is no manifest, and no corpus or run folder with a {MANIFEST}.")


def rebuild(
    place: Path, folder: Path, moved: Mapping[str, str] | None = None, *, workers: int | None = None, progress: pool.Progress = pool.silent
) -> Rebuilt:
    """Make the corpus of a manifest again in `folder`, which appears whole or not at all, and compare.

    `moved`: beginnings of paths in the manifest, and where those texts are now. Raises DataError for texts that cannot be read, RunError for a
    folder that is there already or a manifest of another format.
    """
    path, moved = find_manifest(place), moved or {}
    manifest, before = read_json(path), _files(path.with_name(FILES))
    if manifest.get("format") != FORMAT:
        raise RunError(f"{path} has format {manifest.get('format')}, this hagane reads {FORMAT}. Make the corpus again with `hagane corpus RUN`.")
    if folder.exists():
        raise RunError(f"{folder} is there already. Name a folder that is not, for the corpus to be made in.")
    sources = [checked(Source, {name: value for name, value in one.items() if name in Source.model_fields}, str(path)) for one in manifest["sources"]]
    sources = [source.model_copy(update={"path": tuple(_moved(one, moved) for one in source.path)}) for source in sources]
    settings = checked(CorpusSettings, manifest["settings"], str(path))
    removed = Removed(tuple(manifest["removed"]["patterns"]), frozenset(manifest["removed"]["hashes"]))
    writing = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    try:
        writing.mkdir(parents=True)
        build_corpus(sources, settings, writing, seed=manifest["seed"], workers=workers, removed=removed, progress=progress)
        writing.rename(folder)
    except OSError as error:
        raise disk_error(error, folder) from None
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    return _compared(manifest, before, read_json(folder / MANIFEST), _files(folder / FILES), moved)


def _moved(path: str, moved: Mapping[str, str]) -> str:
    for start, now in moved.items():
        if path == start or path.startswith(start.rstrip("/") + "/"):
            return now.rstrip("/") + path[len(start.rstrip("/")) :]
    return path


def _files(path: Path) -> dict[str, dict[str, Any]]:
    """Lines of a list of files, by path."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise RunError(f"{path} is missing: it lists the files that were read, and belongs to the manifest beside it.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    return {line["path"]: line for line in lines}


def _compared(
    manifest: Mapping[str, Any], before: Mapping[str, Any], made: Mapping[str, Any], now: Mapping[str, Any], moved: Mapping[str, str]
) -> Rebuilt:
    before = {_moved(path, moved): line for path, line in before.items()}
    changed = sorted(path for path in before.keys() & now.keys() if any(before[path][name] != now[path][name] for name in ("bytes_read", "blake2b")))
    shards = manifest["shards"], made["shards"]
    differ = sorted(name for name in shards[0].keys() | shards[1].keys() if shards[0].get(name) != shards[1].get(name))
    here = versions()
    others = {name: (version, here[name]) for name, version in manifest["versions"].items() if here.get(name, version) != version}
    return Rebuilt(len(now), len(shards[1]), changed, sorted(before.keys() - now.keys()), sorted(now.keys() - before.keys()), differ, others)
