"""The corpus stage: inputs in, documents kept and held out, counted, with their licences.

Two passes, both parallel: every input is read and its documents set aside by language (`gather.py`); what stays and what is held out
is decided from what is known of all (`decide.py`); every shard is then written from what was set aside. Between the two, documents
without a label get a language (`relabel.py`). The result depends on the inputs, the settings and the seed, not on the number
of processes.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from hagane.corpus import arrow, manifest, overlap, pool
from hagane.corpus.accounts import attribution, table
from hagane.corpus.datacard import write_card
from hagane.corpus.decide import HELD_OUT, TRAIN, Decided, RuleFacts, Shard, decide
from hagane.corpus.dropped import Dropped
from hagane.corpus.gather import Gathered, Planned, Task, gather, grouped
from hagane.corpus.inputs import Input, Inputs, list_inputs, problem_languages
from hagane.corpus.licenses import wants_attribution
from hagane.corpus.parts import BATCH_BYTES, SCHEMA, Part
from hagane.corpus.quality import QualityFacts, divide
from hagane.corpus.relabel import IdentifyFacts, relabel
from hagane.corpus.removal import Removed
from hagane.corpus.rules import lines
from hagane.corpus.sample import EXCERPT_BYTES, Take, corrected, plan_sample
from hagane.corpus.stores import is_url
from hagane.errors import DataError
from hagane.recipe.schema import CorpusSettings, Source
from hagane.recipe.types import Frozen

MAX_MERGED = 1024  # batches of small files in one row group: each may hold a memory map, of which a process has some 65,000
_PARTS = ".parts"  # of a corpus that is being made: what was set aside, and shards that are not whole yet
_LANG, _TEXT = SCHEMA.get_field_index("lang"), SCHEMA.get_field_index("text")


class Count(Frozen):
    documents: int
    bytes: int


class ShardFacts(Frozen):
    """One `{source}.{language}` of the corpus, or a bucket of it (`{source}.{language}.q1`).

    Documents are pieces where long ones were cut, bytes are of UTF-8 text.
    """

    source: str
    language: str
    license: tuple[str, ...]
    documents: int
    bytes: int
    held_out_documents: int
    held_out_bytes: int
    bucket: int | None = Field(None, description="of quality, 1 is the best; None where the language is not divided")
    repeats: float = Field(1.0, description="how often it is read against other shards of its language")


class CorpusFacts(Frozen):
    """What became of the documents. `documents_in` counts those that were looked at (a sample leaves the others unread)."""

    documents_in: int
    bytes_in: int
    documents_kept: int
    bytes_kept: int
    dropped: dict[str, Count]
    repaired: dict[str, int] = Field(default_factory=dict, description="documents in which something was put right, dropped ones among them")
    excerpts: int = Field(0, description="documents of which the sample took a stretch only, dropped ones among them")
    masked: dict[str, dict[str, int]] = Field(default_factory=dict, description="source -> kind of personal data -> places masked")
    shards: dict[str, ShardFacts]
    files: int = Field(description="input files read")
    files_not_needed: int = Field(description="input files that the sample did not need")
    ignored_files: dict[str, int] = Field(description="files of unknown type in the folders, by suffix")
    repeated_ids: int = Field(0, description="documents whose id another one had already: the hash of their text was added to it")
    identified: IdentifyFacts | None = Field(None, description="how languages were told apart; None where every document had a label")
    quality: QualityFacts | None = Field(None, description="how text was divided by quality; None where corpus.quality is off")
    rules: RuleFacts | None = Field(None, description="where the rules drew the line in each language; None where they did not apply")
    seconds: float


def build_corpus(
    sources: Sequence[Source],
    settings: CorpusSettings,
    folder: Path,
    *,
    seed: int = 0,
    workers: pool.Workers | None = None,
    removed: Removed | None = None,
    progress: pool.Progress = pool.silent,
) -> CorpusFacts:
    """Write `train/` and `held_out/{source}.{language}.parquet`, `manifest.json`, `files.jsonl` and `dropped.jsonl` into `folder`, which exists.

    `workers` None: all cores; it may be a cluster. `removed`: documents to leave out, those of `settings` where not given.
    Raises DataError for files that are missing, damaged (unless `on_damage` is "keep") or empty.
    """
    started = time.monotonic()
    removed = removed or Removed(settings.remove)
    found = list_inputs(sources, problem_languages(sources))
    shares = {source.name: source.share for source in sources if source.share}
    takes = plan_sample(found.inputs, settings.sample_bytes, shares, seed, settings.stretch_bytes or EXCERPT_BYTES)
    parts_folder = folder / _PARTS
    parts_folder.mkdir()
    try:
        if not isinstance(workers, int | None):
            workers.share(parts_folder, _one_file_each(found))
        excluded = None
        if settings.exclude:
            excluded = parts_folder / "excluded.npy"
            np.save(excluded, overlap.evaluation_runs(settings.exclude))
        task = Task((), settings, parts_folder, removed, excluded)
        gathered = _gather(found.inputs, takes, task, shares, seed, workers, progress)
        dropped = Dropped()
        for result in gathered:
            dropped.merge(result.dropped)
        identified = relabel(found.inputs, gathered, settings.identify, dropped, seed=seed, workers=workers, progress=progress)
        decided = decide(found.inputs, gathered, settings, dropped, progress)
        generated = frozenset(source.name for source in sources if all(path.startswith("embedded:") for path in source.path))
        decided.shards, quality = divide(decided.shards, settings.quality, generated, workers=workers, progress=progress)
        written = _write_shards(decided.shards, folder, workers, progress)
    finally:
        shutil.rmtree(parts_folder, ignore_errors=True)
    facts = _facts(found, gathered, dropped, written, decided, identified, quality, time.monotonic() - started)
    accounts = manifest.Accounts(table(dropped.accounts, decided.kept), attribution(decided.kept, _to_attribute(decided, settings)), removed)
    manifest.write(folder, sources, settings, seed, found, gathered, facts, accounts)
    write_card(folder)
    _write_dropped(folder / "dropped.jsonl", dropped)
    if not facts.documents_kept:
        reasons = ", ".join(f"{count.documents:,} {reason}" for reason, count in facts.dropped.items()) or "there were none"
        raise DataError(f"no document of the corpus was kept (of {facts.documents_in:,}: {reasons}). Look at the files, or lower corpus.min_characters.")
    return facts


def _one_file_each(found: Inputs) -> list[str]:
    """Of every source a file that is on a disk."""
    return list({item.source: item.path for item in reversed(found.inputs) if item.kind not in ("python", "problems") and not is_url(item.path)}.values())


def _gather(
    inputs: Sequence[Input],
    takes: Sequence[Take],
    like: Task,
    shares: Mapping[str, float],
    seed: int,
    workers: pool.Workers | None,
    progress: pool.Progress,
) -> list[Gathered]:
    """Read what is to be taken of the inputs; where the sample comes out far too small because their sizes were estimated wrongly, some of them again.

    `like`: a task without inputs.
    """

    def read(tasks: Sequence[Task], what: str) -> list[Gathered]:
        expected = round(sum(one.take.expected_bytes for task in tasks for one in task.inputs))
        use = pool.useful_workers(workers, sum(map(_cost, tasks)), len(tasks))
        return list(pool.run_in_order(gather, tasks, use, what=what, total=expected, progress=progress))

    def tasks(indices: Sequence[int], takes: Sequence[Take], folder: Path) -> list[Task]:
        planned = [Planned(index, inputs[index], takes[index]) for index in indices if takes[index].budgets != {}]
        return [replace(like, inputs=group, folder=folder) for group in grouped(planned)]

    gathered = read(tasks(range(len(inputs)), takes, like.folder), "corpus: reading")
    settings = like.settings
    if settings.sample_bytes is None:
        return gathered
    seen = {file.index: file.seen(inputs[file.index].num_bytes) for result in gathered for file in result.files}
    better = corrected(inputs, takes, seen, settings.sample_bytes, shares, seed, settings.stretch_bytes or EXCERPT_BYTES)
    changed = {index for index, (one, other) in enumerate(zip(takes, better, strict=True)) if one != other}
    if not changed:
        return gathered
    kept = [result for result in gathered if not any(file.index in changed for file in result.files)]
    whole = {file.index for result in kept for file in result.files}
    place = like.folder / "again"  # a worker of the first reading that seemed lost may still write there
    place.mkdir()
    again = read(tasks([index for index in range(len(inputs)) if index not in whole], better, place), "corpus: reading again")
    return sorted([*kept, *again], key=lambda result: result.index)


def _cost(task: Task) -> int:
    """Expected bytes to read, as many as would take the same time from a file where they are generated or parsed."""
    return round(sum(one.take.expected_bytes * {"problems": 16, "python": 4}.get(one.item.kind, 1) for one in task.inputs))


def _write_shards(shards: list[Shard], folder: Path, workers: pool.Workers | None, progress: pool.Progress) -> list[ShardFacts]:
    (folder / "train").mkdir()
    (folder / "held_out").mkdir()
    for shard in shards:
        shard.folder = folder
    total = sum(int(part.bytes_P.sum()) for shard in shards for part in shard.parts)
    use = pool.useful_workers(workers, total // 4, len(shards))  # writing costs about a quarter of reading
    return list(pool.run_in_order(_write_shard, shards, use, what="corpus: writing", total=total, progress=progress))


def _write_shard(shard: Shard) -> ShardFacts:
    counts = {TRAIN: [0, 0], HELD_OUT: [0, 0]}
    for place, name in ((TRAIN, "train"), (HELD_OUT, "held_out")):
        if not any((places == place).any() for places in shard.place_P):
            continue
        path = shard.folder / name / f"{shard.name}.parquet"
        partial = shard.folder / _PARTS / f"{name}.{path.name}.{pool.attempt()}"
        with pq.ParquetWriter(partial, SCHEMA, compression="zstd", compression_level=1) as writer:
            groups = _RowGroups(writer)
            for part, places, repeated in zip(shard.parts, shard.place_P, shard.repeated_D, strict=True):
                chosen = places == place
                rows, num_bytes = _copy(part, chosen, repeated, shard, groups)
                counts[place][0] += rows
                counts[place][1] += num_bytes
                pool.count(int(part.bytes_P[chosen].sum()))
            groups.flush()
        partial.replace(path)
    licenses = tuple(sorted({license for part in shard.parts for license in part.licenses}))
    (documents, num_bytes), (held_documents, held_bytes) = counts[TRAIN], counts[HELD_OUT]
    return ShardFacts(
        source=shard.source,
        language=shard.language,
        license=licenses,
        documents=documents,
        bytes=num_bytes,
        held_out_documents=held_documents,
        held_out_bytes=held_bytes,
        bucket=shard.bucket,
        repeats=shard.repeats,
    )


class _RowGroups:
    """Writes batches as row groups, and many small ones as one: a file of one document is not worth a row group."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.RecordBatch] = []
        self._num_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        if batch.nbytes >= BATCH_BYTES // 2:
            self.flush()
        self._waiting.append(batch)
        self._num_bytes += batch.nbytes
        if self._num_bytes >= BATCH_BYTES // 2 or len(self._waiting) == MAX_MERGED:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting).combine_chunks())
        self._waiting, self._num_bytes = [], 0


