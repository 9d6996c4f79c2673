"""Which text of a language is most like a source that the user calls good, and so is read more often.

No foreign model: for every language a classifier and a model of the good text are learned from documents of the good sources and of the others (`likeness.py`).
The documents of the other sources are put in the order of their scores and divided into buckets of equal text, the best first; good sources are in the
best. How often each bucket is read is the recipe's, as LLM-jp-4 repeats its quality buckets. Nothing is dropped, and held-out text is
left as it is: it must stay the same with and without.

A language in which there is too little of either, or in which they cannot be told apart on documents that were not learned from, is not divided.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hagane.corpus import passages, pool
from hagane.corpus.decide import DROP, HELD_OUT, TRAIN, Shard
from hagane.corpus.likeness import By, Likeness, learn_likeness
from hagane.corpus.parts import Part
from hagane.recipe.schema import QualitySettings
from hagane.recipe.types import Frozen

LEARNED = 600  # documents of each kind and language that are looked at; every second one is learned from
FEWEST = 12  # of each kind
LEAST_SEPARATION = 0.65  # area under the curve: with less the order is mostly chance
_BATCH = 256
_likeness: dict[str, Likeness] = {}  # of a worker process, by language


class LanguageQuality(Frozen):
    """How well good text of one language is told from the rest."""

    good_documents: int = Field(description="looked at, half of them learned from")
    other_documents: int
    separation: float | None = Field(None, description="chance that a good document scores higher than another one, neither of them learned from")
    by_classifier: float | None = Field(None, description="the same of the classifier alone")
    by_perplexity: float | None = Field(None, description="the same of perplexity alone")
    divided: bool
    bucket_bytes: tuple[int, ...] = Field((), description="training text in each bucket, best first")


class QualityFacts(Frozen):
    """How text was divided into buckets; `repeats` say how often each is read against the others."""

    good: tuple[str, ...]
    repeats: tuple[float, ...]
    languages: dict[str, LanguageQuality]
    seconds: float


@dataclass(frozen=True)
class _Task:
    part: Part
    wanted_D: NDArray[np.bool_]
    language: str


def divide(
    shards: Sequence[Shard], settings: QualitySettings, generated: frozenset[str], *, workers: pool.Workers | None = None, progress: pool.Progress = pool.silent
) -> tuple[list[Shard], QualityFacts | None]:
    """Shards with the training text in shards of its own for every bucket, named `SOURCE.LANGUAGE.q1` and so on. `generated`: sources to leave alone."""
    if not settings.good:
        return list(shards), None
    started = time.monotonic()
    languages: dict[str, LanguageQuality] = {}
    likeness: dict[str, Likeness] = {}
    by_language: dict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        if shard.source not in generated:
            by_language[shard.language].append(shard)
    for language, own in sorted(by_language.items()):
        good, others = ([shard for shard in own if (shard.source in settings.good) == wanted] for wanted in (True, False))
        languages[language], learned = _learn(good, others, settings.by)
        if learned is not None:
            likeness[language] = learned
    judged = [shard for shard in shards if shard.language in likeness and shard.source not in {*settings.good, *generated}]
    scores = _scores(judged, likeness, workers, progress)
    found: list[Shard] = []
    for shard in shards:
        if shard.language not in likeness or shard.source in generated:
            found.append(shard)
    for language in sorted(likeness):
        buckets = _buckets(by_language[language], settings, scores)
        made = [new for shard in by_language[language] for new in _split(shard, buckets[shard.name], settings.repeats)]
        found += made
        sizes = [sum(_train_bytes(shard) for shard in made if shard.bucket == number + 1) for number in range(len(settings.repeats))]
        languages[language] = languages[language].model_copy(update={"bucket_bytes": tuple(sizes)})
    found.sort(key=lambda shard: shard.name)
    return found, QualityFacts(good=settings.good, repeats=settings.repeats, languages=languages, seconds=round(time.monotonic() - started, 3))


def _learn(good: Sequence[Shard], others: Sequence[Shard], by: By) -> tuple[LanguageQuality, Likeness | None]:
    """What is known of a language, and how to judge its text, or None where that is not to be done."""
    good_texts, other_texts = _sample(good), _sample(others)
    counts = {"good_documents": len(good_texts), "other_documents": len(other_texts)}
    if min(counts.values()) < FEWEST:
        return LanguageQuality(**counts, divided=False), None
    learned = learn_likeness(good_texts, other_texts, by)
    divided = learned.separation >= LEAST_SEPARATION
    told = {name: round(getattr(learned, name), 4) for name in ("separation", "by_classifier", "by_perplexity")}
    return LanguageQuality(**counts, divided=divided, **told), learned.likeness if divided else None


def _sample(shards: Sequence[Shard]) -> list[str]:
    """First pieces of training documents in the order of their hashes: neither files nor processes make a difference."""
    parts = [part for shard in shards for part in shard.parts]
    found: list[tuple[int, int, int]] = []
    for number, (part, place_P) in enumerate(zip(parts, (places for shard in shards for places in shard.place_P), strict=True)):
        first_P = np.flatnonzero((passages.turns(part.document_P) == 0) & (place_P == TRAIN))
        hash_P = part.hash_D2[part.document_P[first_P], 1]  # the held-out split goes by the other number
        found += [(int(value), number, int(piece)) for value, piece in zip(hash_P, first_P, strict=True)]
    chosen = sorted(found)[:LEARNED]
    if not chosen:
        return []
    return passages.texts_of(parts, np.array([number for _, number, _ in chosen]), np.array([piece for _, _, piece in chosen]))


def _scores(
    shards: Sequence[Shard], likeness: dict[str, Likeness], workers: pool.Workers | None, progress: pool.Progress
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Score of every training document, by shard and number of the part."""
    names, tasks = [], []
    for shard in shards:
        for number, (part, place_P) in enumerate(zip(shard.parts, shard.place_P, strict=True)):
            wanted_D = np.zeros(len(part.bytes_D), bool)
            wanted_D[part.document_P[place_P == TRAIN]] = True
            names.append((shard.name, number))
            tasks.append(_Task(part, wanted_D, shard.language))
    total = sum(int(task.part.bytes_D[task.wanted_D].sum()) for task in tasks)
    use = pool.useful_workers(workers, total // 4, len(tasks))
    results = pool.run_in_order(_work, tasks, use, what="corpus: quality", total=total, progress=progress, initialise=_enter, arguments=(likeness,))
    found = dict(zip(names, results, strict=True))
    _enter({})
    return found


def _enter(likeness: dict[str, Likeness]) -> None:
    global _likeness
    _likeness = likeness


def _work(task: _Task) -> NDArray[np.float64]:
    score_D = np.zeros(len(task.part.bytes_D))
    for documents, texts in _first_pieces(task.part, task.wanted_D):
        score_D[documents] = _likeness[task.language].scores(texts)
        pool.count(int(task.part.bytes_D[documents].sum()))
    return score_D


def _first_pieces(part: Part, wanted_D: NDArray[np.bool_]) -> Iterator[tuple[list[int], list[str]]]:
    """Numbers and first pieces of the wanted documents, `_BATCH` at a time."""
    first_P = np.flatnonzero(passages.turns(part.document_P) == 0)
    first_P = first_P[wanted_D[part.document_P[first_P]]]
    document = {int(part.row_P[piece]): int(part.document_P[piece]) for piece in first_P}
    for number, columns in passages.batches(part, ("text",)):
        start = int(part.start_B[number])
        rows = [row for row in range(len(columns["text"])) if start + row in document]
        for begin in range(0, len(rows), _BATCH):
            own = rows[begin : begin + _BATCH]
            yield [document[start + row] for row in own], [columns["text"][row].as_py() for row in own]


def _buckets(
    shards: Sequence[Shard], settings: QualitySettings, scores: dict[tuple[str, int], NDArray[np.float64]]
) -> dict[str, list[NDArray[np.int64]]]:
    """Bucket of every document, by shard and part: equal parts of the text, the best first; documents of equal score in the order of their hashes."""
    order: list[tuple[float, int, int, str, int, int]] = []
    found: dict[str, list[NDArray[np.int64]]] = {}
    for shard in shards:
        found[shard.name] = [np.zeros(len(part.bytes_D), np.int64) for part in shard.parts]
        if shard.source in settings.good:
            continue
        for number, (part, place_P) in enumerate(zip(shard.parts, shard.place_P, strict=True)):
            score_D = scores[shard.name, number]
            size_D = np.bincount(part.document_P, weights=part.bytes_P * (place_P == TRAIN), minlength=len(part.bytes_D))
            for document in np.flatnonzero(size_D).tolist():
                order.append((-float(score_D[document]), int(part.hash_D2[document, 0]), int(size_D[document]), shard.name, number, document))
    order.sort()
    total, before = sum(item[2] for item in order), 0
    for _, _, size, name, number, document in order:
        found[name][number][document] = min(len(settings.repeats) - 1, before * len(settings.repeats) // max(1, total))
        before += size
    return found


def _split(shard: Shard, bucket_D: Sequence[NDArray[np.int64]], repeats: Sequence[float]) -> Iterator[Shard]:
    """The shard with its held-out text, and one for the training text of every bucket."""
    held = [np.where(place_P == HELD_OUT, HELD_OUT, DROP) for place_P in shard.place_P]
    if any((place_P != DROP).any() for place_P in held):
        yield replace(shard, place_P=held)
    for number, often in enumerate(repeats):
        places = [
            np.where((place_P == TRAIN) & (own_D[part.document_P] == number), TRAIN, DROP)
            for part, place_P, own_D in zip(shard.parts, shard.place_P, bucket_D, strict=True)
        ]
        if any((place_P != DROP).any() for place_P in places):
            yield replace(shard, name=f"{shard.name}.q{number + 1}", place_P=places, bucket=number + 1, repeats=often)


def _train_bytes(shard: Shard) -> int:
    return sum(int(part.bytes_P[place_P == TRAIN].sum()) for part, place_P in zip(shard.parts, shard.place_P, strict=True))
