"""`manifest.json`: where every document is from. Sources, licences and all counts; `files.jsonl` has a line per file with a digest of what was read of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hagane.corpus.gather import Gathered
from hagane.corpus.inputs import Inputs
from hagane.corpus.removal import Removed
from hagane.corpus.rules.measure import FEATURES
from hagane.corpus.versions import versions
from hagane.folder import file_digest, write_atomic
from hagane.recipe.schema import CorpusSettings, Source

if TYPE_CHECKING:
    from hagane.corpus.build import CorpusFacts

FORMAT = 3
MANIFEST = "manifest.json"
FILES = "files.jsonl"


@dataclass(frozen=True)
class Accounts:
    """Rows of `accounts.table` and `accounts.attribution`, and what was to be left out."""

    rows: list[dict[str, Any]]
    attribution: list[dict[str, Any]]
    removed: Removed


def write(
    folder: Path,
    sources: Sequence[Source],
    settings: CorpusSettings,
    seed: int,
    found: Inputs,
    gathered: Sequence[Gathered],
    facts: CorpusFacts,
    accounts: Accounts,
) -> None:
    """Write the manifest, with those lines of `files.jsonl` that say of `damage`, which are few."""
    read: dict[str, Counter[str]] = {source.name: Counter() for source in sources}
    damaged = []
    with (folder / FILES).open("w", encoding="utf-8") as lines:
        for entry in _files(found, gathered):
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
            read[entry["source"]].update(files=1, digests=entry["blake2b"] is not None)
            if "damage" in entry:
                damaged.append(entry)
    content = {
        "format": FORMAT,
        "versions": versions(),
        "seed": seed,
        "settings": settings.model_dump(mode="json", exclude={"sources", "workers"}),
        "sources": [source.model_dump(mode="json") | {"licenses": _licenses(source.name, facts)} | dict(read[source.name]) for source in sources],
        "files": {"list": FILES, "damaged": damaged},
        "shards": shard_digests(folder),
        "ignored_files": {"count": sum(found.ignored.values()), "by_suffix": dict(sorted(found.ignored.items())), "examples": found.ignored_examples},
        "labels": _labels(found, gathered),
        "accounts": accounts.rows,
        "attribution": accounts.attribution,
        "removed": {"patterns": sorted(set(accounts.removed.patterns)), "hashes": sorted(accounts.removed.hashes)},
        "features": {feature.name: {"rule": feature.rule, "what": feature.what, "least_spread": feature.least} for feature in FEATURES},
        "facts": facts.model_dump(mode="json", exclude={"seconds": True, "identified": {"seconds"}, "quality": {"seconds"}}),
    }
    write_atomic(folder / MANIFEST, json.dumps(content, ensure_ascii=False, indent=1))


def shard_digests(folder: Path) -> dict[str, str]:
    """Name of every file of a corpus's shards -> digest of its content."""
    return {f"{split}/{path.name}": file_digest(path) for split in ("train", "held_out") for path in sorted((folder / split).glob("*.parquet"))}


def _files(found: Inputs, gathered: Sequence[Gathered]) -> Iterator[dict[str, Any]]:
    """The line of each file. A digest is blake2b (16 bytes) of the first `bytes_read` bytes of the file; `complete` where that is all of it.

    Of tables in a store there is no digest: `identity` (size, and etag or time) says which they were. `damage`: what is wrong with a file.
    """
    file_D = np.concatenate([np.zeros(0, np.int64), *(part.file_D for result in gathered for part in result.parts)])
    set_aside = np.bincount(file_D, minlength=len(found.inputs))
    for file in (file for result in gathered for file in result.files):
        item = found.inputs[file.index]
        yield {
            "source": item.source,
            "path": item.path,
            "bytes": item.num_bytes,
            "bytes_read": file.bytes_read,
            "complete": file.complete,
            "blake2b": file.digest,
            "identity": item.identity,
            "language": item.language,
            "documents_in": file.documents_in,
            "documents_set_aside": int(set_aside[file.index]),
        } | ({"damage": list(file.damage)} if file.damage else {})


def _labels(found: Inputs, gathered: Sequence[Gathered]) -> dict[str, dict[str, int]]:
    """Source -> documents set aside by who said their language: `record`, `source` (or its folder), `classifier`, `py3langid`, `none`."""
    counts: dict[str, Counter[str]] = {}
    for result in gathered:
        counts.setdefault(found.inputs[result.index].source, Counter()).update(result.labels)
    return {source: {who: number for who, number in sorted(count.items()) if number} for source, count in sorted(counts.items())}


def _licenses(source: str, facts: CorpusFacts) -> list[str]:
    return sorted({license for shard in facts.shards.values() if shard.source == source for license in shard.license})