def _copy(part: Part, chosen_P: NDArray[np.bool_], repeated_D: NDArray[np.bool_], shard: Shard, groups: _RowGroups) -> tuple[int, int]:
    """Write the chosen pieces; returns how many there are and the bytes of their text, boilerplate and held-out paragraphs cut out."""
    rows, num_bytes = 0, 0
    if not chosen_P.any():
        return rows, num_bytes
    with pa.memory_map(str(part.path)) as source:
        reader = pa.ipc.open_file(source)
        for number, start in enumerate(part.start_B):
            batch = reader.get_batch(number)
            of_batch = chosen_P & (part.row_P >= start) & (part.row_P < start + len(batch))
            keep = np.zeros(len(batch), bool)
            keep[part.row_P[of_batch] - start] = True
            if not keep.any():
                continue
            if batch.column(_LANG)[0].as_py() != part.language:  # identified after it was set aside without a label
                batch = batch.set_column(_LANG, SCHEMA.field(_LANG), arrow.strings([part.language] * len(batch)))
            if not keep.all():
                batch = batch.filter(arrow.mask(keep))
            document_R, own_bytes = part.document_P[of_batch], int(part.bytes_P[of_batch].sum())
            batch = _with_own_ids(batch, part, document_R, repeated_D)
            if part.cut_D[document_R].any() or part.leak_D[document_R].any():
                batch, fewer = _cut(batch, part, document_R, shard)
                own_bytes -= fewer
            groups.add(batch)
            rows, num_bytes = rows + len(batch), num_bytes + own_bytes
    return rows, num_bytes


