"""Between reading and writing: documents without a label get a language, and with `check` those that certainly have a wrong one are dropped.

What is learned from are the labelled documents that reading has set aside: nothing is read twice, and where every document
has a label and nothing is to be checked, nothing is learned at all.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from hagane.corpus import passages, pool
from hagane.corpus.classifier import learn
from hagane.corpus.dropped import Dropped
from hagane.corpus.gather import Gathered
from hagane.corpus.identify import MULTIPLE, Identifier, known, published_answers
from hagane.corpus.inputs import Input
from hagane.corpus.language import UNDETERMINED
from hagane.corpus.parts import Part
from hagane.recipe.types import Frozen

WRONG_LANGUAGE = "wrong_language"
NOT_LEARNED = frozenset({UNDETERMINED, MULTIPLE, "zxx", "mis"})  # no languages (RFC 5646, section 4.1)
MIN_CHARACTERS = 2000  # a language with less labelled text is not learned
_BATCH = 64
_COLUMNS = ("id", "text")

_identifier: Identifier | None = None  # of this process


class LanguageFacts(Frozen):
    """How well a learned language is told from the others, on labelled documents that were not learned from."""

    held_out: int = Field(description="documents measured on")
    precision: float | None = Field(description="None: no document was called this")
    recall: float
    confusions: dict[str, int] = Field(description="what its documents were called instead, at most three")
    known: bool = Field(description="well enough that `check` may question a label")


class IdentifyFacts(Frozen):
    """`labels` counts documents by who said their language: record, source (or its folder), classifier, py3langid, none."""

    labels: dict[str, int]
    languages: dict[str, LanguageFacts]
    found: dict[str, int] = Field(description="languages given to documents without a label")
    checked: int = Field(description="labelled documents that were compared with their label")
    seconds: float


def relabel(
    inputs: Sequence[Input],
    gathered: Sequence[Gathered],
    mode: str,
    dropped: Dropped,
    *,
    seed: int = 0,
    workers: pool.Workers | None = None,
    progress: pool.Progress = pool.silent,
) -> IdentifyFacts | None:
    """Replace the parts of `gathered` by parts in the languages found. None where there is nothing to do.

    `mode` is `corpus.identify`. Raises RunError where py3langid is missing.
    """
    tasks = [
        _Task(index, place, part, {int(file): inputs[file].name for file in np.unique(part.file_D)}, inputs[result.index].source)
        for index, result in enumerate(gathered)
        for place, part in enumerate(result.parts)
        if mode != "off" and (part.language == UNDETERMINED or (mode == "check" and part.language not in NOT_LEARNED and _is_text(inputs[result.index])))
    ]
    if not tasks:
        return None
    started = time.monotonic()
    identifier = _learn([part for result in gathered if _is_text(inputs[result.index]) for part in result.parts], seed)
    if not any(task.part.language == UNDETERMINED for task in tasks) and not identifier.well_known:
        tasks = []  # no label could be questioned
    total = sum(int(task.part.bytes_P.sum()) for task in tasks)
    use = pool.useful_workers(workers, total // 4, len(tasks))  # an excerpt of each document costs about a quarter of reading it
    results = pool.run_in_order(_work, tasks, use, what="corpus: languages", total=total, progress=progress, initialise=_enter, arguments=(identifier,))
    found: Counter[str] = Counter()
    checked, parts = 0, {(index, place): [part] for index, result in enumerate(gathered) for place, part in enumerate(result.parts)}
    for task, result in zip(tasks, results, strict=True):
        parts[task.index, task.place] = result.parts
        dropped.merge(result.dropped)
        if task.part.language == UNDETERMINED:
            gathered[task.index].labels.subtract({"none": result.by.total()})
            gathered[task.index].labels.update(result.by)
            found.update({part.language: len(part.bytes_D) for part in result.parts})
        else:
            checked += len(task.part.bytes_D)
    _enter(None)
    for index, gathering in enumerate(gathered):
        gathering.parts = [part for place in range(len(gathering.parts)) for part in parts[index, place]]
    return _facts(identifier, gathered, found, checked, time.monotonic() - started)


def _is_text(item: Input) -> bool:
    """Generated problems are mostly numbers, and in the language that they say."""
    return item.kind != "problems"


def _facts(identifier: Identifier, gathered: Sequence[Gathered], found: Counter[str], checked: int, seconds: float) -> IdentifyFacts:
    labels: Counter[str] = sum((result.labels for result in gathered), Counter())
    quality = identifier.classifier.quality if identifier.classifier else {}
    languages = {
        name: LanguageFacts(
            held_out=own.documents,
            precision=own.precision,
            recall=own.recall,
            confusions=dict(list(own.confusions.items())[:3]),
            known=known(own),
        )
        for name, own in quality.items()
    }
    return IdentifyFacts(
        labels=dict(sorted(labels.items())), languages=languages, found=dict(sorted(found.items())), checked=checked, seconds=round(seconds, 3)
    )


def _learn(parts: Sequence[Part], seed: int) -> Identifier:
    by_language: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        if part.language not in NOT_LEARNED:
            by_language[part.language].append(part)
    train: dict[str, list[str]] = {}
    held_out: dict[str, list[str]] = {}
    for language in sorted(by_language):
        learned, measured = passages.sample(by_language[language], seed)
        if measured and sum(map(len, learned)) >= MIN_CHARACTERS:
            train[language], held_out[language] = learned, measured
    if len(train) < 2:
        return Identifier(None, {})
    return Identifier(learn(train, held_out), published_answers(held_out))


@dataclass(frozen=True)
class _Task:
    index: int
    place: int
    part: Part
    files: dict[int, str]  # names of inputs
    source: str


@dataclass
class _Result:
    parts: list[Part]
    dropped: Dropped = field(default_factory=Dropped)
    by: Counter[str] = field(default_factory=Counter)


def _enter(identifier: Identifier | None) -> None:
    global _identifier
    _identifier = identifier


def _work(task: _Task) -> _Result:
    assert _identifier is not None
    part, result = task.part, _Result([])
    language_D: list[str | None] = []  # None: dropped
    for rows in _first_pieces(part):
        texts = [row["text"] for row in rows]
        if part.language == UNDETERMINED:
            answers = _identifier.identify(texts)
            language_D += [answer.language for answer in answers]
            result.by.update(answer.by for answer in answers)
        else:
            for row, instead in zip(rows, _identifier.mislabelled(texts, part.language), strict=True):
                if instead:
                    document = len(language_D)
                    file = task.files[int(part.file_D[document])]
                    example = {"file": file, "id": row["id"], "language": part.language, "found": instead, "text": row["text"][:200]}
                    result.dropped.add(WRONG_LANGUAGE, int(part.bytes_D[document]), example, part.account(task.source, document))
                language_D.append(None if instead else part.language)
    for language in sorted({name for name in language_D if name is not None}):
        keep_D = np.array([name == language for name in language_D], bool)
        result.parts.append(part.select(keep_D, language))
    return result


def _first_pieces(part: Part) -> Iterator[list[dict[str, str]]]:
    """Rows {id, text} with the first pieces of documents, `_BATCH` at a time."""
    first = set(part.row_P[np.flatnonzero(passages.turns(part.document_P) == 0)].tolist())
    for number, columns in passages.batches(part, _COLUMNS):
        start = int(part.start_B[number])
        rows = [row for row in range(len(columns["text"])) if start + row in first]
        for begin in range(0, len(rows), _BATCH):
            own = [{name: columns[name][row].as_py() for name in _COLUMNS} for row in rows[begin : begin + _BATCH]]
            pool.count(sum(len(row["text"]) for row in own))
            yield own
