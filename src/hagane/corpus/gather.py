"""First pass: read inputs, drop what cannot be kept, and set the rest aside by language, with the hash of every document.

A task is one large input or many small ones that follow each other: what is set aside of a million files lies in a few files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hagane.corpus import pool
from hagane.corpus.accounts import Account, origin_of
from hagane.corpus.blocks import Trace
from hagane.corpus.clean import drop_reason, normalise_newlines, repair_encoding
from hagane.corpus.dropped import Dropped
from hagane.corpus.inputs import Input, check_unchanged
from hagane.corpus.language import UNDETERMINED, normalise_tag
from hagane.corpus.licenses import UNKNOWN, allowed
from hagane.corpus.overlap import load_runs, without_overlap
from hagane.corpus.parts import Part, Writer
from hagane.corpus.personal import mask
from hagane.corpus.readers import read
from hagane.corpus.records import Damage, Drop, Record
from hagane.corpus.removal import Removed
from hagane.corpus.rules import contents, dumps, includes, markup, twice
from hagane.corpus.sample import Seen, Take
from hagane.corpus.shingles import word_hashes
from hagane.errors import DataError
from hagane.recipe.schema import CorpusSettings

TASK_BYTES = 1 << 20  # of small files that are read by one task
DAMAGE_NAMED = 5  # per file: a manifest of millions of bad lines helps nobody
_OTHER_SHARE = 0.05  # of an input's sample, for each language that its first records did not show


@dataclass(frozen=True, slots=True)
class Planned:
    """An input, its place among all of them, and what to take of it."""

    index: int
    item: Input
    take: Take


@dataclass(frozen=True)
class Task:
    """Inputs of one source to read one after another, as they are sent to a process."""

    inputs: tuple[Planned, ...]
    settings: CorpusSettings
    folder: Path
    removed: Removed | None = None
    excluded: Path | None = None  # runs of words of evaluation items, as overlap.load_runs reads them

    @property
    def index(self) -> int:
        """The place of the first input: the task's name and its order."""
        return self.inputs[0].index


def grouped(planned: Sequence[Planned]) -> list[tuple[Planned, ...]]:
    """Inputs in their order, small ones of a source together, up to TASK_BYTES of reading."""
    groups: list[list[Planned]] = []
    room = 0.0
    for one in planned:
        own = one.take.expected_bytes
        fits = bool(groups) and own <= room and one.item.source == groups[-1][0].item.source
        if fits and not _generated_input(one.item) and not _generated_input(groups[-1][0].item):
            groups[-1].append(one)
            room -= own
        else:
            groups.append([one])
            room = TASK_BYTES - own
    return [tuple(group) for group in groups]


@dataclass(slots=True)
class FileRead:
    """What came of one input."""

    index: int
    documents_in: int = 0
    bytes_in: int = 0
    bytes_read: int = 0
    digest: str | None = None
    complete: bool = False
    damage: tuple[str, ...] = ()  # the first few sentences
    taken: dict[str, int] = field(default_factory=dict)  # bytes of text set aside, by language
    passed: dict[str, int] = field(default_factory=dict)  # likewise, of text for which the sample had no room

    def seen(self, num_bytes: int) -> Seen:
        """For what the sample was estimated by; `num_bytes` is the size of the input."""
        return Seen(Counter(self.taken), Counter(self.passed), 1.0 if self.complete else min(1.0, self.bytes_read / max(1, num_bytes)))

    def enough(self, take: Take) -> bool:
        """Whether the sample needs no more of this input."""
        return take.budgets is not None and all(self.taken.get(language, 0) >= max(budget, 1) for language, budget in take.budgets.items())

    def room(self, take: Take, language: str) -> float:
        """Bytes of text that the sample still has room for."""
        if take.budgets is None:
            return float("inf")
        return take.budgets.get(language, _OTHER_SHARE * sum(take.budgets.values())) - self.taken.get(language, 0)

    def pass_over(self, language: str, num_bytes: int) -> None:
        self.passed[language] = self.passed.get(language, 0) + num_bytes


@dataclass
class Gathered:
    """What came of one task; `index` is that of its first input."""

    index: int
    files: list[FileRead]
    parts: list[Part]
    dropped: Dropped
    labels: Counter[str]  # documents set aside, by who said their language


def gather(task: Task) -> Gathered:
    """Read the inputs of a task. Raises DataError for what cannot be read, unless `on_damage` is "keep": then it is counted."""
    reading = _Reading(task)
    try:
        files = [reading.read(one) for one in task.inputs]
    finally:
        parts = [reading.writers[language].close() for language in sorted(reading.writers)]
    return Gathered(task.index, files, parts, reading.dropped, reading.labels)