def _cut(batch: pa.RecordBatch, part: Part, document_R: NDArray[np.int64], shard: Shard) -> tuple[pa.RecordBatch, int]:
    """The batch with lines of boilerplate and held-out paragraphs cut out, pieces that were nothing else left out, and how many bytes fewer it has."""
    texts = batch.column(_TEXT).to_pylist()
    before = sum(len(text.encode()) for text in texts)
    rows = np.flatnonzero(part.cut_D[document_R]).tolist()
    origins = [part.groups[part.group_D[document_R[row]]][0] for row in rows]
    for row, (text, _) in zip(rows, lines.without([texts[row] for row in rows], origins, shard.boilerplate), strict=True):
        texts[row] = text
    for row in np.flatnonzero(part.leak_D[document_R]).tolist():
        texts[row] = overlap.without_overlap(texts[row], shard.held_out) or ""
    texts = [text if text.strip() else "" for text in texts]
    batch = batch.set_column(_TEXT, SCHEMA.field(_TEXT), arrow.strings(texts))
    filled = np.array([bool(text) for text in texts])
    return (batch if filled.all() else batch.filter(arrow.mask(filled))), before - sum(len(text.encode()) for text in texts)


def _with_own_ids(batch: pa.RecordBatch, part: Part, document_R: NDArray[np.int64], repeated_D: NDArray[np.bool_]) -> pa.RecordBatch:
    """The batch with the hash of the text added to the ids that another document has."""
    if not repeated_D[document_R].any():
        return batch
    pieces_D = np.bincount(part.document_P, minlength=len(repeated_D))
    names = batch.column(0).to_pylist()
    for row, document in enumerate(document_R):
        if repeated_D[document]:
            name, mark, piece = names[row].rpartition("#") if pieces_D[document] > 1 else (names[row], "", "")
            names[row] = f"{name}~{part.hash_D2[document, 0]:016x}{mark}{piece}"
    return pa.RecordBatch.from_arrays([arrow.strings(names), *batch.columns[1:]], schema=SCHEMA)


