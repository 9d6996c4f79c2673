"""A short run reads only the text it can use: how much of each language, from which files, and which parts of a file.

Language sizes are estimated from file sizes and a look into every file, or into some where there are many. UniMax without repeats divides the sample over
languages, and within a language the sources share by size. Of many files some are chosen by a hash of their name, so that a chosen one gives
at least `WHOLE_BYTES` (`STRETCH_BYTES` where it is cheap to open); of a chosen file a few times the needed text is passed over at most.

Of the records in it every one gives a stretch, as large a share of it as is needed of the file, so that a sample is neither all beginnings nor
a few books; the shorter ones are taken whole, as often. Where documents are dear to read, some are chosen by a hash of their position.
Where reading shows that the estimates were far off, what it found takes their place, and the files that can give more are read again.
Nothing here depends on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from hagane.corpus.blocks import Trace, blocks, open_input
from hagane.corpus.clean import ENDS, split_long
from hagane.corpus.inputs import ONE_DOCUMENT, Input
from hagane.corpus.language import UNDETERMINED, normalise_tag
from hagane.corpus.mixture import unimax_budgets
from hagane.corpus.readers import read
from hagane.corpus.records import CorruptError, EndsTooSoonError, Record
from hagane.corpus.stores import is_url
from hagane.errors import DataError

SPREAD = 4  # how many times the needed text is passed over at most
_RECORD_SPREAD = 8  # likewise of records, which are cheap to pass over
MARGIN = 1.15  # documents are chosen a little too often: sizes are estimates, and some documents are dropped
EXCERPT_BYTES = 4000  # a stretch of a document is at least so long: some rows of the context of a small model
EXCERPTS = 256  # or so long that this many of them are all that is taken of a language
WHOLE_BYTES = 1 << 17  # a file that is opened gives at least this much text, or all it has
STRETCH_BYTES = 1 << 14  # likewise a file of text or records on a disk, which costs little to open: so that few sources are left out
_PROBES = 256  # files of one kind, source and language that are looked into; the others are taken to be like all of these
_DEAR_PROBES = 8  # likewise, where documents must be extracted
_PLACES = 4  # of a file that can be read from anywhere are looked at
_PLACE_BYTES = 1 << 16
_PROBE_BLOCKS = 2  # of a compressed one: four say the same, to 0.4 %, in a third more time
ENOUGH = 0.8  # of the text that was to be found: with less, the estimates were wrong
_PROBE_RECORDS = 32
_NEARLY_ALL = 0.8  # a document of which this much is wanted is taken whole
_RECORDS = ("jsonl", "parquet")
_TEXT = ("text", "markdown")
_EXTRACTED = ("html", "notebook", "warc")  # their text is a part of their bytes that only reading tells
_PYTHON: dict[str, float] = {"code-python": 10e6, "en": 2.2e6}  # the embedded Python corpus, about (CPython 3.11 to 3.13)
_PYTHON_BYTES = 12.2e6
_GENERATED = 8e6  # bytes of generated problems where nothing says how many


@dataclass(frozen=True)
class Take:
    """What to take of an input: text bytes per language (None: everything; empty: nothing), of which share of its documents, and how much of each."""

    budgets: Mapping[str, float] | None = None
    probability: float = 1.0
    seed: int = 0
    expected_bytes: float = 0.0  # file bytes that will be passed over, for progress
    share: float = 1.0  # of the text that is passed over
    least_bytes: float = EXCERPT_BYTES

    def wanted(self, position: int) -> bool:
        """Whether the document at this position is looked at: a hash of the position against the probability."""
        return self.probability >= 1 or _uniform(self.seed, position) < self.probability

    def excerpt(self, text: str, num_bytes: int, position: int) -> str | None:
        """What is taken of a document of `num_bytes`: the same object, a stretch from one paragraph's beginning to another's end, or None.

        On average `share` of it. Where that would be less than `least_bytes`, so much is taken of fewer documents, chosen by position. A page or a
        notebook (in a record) is nothing without its beginning: taken whole or not at all. Stretches of copies begin at the same
        place, by a hash of how the text begins, so that they stay copies.
        """
        if self.share >= 1 or not text:
            return text
        amount = min(num_bytes, max(self.share * num_bytes, self.least_bytes))
        if amount > _NEARLY_ALL * num_bytes or text[:200].lstrip()[:1] in ("<", "{"):
            amount = num_bytes
        if _uniform(self.seed, position) * amount >= self.share * num_bytes:
            return None
        if amount == num_bytes:
            return text
        place = _uniform(self.seed, zlib.crc32(text[:256].encode("utf-8", "replace")))
        return _stretch(text, max(1, round(len(text) * amount / num_bytes)), place)


def _stretch(text: str, size: int, place: float) -> str:
    """About `size` characters from `place` (0 the beginning, 1 the end), cut at ends of paragraphs, lines or sentences where there are some."""
    start = round((len(text) - size) * place)
    if start:
        for mark in ENDS:
            found = text.find(mark, start, start + size // 4)
            if found >= 0:
                start = found + len(mark)
                break
    return split_long(text[start : start + size + 1], size)[0]


@dataclass
class Probe:
    """What looking into some files says: bytes of text per file byte, and the languages by bytes of text."""

    ratios: list[float] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    files: int = 0


@dataclass(frozen=True)
class Seen:
    """What reading an input showed: text taken and text passed over for want of room, by language, and the share of the file that was read."""

    taken: Counter[str]
    passed: Counter[str]
    share: float

    @property
    def languages(self) -> list[str]:
        return sorted(self.taken.keys() | self.passed.keys())


def plan_sample(
    inputs: Sequence[Input], sample_bytes: int | None, shares: Mapping[str, float], seed: int, stretch_bytes: int = EXCERPT_BYTES
) -> list[Take]:
    """One `Take` per input; of a long document at least `stretch_bytes`.

    With `sample_bytes` None files are taken whole and generated text is sized by its share.
    """
    generated = [item.kind == "problems" for item in inputs]
    if sample_bytes is None and not any(generated):
        return [_everything(item, seed) for item in inputs]
    sizes = text_sizes(inputs, sample_bytes, shares)
    if sample_bytes is None:
        return [
            Take(size, 1.0, seed, sum(size.values())) if made else _everything(item, seed) for item, size, made in zip(inputs, sizes, generated, strict=True)
        ]
    budgets = _divide(inputs, sizes, sample_bytes, shares, seed, stretch_bytes)
    least = _least_bytes(budgets, stretch_bytes)
    return [_take(item, size, budget, seed, least) for item, size, budget in zip(inputs, sizes, budgets, strict=True)]


def text_sizes(inputs: Sequence[Input], sample_bytes: int | None, shares: Mapping[str, float]) -> list[dict[str, float]]:
    """Estimated bytes of text per language of each input. Generated text has no end: as much as its source may have of the sample, the same in each of its
    languages."""
    generated = [item.kind == "problems" for item in inputs]
    sizes = estimate([item for item, made in zip(inputs, generated, strict=True) if not made])
    known = sum(sum(size.values()) for size in sizes)
    for index, made in enumerate(generated):
        if made:
            item = inputs[index]
            own = sum(other.source == item.source and other.kind == "problems" for other in inputs)
            sizes.insert(index, {item.language or UNDETERMINED: _generated_bytes(known, sample_bytes, shares.get(item.source)) / own})
    return sizes


def estimate(inputs: Sequence[Input]) -> list[dict[str, float]]:
    """Estimated bytes of text per language of each input: what a look into it says, or into others of its kind. Damage is left to the real reading."""
    alike: dict[tuple[object, ...], Probe] = defaultdict(Probe)
    own: list[Probe] = []
    for item in inputs:
        probe, together = Probe(), alike[_kind(item)]
        dear = item.kind in _EXTRACTED
        if item.kind in ("jsonl", "parquet") or dear or (item.kind in _TEXT and item.compression):
            if together.files < (_DEAR_PROBES if dear else _PROBES):
                _look(item, probe)
                together.ratios += probe.ratios
                together.languages += probe.languages
            together.files += 1
        own.append(probe)
    return [_size(item, probe if probe.ratios and probe.languages else alike[_kind(item)]) for item, probe in zip(inputs, own, strict=True)]


def corrected(
    inputs: Sequence[Input],
    takes: Sequence[Take],
    seen: Mapping[int, Seen],
    sample_bytes: int,
    shares: Mapping[str, float],
    seed: int,
    stretch_bytes: int = EXCERPT_BYTES,
) -> list[Take]:
    """What to take of the inputs after all, where reading them gave less than ENOUGH of the sample although there is more; else `takes`.

    `seen`: what reading said, by the input's place. Files that were not read keep their estimates.
    """
    taken = sum(sum(one.taken.values()) for one in seen.values())
    if taken >= ENOUGH * sample_bytes:  # as nearly always: no file is looked into again
        return list(takes)
    sizes = []
    for index, (item, estimated) in enumerate(zip(inputs, estimate(inputs), strict=True)):
        if item.kind == "problems":
            sizes.append(dict(takes[index].budgets or {}))
        elif index in seen and seen[index].languages and item.kind != "python":
            whole = max(seen[index].share * takes[index].probability, 1e-9)
            sizes.append({language: (seen[index].taken[language] + seen[index].passed[language]) / whole for language in seen[index].languages})
        else:
            sizes.append(estimated)
    if taken >= ENOUGH * sum(sum(size.values()) for size in sizes):
        return list(takes)
    budgets = _divide(inputs, sizes, sample_bytes, shares, seed, stretch_bytes)
    least = _least_bytes(budgets, stretch_bytes)
    return [
        take if item.kind == "problems" else _take(item, size, budget, seed, least)
        for item, take, size, budget in zip(inputs, takes, sizes, budgets, strict=True)
    ]


def _kind(item: Input) -> tuple[object, ...]:
    return item.source, item.kind, item.compression, item.language


def _size(item: Input, probe: Probe) -> dict[str, float]:
    if item.kind == "python":
        return {item.language: _PYTHON_BYTES} if item.language else dict(_PYTHON)
    default = 0.3 if item.kind in _EXTRACTED else 2.5 if item.compression or item.kind == "parquet" else 1.0
    ratio = sum(probe.ratios) / len(probe.ratios) if probe.ratios else default
    total = sum(probe.languages.values())
    if not total:
        return {item.language or UNDETERMINED: item.num_bytes * ratio}
    return {language: item.num_bytes * ratio * value / total for language, value in probe.languages.items()}


def _look(item: Input, probe: Probe) -> None:
    look = _look_at_parquet if item.kind == "parquet" else _look_at_extracted if item.kind in _EXTRACTED else _look_at_lines
    try:
        found, ratio = look(item)
    except (DataError, CorruptError, EndsTooSoonError, OSError, pa.ArrowInvalid):
        return  # said again, and not swallowed, when the file is read
    for tag, num_bytes in found:
        probe.languages[tag] += num_bytes
    if ratio:
        probe.ratios.append(ratio)
    if ratio and not found and item.kind in _TEXT:
        probe.languages[item.language or UNDETERMINED] += 1


def _measured(item: Input, records: Sequence[dict[str, object]]) -> list[tuple[str, int]]:
    """Language and bytes of the text of each record that has one."""
    found = []
    for record in records:
        text, language = record.get(item.text_field), record.get("lang", record.get("language"))
        if isinstance(text, str):
            tag = normalise_tag(language) if isinstance(language, str) else None
            found.append((tag or item.language or UNDETERMINED, len(text.encode("utf-8", "replace"))))
    return found


def _text_bytes(found: Sequence[tuple[str, int]]) -> int:
    return sum(num_bytes for _, num_bytes in found)


def _look_at_lines(item: Input) -> tuple[list[tuple[str, int]], float]:
    """Language and bytes of text of some records, and bytes of text per byte of the file."""
    trace, expansion, lines = Trace(), 1.0, list[bytes]()
    if item.compression is None and item.kind == "jsonl" and item.num_bytes > _PLACES * _PLACE_BYTES:
        lines = _lines_from_places(item)
    if not lines:
        start = b""
        for number, block in enumerate(blocks(item, trace), 1):
            start += block
            if number >= _PROBE_BLOCKS or (start.count(b"\n") > _PROBE_RECORDS):
                break
        expansion = len(start) / max(1, trace.num_bytes)
        if item.kind in _TEXT:
            return [], expansion
        lines = start.split(b"\n")
        lines = (lines if trace.at_end else lines[:-1])[:_PROBE_RECORDS]
    records = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            records.append(value)
    found = _measured(item, records)
    return found, expansion * _text_bytes(found) / max(1, sum(len(line) + 1 for line in lines))


def _lines_from_places(item: Input) -> list[bytes]:
    """Whole lines from evenly spaced places: a file may be in order of language. None where every line is longer than a place."""
    lines = []
    with open_input(item) as file:
        for place in range(_PLACES):
            file.seek(place * item.num_bytes // _PLACES)
            part = file.read(_PLACE_BYTES).split(b"\n")
            lines += part[(place > 0) : -1][: _PROBE_RECORDS // _PLACES]
    return lines


def _look_at_extracted(item: Input) -> tuple[list[tuple[str, int]], float]:
    """Language and bytes of the first documents, and their bytes over those read for them."""
    trace = Trace()
    records: list[dict[str, object]] = [
        {item.text_field: found.text, "lang": found.language} for found in islice(read(item, trace), _PROBE_RECORDS) if isinstance(found, Record)
    ]
    measured = _measured(item, records)
    return measured, _text_bytes(measured) / max(1, trace.num_bytes)


def _look_at_parquet(item: Input) -> tuple[list[tuple[str, int]], float]:
    """Language and bytes of rows of evenly spaced row groups, and bytes of text per byte of the file: by its footer, which has equal texts once."""
    with open_input(item) as raw, pq.ParquetFile(raw) as file:
        columns = [name for name in (item.text_field, "lang", "language") if name in file.schema_arrow.names]
        groups = sorted({place * file.num_row_groups // _PLACES for place in range(_PLACES)}) if file.num_row_groups else []
        rows: list[dict[str, object]] = []
        for group in groups:
            batch = next(file.iter_batches(max(1, _PROBE_RECORDS // len(groups)), row_groups=[group], columns=columns), None)
            rows += batch.to_pylist() if batch is not None else []
        chunks = (file.metadata.row_group(group).column(place) for group in range(file.num_row_groups) for place in range(file.metadata.num_columns))
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == item.text_field)
        return _measured(item, rows), size / max(1, item.num_bytes)


def _generated_bytes(known: float, sample_bytes: int | None, share: float | None) -> float:
    if sample_bytes is not None:
        return sample_bytes * (share if share is not None else 1.0)
    if share is None or share >= 1 or not known:
        return _GENERATED
    return known * share / (1 - share)


def _divide(
    inputs: Sequence[Input], sizes: Sequence[Mapping[str, float]], sample_bytes: float, shares: Mapping[str, float], seed: int, stretch_bytes: int
) -> list[dict[str, float]]:
    """Budget per input and language: fixed shares by source, the rest by UniMax over languages, within a language by size."""
    fixed = sorted({item.source for item in inputs} & set(shares))
    groups = [(source, shares[source]) for source in fixed]
    groups.append(("", max(0.0, 1 - sum(share for _, share in groups))))
    result: list[dict[str, float]] = [{} for _ in inputs]
    order = sorted(range(len(inputs)), key=lambda index: hashlib.blake2b(f"{seed}:{inputs[index].source}:{inputs[index].name}".encode()).digest())
    for group, share in groups:
        members = [index for index in order if (inputs[index].source == group if group else inputs[index].source not in fixed)]
        totals: dict[str, float] = defaultdict(float)
        by_source: dict[tuple[str, str], float] = defaultdict(float)
        for index in members:
            for language, size in sizes[index].items():
                totals[language] += size
                by_source[language, inputs[index].source] += size
        budgets = unimax_budgets(totals, sample_bytes * share, max_repeats=1)
        left = {(language, source): budgets[language] * size / max(1.0, totals[language]) for (language, source), size in by_source.items()}
        rate = {language: budgets[language] / max(1.0, totals[language]) for language in totals}
        for index in members:
            for language, size in sizes[index].items():
                key = (language, inputs[index].source)
                cheap = inputs[index].kind in (*_TEXT, *_RECORDS) and not is_url(inputs[index].path)
                least = min(size, max(STRETCH_BYTES, stretch_bytes) if cheap else WHOLE_BYTES)
                amount = min(max(size * rate[language], least), left[key]) if inputs[index].kind != "problems" else size * rate[language]
                left[key] -= amount
                if amount >= 1:
                    result[index][language] = amount
    return result


def _least_bytes(budgets: Sequence[Mapping[str, float]], stretch_bytes: int) -> dict[str, float]:
    """How long a stretch of a document is at least, by language."""
    totals: Counter[str] = Counter()
    for budget in budgets:
        totals.update(budget)
    return {language: max(stretch_bytes, total / EXCERPTS) for language, total in totals.items()}


def _take(item: Input, sizes: Mapping[str, float], budgets: dict[str, float], seed: int, least: Mapping[str, float]) -> Take:
    if not budgets:
        return Take({}, 1.0, seed)
    if item.kind == "problems":
        return Take(budgets, 1.0, seed, sum(budgets.values()))
    if all(budgets.get(language, 0) >= 0.999 * size for language, size in sizes.items()):
        return _everything(item, seed)  # all of it is wanted: an estimate must not cut it short
    needed = max(budgets.get(language, 0) / size for language, size in sizes.items() if size)
    share = min(1.0, max(MARGIN * needed, 1 / (_RECORD_SPREAD if item.kind in _RECORDS else SPREAD)))
    size = float(item.num_bytes) or sum(sizes.values())
    if item.kind in _TEXT:  # read to its end in any case
        return Take(budgets, 1.0, seed, size, min(1.0, needed), 0.0)
    if item.kind in ONE_DOCUMENT or item.kind == "python":  # the Python corpus is shuffled by itself
        return Take(budgets, 1.0, seed, size * needed)
    if item.kind in _RECORDS:
        return Take(budgets, 1.0, seed, size * min(1.0, needed / share), share, max(least[language] for language in budgets))
    return Take(budgets, share, seed, size * min(1.0, needed / share))


def _everything(item: Input, seed: int) -> Take:
    return Take(None, 1.0, seed, _PYTHON_BYTES if item.kind == "python" else item.num_bytes)


def _uniform(seed: int, position: int) -> float:
    """splitmix64 (Steele et al. 2014) of the position: the same on every machine, unlike Python's hash."""
    mask = (1 << 64) - 1
    value = (seed * 0xD1342543DE82EF95 + (position + 1) * 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return ((value ^ (value >> 31)) >> 11) / (1 << 53)
