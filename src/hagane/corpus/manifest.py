"""`manifest.json`: where every document is from. Sources, licences, the files with digests of what was read of them, and all counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hagane.corpus.gather import Gathered
from hagane.corpus.inputs import Inputs
from hagane.corpus.removal import Removed
from hagane.corpus.rules.measure import FEATURES
from hagane.folder import write_atomic
from hagane.recipe.schema import CorpusSettings, Source

if TYPE_CHECKING:
    from hagane.corpus.build import CorpusFacts

FORMAT = 2


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
    """Write the manifest. A digest is blake2b (16 bytes) of the first `bytes_read` bytes of the file; `complete` where that is all of it.

    Of tables in a store there is no digest: `identity` (size, and etag or time) says which they were. `damage`: what is wrong with a file.
    """
    files: list[dict[str, Any]] = []
    for result in gathered:
        item = found.inputs[result.index]
        files.append(
            {
                "source": item.source,
                "path": item.path,
                "bytes": item.num_bytes,
                "bytes_read": result.bytes_read,
                "complete": result.complete,
                "blake2b": result.digest,
                "identity": item.identity,
                "language": item.language,
                "documents_in": result.documents_in,
                "documents_set_aside": sum(len(part.bytes_D) for part in result.parts),
            }
            | ({"damage": result.damage} if result.damage else {})
        )
    content = {
        "format": FORMAT,
        "seed": seed,
        "settings": settings.model_dump(mode="json", exclude={"sources", "workers"}),
        "sources": [source.model_dump(mode="json") | {"licenses": _licenses(source.name, facts)} for source in sources],
        "files": files,
        "ignored_files": {"count": sum(found.ignored.values()), "by_suffix": dict(sorted(found.ignored.items())), "examples": found.ignored_examples},
        "labels": _labels(found, gathered),
        "accounts": accounts.rows,
        "attribution": accounts.attribution,
        "removed": {"patterns": sorted(set(accounts.removed.patterns)), "hashes": sorted(accounts.removed.hashes)},
        "features": {feature.name: {"rule": feature.rule, "what": feature.what, "least_spread": feature.least} for feature in FEATURES},
        "facts": facts.model_dump(mode="json", exclude={"seconds": True, "identified": {"seconds"}, "quality": {"seconds"}}),
    }
    write_atomic(folder / "manifest.json", json.dumps(content, ensure_ascii=False, indent=1))


def _labels(found: Inputs, gathered: Sequence[Gathered]) -> dict[str, dict[str, int]]:
    """Source -> documents set aside by who said their language: `record`, `source` (or its folder), `classifier`, `py3langid`, `none`."""
    counts: dict[str, Counter[str]] = {}
    for result in gathered:
        counts.setdefault(found.inputs[result.index].source, Counter()).update(result.labels)
    return {source: {who: number for who, number in sorted(count.items()) if number} for source, count in sorted(counts.items())}


def _licenses(source: str, facts: CorpusFacts) -> list[str]:
    return sorted({license for shard in facts.shards.values() if shard.source == source for license in shard.license})