def _facts(
    found: Inputs,
    gathered: Sequence[Gathered],
    dropped: Dropped,
    shards: Sequence[ShardFacts],
    decided: Decided,
    identified: IdentifyFacts | None,
    quality: QualityFacts | None,
    seconds: float,
) -> CorpusFacts:
    reasons = Counter(dropped.documents)
    read = [file for result in gathered for file in result.files]
    return CorpusFacts(
        documents_in=sum(file.documents_in for file in read),
        bytes_in=sum(file.bytes_in for file in read),
        documents_kept=sum(shard.documents + shard.held_out_documents for shard in shards),
        bytes_kept=sum(shard.bytes + shard.held_out_bytes for shard in shards),
        dropped={reason: Count(documents=count, bytes=dropped.num_bytes[reason]) for reason, count in sorted(reasons.items())},
        repaired=dict(sorted(dropped.repaired.items())),
        excerpts=dropped.excerpts,
        masked=_by_source(dropped.masked),
        shards={shard.name: facts for shard, facts in zip(decided.shards, shards, strict=True)},
        files=len(read),
        files_not_needed=len(found.inputs) - len(read),
        ignored_files=dict(sorted(found.ignored.items())),
        repeated_ids=decided.repeated_ids,
        rules=decided.rules,
        quality=quality,
        identified=identified,
        seconds=round(seconds, 3),
    )


def _to_attribute(decided: Decided, settings: CorpusSettings) -> set[str]:
    return {own.account.license for own in decided.kept if wants_attribution(own.account.license, settings.licenses)}


def _by_source(masked: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (source, kind), count in sorted(masked.items()):
        found.setdefault(source, {})[kind] = count
    return found


def _write_dropped(path: Path, dropped: Dropped) -> None:
    with path.open("w", encoding="utf-8") as file:
        for reason in sorted(dropped.examples):
            for example in dropped.examples[reason]:
                file.write(json.dumps(example, ensure_ascii=False) + "\n")
