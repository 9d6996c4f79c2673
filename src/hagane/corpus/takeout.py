"""`hagane corpus remove`: documents are taken out of what a run has on disk, at once, in this order.

The list of the run; every parquet file of the corpus, earlier ones under `superseded` too; examples of dropped documents; counts; and the
shards of token ids, which are deleted as a whole, since the next walk must write them anew in any case. Weights cannot forget: the
training stages that saw a document are named.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hagane.corpus import arrow, removal
from hagane.corpus.clean import document_hash
from hagane.corpus.datacard import write_card
from hagane.corpus.documents import open_shard
from hagane.corpus.manifest import shard_digests
from hagane.folder import read_json, write_atomic

_TRAINING = ("pretrain", "midtrain", "extend", "tune")


@dataclass
class Taken:
    """Ids that were found and taken out, stages that trained on some of them, and the facts of the corpus as they are now."""

    documents: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    facts: dict[str, Any] | None = None


@dataclass
class _Cut:
    """What was cut out of one shard: pieces and their bytes, by split."""

    rows: dict[str, int] = field(default_factory=lambda: {"train": 0, "held_out": 0})
    num_bytes: dict[str, int] = field(default_factory=lambda: {"train": 0, "held_out": 0})
    licenses: dict[str, tuple[str, int]] = field(default_factory=dict)  # id of a document -> its licence, its bytes


def take_out(run: Path, patterns: Sequence[str]) -> Taken:
    """Take the documents out of a run folder. Raises DataError or RunError for a damaged one."""
    corpora = [folder for folder in [run / "corpus", *sorted((run / "superseded").glob("corpus-*"))] if folder.is_dir()]
    found = {folder: _find(folder, patterns) for folder in corpora}
    names = sorted({name for own in found.values() for name in own})
    hashes = {value for own in found.values() for value in own.values()}
    removal.add(run, [*patterns, *names], hashes)
    taken = Taken(names)
    in_training = False
    for folder, own in found.items():
        cuts = _cut(folder, patterns)
        in_training |= any(cut.rows["train"] for cut in cuts.values())
        _forget_examples(folder, patterns)
        if own and (folder / "manifest.json").exists():
            facts = _counted(folder, cuts, len(own), removal.load(run))
            if folder == run / "corpus":
                taken.facts = facts
    if names:
        for shards in [run / "encode", *(run / "superseded").glob("encode-*")]:
            shutil.rmtree(shards, ignore_errors=True)
    if in_training:
        stages = [*(run / stage for stage in _TRAINING), *(path for stage in _TRAINING for path in (run / "superseded").glob(f"{stage}-*"))]
        taken.trained = [str(path.relative_to(run)) for path in stages if (path / "key.json").exists()]
    return taken


def _shards(folder: Path) -> list[Path]:
    return sorted(path for split in ("train", "held_out") for path in (folder / split).glob("*.parquet"))


def _find(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """Ids of documents of a corpus that fit, with the hash of the text of each: pieces put together again."""
    texts: dict[str, list[str]] = defaultdict(list)
    for path in _shards(folder):
        with open_shard(path) as file:
            for batch in file.iter_batches(256, columns=["id", "text"]):
                names = batch.column("id").to_pylist()
                for row, name in enumerate(names):
                    if removal.matches(name, patterns):
                        texts[removal.whole_id(name)].append(batch.column("text")[row].as_py())
    return {name: document_hash("".join(pieces)).hex() for name, pieces in texts.items()}


def _cut(folder: Path, patterns: Sequence[str]) -> dict[str, _Cut]:
    """Write every file that holds a document to go anew without it."""
    cuts: dict[str, _Cut] = defaultdict(_Cut)
    for path in _shards(folder):
        temporary, split = path.with_suffix(".writing"), path.parent.name
        cut = _Cut()
        with open_shard(path) as file, pq.ParquetWriter(temporary, file.schema_arrow, compression="zstd", compression_level=1) as writer:
            for number in range(file.num_row_groups):
                group: pa.Table = file.read_row_group(number)
                goes = np.array([removal.matches(name, patterns) for name in group["id"].to_pylist()], bool)
                for row in np.flatnonzero(goes).tolist():
                    name, size = removal.whole_id(group["id"][row].as_py()), len(group["text"][row].as_py().encode())
                    license, before = cut.licenses.get(name, (group["license"][row].as_py(), 0))
                    cut.licenses[name] = (license, before + size)
                    cut.rows[split] += 1
                    cut.num_bytes[split] += size
                kept = group.filter(arrow.mask(~goes)) if goes.any() else group
                if len(kept):
                    writer.write_table(kept)
        if cut.rows[split]:
            temporary.replace(path)
            for counts, more in ((cuts[path.stem].rows, cut.rows), (cuts[path.stem].num_bytes, cut.num_bytes)):
                counts[split] += more[split]
            cuts[path.stem].licenses |= cut.licenses
        else:
            temporary.unlink()
    return cuts


def _forget_examples(folder: Path, patterns: Sequence[str]) -> None:
    path = folder / "dropped.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not removal.matches(str(json.loads(line).get("id", "")), patterns)]
        if len(kept) < len(lines):
            write_atomic(path, "".join(kept))


def _counted(folder: Path, cuts: dict[str, _Cut], documents: int, removed: removal.Removed) -> dict[str, Any]:
    """The facts of a corpus with what went counted as removed; its manifest and card are written to fit."""
    manifest = read_json(folder / "manifest.json")
    record = read_json(folder / "facts.json") if (folder / "facts.json").exists() else {"facts": manifest["facts"]}
    facts: dict[str, Any] = record["facts"]
    for name, cut in cuts.items():
        shard = facts["shards"][name]
        for split, prefix in (("train", ""), ("held_out", "held_out_")):
            shard[f"{prefix}documents"] -= cut.rows[split]
            shard[f"{prefix}bytes"] -= cut.num_bytes[split]
    gone = sum(sum(cut.num_bytes.values()) for cut in cuts.values())
    facts["documents_kept"] -= sum(sum(cut.rows.values()) for cut in cuts.values())
    facts["bytes_kept"] -= gone
    before = facts["dropped"].get("removed", {"documents": 0, "bytes": 0})
    facts["dropped"]["removed"] = {"documents": before["documents"] + documents, "bytes": before["bytes"] + gone}
    for name, cut in cuts.items():
        _account(manifest["accounts"], facts["shards"][name], cut)
    manifest["facts"] = {name: value for name, value in facts.items() if name != "seconds"}
    manifest["removed"] = {"patterns": sorted(set(removed.patterns)), "hashes": sorted(removed.hashes)}
    manifest["shards"] = shard_digests(folder)
    write_atomic(folder / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1))
    write_card(folder)
    return facts


def _account(rows: list[dict[str, Any]], shard: dict[str, Any], cut: _Cut) -> None:
    """Move the documents that went from kept to dropped, licence by licence."""
    source, language = shard["source"], shard["language"]
    for row in rows:
        own = [size for license, size in cut.licenses.values() if (row["source"], row["license"], row["language"]) == (source, license, language)]
        if own:
            entry = row["dropped"].setdefault("removed", {"documents": 0, "bytes": 0})
            for counts, sign in ((row["kept"], -1), (entry, 1)):
                counts["documents"] += sign * len(own)
                counts["bytes"] += sign * sum(own)