class _Reading:
    """The inputs of a task while they are read: what is set aside by language, and what is counted of all of them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.writers: dict[str, Writer] = {}
        self.dropped = Dropped()
        self.labels: Counter[str] = Counter()

    def read(self, one: Planned) -> FileRead:
        """Read one input to its end, or until the sample has enough of it."""
        item, take, settings = one.item, one.take, self.task.settings
        trace, file = Trace(on_bytes=pool.count), FileRead(one.index)
        unknown = Account(item.source, item.license or UNKNOWN, item.language or UNDETERMINED)  # of what was not read far enough to say
        for found in _items(item, trace, take, settings):
            if isinstance(found, Drop):
                file.documents_in += 1
                example = {"file": item.name, "position": found.position, "what": found.what, "text": found.excerpt}
                self.dropped.add(found.reason, found.num_bytes, example, unknown)
                continue
            if isinstance(found, Damage):
                file.documents_in += not found.rest and found.record is None
                if settings.on_damage == "stop":
                    raise DataError(f"{found.what} {found.remedy}")
                if len(file.damage) < DAMAGE_NAMED:
                    file.damage += (found.what,)
                if found.record is None:
                    example = {"file": item.name, "position": found.position, "what": found.what, "text": found.excerpt}
                    self.dropped.add(found.reason, found.num_bytes, example, None if found.rest else unknown)
                    continue
                found = found.record
            looked_at = self._keep(one, found, file)
            file.documents_in += looked_at is not None
            file.bytes_in += looked_at or 0
            if file.enough(take):
                break
        if trace.num_bytes:
            check_unchanged(item)
        file.bytes_read, file.complete = trace.num_bytes, trace.at_end
        file.digest = trace.digest.hexdigest() if trace.digest is not None else None
        return file

    def _keep(self, one: Planned, record: Record, file: FileRead) -> int | None:
        """Set the document aside, or count why not. Returns its bytes; None where its language has enough and it was not needed."""
        item, take, settings, task, dropped = one.item, one.take, self.task.settings, self.task, self.dropped
        text = normalise_newlines(record.text)
        data = text.encode("utf-8", "surrogatepass")
        num_bytes = len(data)
        identity = record.id or f"{item.name}:{record.position}"
        tag = normalise_tag(record.language) if record.language else item.language or UNDETERMINED
        if (excerpt := take.excerpt(text, num_bytes, record.position)) is not text:
            data = (excerpt or "").encode("utf-8", "surrogatepass")
            file.pass_over(tag or UNDETERMINED, num_bytes - len(data))
            if excerpt is None:
                return None
            text, num_bytes = excerpt, len(data)
            dropped.excerpts += 1
        license = record.license or item.license or UNKNOWN
        account = Account(item.source, license, tag or UNDETERMINED)
        place = {"file": item.name, "position": record.position, "id": identity}
        refused = "removed" if task.removed and task.removed.names(identity) else None if allowed(license, settings.licenses) else "license"
        if refused is not None:
            dropped.add(refused, num_bytes, place | ({"text": _beginning(text), "what": license} if refused == "license" else {}), account)
            return num_bytes
        mended, reason = _mend(text, data, tag, item, settings, dropped, place)
        if task.removed and task.removed.holds(mended):
            dropped.add("removed", num_bytes, place, account)
            return num_bytes
        data = data if mended is text else mended.encode("utf-8", "surrogatepass")
        reason = reason or drop_reason(mended, settings.min_characters, settings.max_damage, data)
        if tag is None and reason is None:
            reason = "bad_language"
            if settings.on_damage == "stop":
                raise DataError(
                    f"{item.path}, record {record.position + 1:,}: {record.language!r} is not a BCP-47 language tag such as sv, zh-Hant or smj. "
                    'Mend it, or set corpus.on_damage = "keep" to drop such documents, counted, and go on.'
                )
        if reason is not None or tag is None:
            dropped.add(reason or "bad_language", num_bytes, place | {"text": _beginning(text)}, account)
            return num_bytes
        words = None
        if task.excluded is not None and not _generated_problems(item):  # whose test items are held out by their own rule
            words = word_hashes(mended)
            rest = without_overlap(mended, load_runs(task.excluded), words)
            if rest is not None and len(rest.strip()) < settings.min_characters:
                rest = None
            if rest is not mended:
                words = None
                data = (rest or "").encode()
                lost = num_bytes if rest is None else len(mended.encode()) - len(data)
                dropped.add("evaluation_overlap", lost, place | {"text": _beginning(mended), "whole": rest is None}, account if rest is None else None)
            if rest is None:
                return num_bytes
            mended = rest
        room = file.room(take, tag)
        if room <= 0:
            file.pass_over(tag, num_bytes)
            return None
        self.labels["none" if tag == UNDETERMINED else "record" if record.language else "source"] += 1
        source = record.source or f"{item.source}:{item.name}"
        group = (origin_of(identity, record.source, item.source), license)
        added = self._writer(item, tag).add(one.index, identity, mended, data, source, group, settings.max_characters, room, words)
        file.taken[tag] = file.taken.get(tag, 0) + added
        return num_bytes

    def _writer(self, item: Input, tag: str) -> Writer:
        """Where documents of a language are set aside."""
        if tag not in self.writers:
            settings, again = self.task.settings, f".{pool.attempt()}" if pool.attempt() else ""
            path, own = self.task.folder / f"{self.task.index:06d}.{tag}{again}.arrow", not _generated_problems(item)  # these are alike by design
            self.writers[tag] = Writer(path, tag, own and settings.near_duplicates > 0, own and settings.held_out_overlap > 0, _ruled(item, tag))
        return self.writers[tag]


def _mend(
    text: str, data: bytes, tag: str | None, item: Input, settings: CorpusSettings, dropped: Dropped, place: dict[str, Any]
) -> tuple[str, str | None]:  # fmt: skip
    """The text after every rule that mends a single document, and the reason where one of them leaves it out. `data` is the text in UTF-8."""
    before, (text, reason) = text, _cleaned(text, data, tag, item, settings, dropped, place)
    if reason is None and settings.personal_data == "mask" and not _generated_input(item):
        masked, kinds = mask(text, tag or UNDETERMINED, data if text is before else None)
        if masked is not text:
            dropped.repair("personal_data", place | {"what": ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))})
            for kind, count in kinds.items():
                dropped.masked[item.source, kind] += count
            text = masked
    return text, reason


def _cleaned(
    text: str, data: bytes, tag: str | None, item: Input, settings: CorpusSettings, dropped: Dropped, place: dict[str, Any]
) -> tuple[str, str | None]:  # fmt: skip
    """Encoding, markup, contents, dumps and second copies."""
    if settings.repair_encoding and (fixed := repair_encoding(text, data)) is not text:
        text = fixed
        dropped.repaired["encoding"] += 1
    if not _ruled(item, tag or UNDETERMINED):
        return text, None
    if settings.rules.markup and item.kind not in ("html", "warc"):  # of which only the main text was read
        plain = markup.mend(includes.resolved(text, item))
        if plain is None:
            return text, markup.NO_PAGE
        if plain is not text:
            dropped.repair("markup", place | (_change(text, plain) if dropped.wants("markup") else {}))
            text = plain
    for rule, wanted, mended in (
        ("contents", settings.rules.contents, contents.without_contents),
        ("dumps", settings.rules.dumps, dumps.without_dumps),
        ("twice", settings.rules.twice, twice.without_copies),
    ):
        if wanted and (rest := mended(text)) is not text:
            dropped.repair(rule, place | (_change(text, rest) if dropped.wants(rule) else {}))
            text = rest
    return text, None


def _change(before: str, after: str) -> dict[str, str]:
    """Where two texts begin to differ, each with a little of what is around it."""
    same = next((index for index, (one, other) in enumerate(zip(before, after)) if one != other), min(len(before), len(after)))
    start = max(0, same - 40)
    return {"text": _beginning(before[start:]), "after": _beginning(after[start:])}


def _beginning(text: str) -> str:
    return text[:200].encode("utf-8", "replace").decode()


def _generated_input(item: Input) -> bool:
    """What hagane generates or ships."""
    return item.kind in ("python", "problems")


def _generated_problems(item: Input) -> bool:
    return item.kind == "problems"


def _ruled(item: Input, tag: str) -> bool:
    """Whether the rules of cleaning apply: code is not prose, and what hagane generates or ships is clean."""
    return not _generated_input(item) and not tag.startswith("code")


def _items(item: Input, trace: Trace, take: Take, settings: CorpusSettings) -> Iterator[Record | Damage | Drop]:
    if _generated_input(item):
        yield from _generated(item, trace, take)
        return
    try:
        yield from read(item, trace, take.wanted, settings.max_record_bytes)
    except DataError as error:
        if settings.on_damage == "stop":
            raise
        yield Damage(0, "unreadable", str(error), "", item.num_bytes, rest=True)


def _generated(item: Input, trace: Trace, take: Take) -> Iterator[Record]:
    from hagane.corpus import embedded

    if item.kind == "python":
        records = embedded.python_documents()
    else:
        num_bytes = sum((take.budgets or {}).values())
        records = embedded.documents(take.seed, item.language or UNDETERMINED, round(num_bytes))
    for position, record in enumerate(records):
        if take.wanted(position):
            chunk = record["text"].encode()
            trace.add(chunk)
            yield Record(position, record["text"], record.get("id"), record.get("lang"), record.get("source"), record.get("license"))
    trace.at_end = True
