"""Between reading and writing: which documents stay, decided from what is known of all of them at once.

In this order: exact duplicates go, then what is unlike its language (`rules/fences.py`) or little but boilerplate (`rules/lines.py`),
then near-duplicates; of what is left some is held out, and what holds most of a held-out document is cut or goes. So a page is not judged by
copies of itself, and nothing is trained on that is nearly what is held out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hagane.corpus import leaks, near, overlap, passages, pool
from hagane.corpus.accounts import Account
from hagane.corpus.dropped import Dropped
from hagane.corpus.gather import Gathered
from hagane.corpus.inputs import Input
from hagane.corpus.parts import Part
from hagane.corpus.rules import fences, lines
from hagane.corpus.rules.measure import FEATURES, features
from hagane.corpus.shingles import Hashes, shingles, word_hashes
from hagane.corpus.split import choose_held_out, first_of_equal
from hagane.recipe.schema import CorpusSettings
from hagane.recipe.types import Frozen

DROP, TRAIN, HELD_OUT = np.uint8(0), np.uint8(1), np.uint8(2)
_MOST_BOILERPLATE = 0.8  # of a document: with more of it gone, what is left is not a text
_SCRIPT_CHARACTERS = 2000  # of a language's first document say what its script is


class RuleFacts(Frozen):
    """What the rules were: the fences of every language, and how much boilerplate was found."""

    width: float
    languages: dict[str, fences.LanguageFences]
    boilerplate_lines: int = Field(description="different lines that many documents of an origin share")


@dataclass
class Shard:
    """What one shard is written from: parts in order; for every piece of a part whether it is dropped, trained on or held out; for every document
    whether its id is taken.
    """

    name: str
    source: str
    language: str
    parts: list[Part]
    place_P: list[NDArray[np.uint8]]
    repeated_D: list[NDArray[np.bool_]]
    boilerplate: Hashes
    held_out: Hashes  # runs of words of which paragraphs of `leak_D` documents are freed
    folder: Path = Path()
    bucket: int | None = None  # of quality, 1 is the best
    repeats: float = 1.0


@dataclass
class Decided:
    shards: list[Shard] = field(default_factory=list)
    repeated_ids: int = 0
    rules: RuleFacts | None = None
    kept: list[Kept] = field(default_factory=list)


class Kept(NamedTuple):
    """Documents that stay, by account and origin; `num_bytes` before boilerplate was cut out."""

    account: Account
    origin: str
    documents: int
    held_out: int
    num_bytes: int


@dataclass
class _Documents:
    """All parts in order, with what stays of each so far."""

    inputs: Sequence[Input]
    parts: list[Part]
    source: list[str]
    keep: list[NDArray[np.bool_]]
    dropped: Dropped

    def drop(self, index: int, document: int, reason: str, more: dict[str, object]) -> None:
        part = self.parts[index]
        example = self.where(index, document) | more
        if self.dropped.wants(reason) and "text" not in example:
            example["text"] = self.excerpt(index, document)
        self.dropped.add(reason, int(part.bytes_D[document]), example, part.account(self.source[index], document))
        self.keep[index][document] = False

    def where(self, index: int, document: int) -> dict[str, object]:
        """The file a document is from, and which of those set aside of it in its language it is."""
        file_D = self.parts[index].file_D
        file = file_D[document]
        return {"file": self.inputs[file].name, "document": document - int(np.searchsorted(file_D, file))}

    def like(self, index: int, document: int) -> dict[str, object]:
        """The same of another document that it is like."""
        return {f"like_{name}": value for name, value in self.where(index, document).items()}

    def excerpt(self, index: int, document: int, characters: int = 200) -> str:
        """How a document that was set aside begins."""
        part = self.parts[index]
        piece = np.searchsorted(part.document_P, [document])
        return passages.texts_of([part], np.zeros(1, np.int64), piece)[0][:characters]

    def texts(self, index: int, document: int, place_P: NDArray[np.uint8], place: np.uint8, known: Hashes) -> list[str]:
        """The pieces of a document that are in one place, without the boilerplate that will be cut out of them."""
        part = self.parts[index]
        first, last = np.searchsorted(part.document_P, [document, document + 1])
        pieces = first + np.flatnonzero(place_P[first:last] == place)
        texts = passages.texts_of([part], np.zeros(len(pieces), np.int64), pieces)
        if part.cut_D[document]:
            origin = part.groups[part.group_D[document]][0]
            texts = [text for text, _ in lines.without(texts, [origin] * len(texts), known)]
        return texts


def decide(
    inputs: Sequence[Input], gathered: Sequence[Gathered], settings: CorpusSettings, dropped: Dropped, progress: pool.Progress = pool.silent
) -> Decided:
    """The shards to write. Also counts the documents whose id another one has."""
    pairs = [(inputs[result.index].source, part) for result in gathered for part in result.parts]
    if not pairs:
        return Decided()
    parts = [part for _, part in pairs]
    file_D = np.concatenate([part.file_D for part in parts])  # of copies that of the first file stays, whatever their languages
    first = first_of_equal(np.concatenate([part.hash_D2 for part in parts]), file_D)
    offsets = np.cumsum([0] + [len(part.hash_D2) for part in parts])
    keep = [first[offsets[index] : offsets[index + 1]] for index in range(len(parts))]
    documents = _Documents(inputs, parts, [source for source, _ in pairs], keep, dropped)
    for index in range(len(parts)):
        for document in np.flatnonzero(~keep[index]):
            documents.drop(index, int(document), "duplicate", {})
    rules = _drop_unlike(documents, settings)
    known = _find_boilerplate(documents, settings) if settings.rules.boilerplate else np.zeros(0, np.uint64)
    _drop_near_duplicates(documents, settings.near_duplicates, progress)
    by_language: dict[str, list[int]] = defaultdict(list)
    for index, part in enumerate(parts):
        by_language[part.language].append(index)
    places: dict[int, NDArray[np.uint8]] = {}
    for members in by_language.values():
        places |= _split_language(documents, members, settings)
    held_out = _drop_held_out(documents, places, known, settings)
    kept = np.concatenate(keep)
    taken = np.zeros(len(kept), bool)
    taken[kept] = ~first_of_equal(np.concatenate([part.id_D for part in parts])[kept, None], file_D[kept])
    shards: dict[str, Shard] = {}
    for index, (source, part) in enumerate(pairs):
        name = f"{source}.{part.language}"
        shard = shards.setdefault(name, Shard(name, source, part.language, [], [], [], known, held_out))
        shard.parts.append(part)
        shard.place_P.append(places[index])
        shard.repeated_D.append(taken[offsets[index] : offsets[index + 1]])
    filled = [shards[name] for name in sorted(shards) if any((places != DROP).any() for places in shards[name].place_P)]
    facts = RuleFacts(width=settings.rules.width, languages=rules, boilerplate_lines=len(known)) if any(part.lines for part in parts) else None
    kept_by = [row for index, part in enumerate(parts) for row in _kept(part, documents.source[index], keep[index], places[index])]
    return Decided(filled, int(taken.sum()), facts, kept_by)


def _kept(part: Part, source: str, keep_D: NDArray[np.bool_], place_P: NDArray[np.uint8]) -> Iterator[Kept]:
    """What stays of a part, by its groups."""
    held_D = np.zeros(len(keep_D), bool)
    held_D[part.document_P[place_P == HELD_OUT]] = True
    for group in np.unique(part.group_D[keep_D]).tolist():
        own = keep_D & (part.group_D == group)
        origin, license = part.groups[group]
        yield Kept(Account(source, license, part.language), origin, int(own.sum()), int((own & held_D).sum()), int(part.bytes_D[own].sum()))


def _drop_unlike(documents: _Documents, settings: CorpusSettings) -> dict[str, fences.LanguageFences]:
    """Drop what lies beyond the fences of its language. Returns these."""
    members = [index for index, part in enumerate(documents.parts) if part.lines is not None]
    if not members:
        return {}
    kept = [np.flatnonzero(documents.keep[index]) for index in members]
    values = [features(documents.parts[index].raw_DR[own]) for index, own in zip(members, kept, strict=True)]
    languages = np.repeat([documents.parts[index].language for index in members], [len(own) for own in kept])
    if not len(languages):
        return {}
    first_with = {documents.parts[index].language: (index, int(own[0])) for index, own in reversed(list(zip(members, kept, strict=True))) if len(own)}
    found = fences.judge(
        np.concatenate(values), languages, lambda name: documents.excerpt(*first_with[name], _SCRIPT_CHARACTERS), settings.rules.width,
        settings.rules.model_dump(),
    )  # fmt: skip
    start = 0
    for index, own, own_values in zip(members, kept, values, strict=True):
        for row in np.flatnonzero(found.feature_D[start : start + len(own)] >= 0):
            feature = FEATURES[place := int(found.feature_D[start + row])]
            fence = found.languages[documents.parts[index].language].fences[feature.name]
            what = f"{feature.name} {own_values[row, place]:.3f}, beyond {fence.value} ({documents.parts[index].language}: median {fence.median})"
            documents.drop(index, int(own[row]), feature.rule, {"what": what})
        start += len(own)
    return found.languages


def _find_boilerplate(documents: _Documents, settings: CorpusSettings) -> Hashes:
    """Note how much of each document is boilerplate, and drop what is little else. Returns the hashes of the lines."""
    origins: dict[str, int] = {}
    files: dict[int, lines.LineFile] = {}
    for index, part in enumerate(documents.parts):
        if part.lines is None or not documents.keep[index].any():
            continue
        own = np.flatnonzero(documents.keep[index])
        origin_G = np.array([origins.setdefault(origin, len(origins)) for origin, _ in part.groups], np.int64)
        files[index] = lines.LineFile(part.lines, part.number_D[own], origin_G[part.group_D[own]], part.bytes_D[own])
    known = lines.boilerplate(list(files.values()))
    for index, file in files.items():
        part, own = documents.parts[index], np.flatnonzero(documents.keep[index])
        part.cut_D[own] = lines.cut_bytes(file, known)
        for document in own[part.cut_D[own] > 0].tolist():
            cut, size = int(part.cut_D[document]), int(part.bytes_D[document])
            if cut > _MOST_BOILERPLATE * size or size - cut < settings.min_characters:
                documents.drop(index, document, "boilerplate", {"what": f"{cut:,} of {size:,} bytes are lines that many documents of its origin share"})
                continue
            example = documents.where(index, document)
            if documents.dropped.wants("boilerplate"):
                origin = part.groups[part.group_D[document]][0]
                _, gone = next(iter(lines.without([documents.excerpt(index, document, settings.max_characters)], [origin], known)))
                example["text"] = " / ".join(gone)
            documents.dropped.repair("boilerplate", example)
    return known


def _drop_near_duplicates(documents: _Documents, threshold: float, progress: pool.Progress) -> None:
    """Of documents that are nearly alike the first stays."""
    parts, keep = documents.parts, documents.keep
    members = [index for index, part in enumerate(parts) if part.signatures is not None]
    files = [near.Signed(path, parts[index].number_D) for index in members if (path := parts[index].signatures) is not None]
    if not files:
        return
    offsets = np.cumsum([0] + [len(keep[index]) for index in members])
    total = sum(int(parts[index].bytes_D.sum()) for index in members)
    kept, file_D = (np.concatenate([values[index] for index in members]) for values in (keep, [part.file_D for part in parts]))
    first_D = near.clusters(files, kept, threshold, file_D, lambda share: progress("corpus: comparing", share * total, total))
    for index, start, end in zip(members, offsets, offsets[1:]):
        here = first_D[start:end]
        for document in np.flatnonzero(keep[index] & (here != np.arange(start, end))).tolist():
            like = int(np.searchsorted(offsets, here[document], side="right")) - 1
            like_document = int(here[document] - offsets[like])
            more = documents.like(members[like], like_document)
            if documents.dropped.wants("near_duplicate"):
                more |= {"text": documents.excerpt(index, document), "like_text": documents.excerpt(members[like], like_document)}
            documents.drop(index, document, "near_duplicate", more)


def _split_language(documents: _Documents, members: list[int], settings: CorpusSettings) -> dict[int, NDArray[np.uint8]]:
    """Place of every piece of one language's parts."""
    parts, keep = {index: documents.parts[index] for index in members}, documents.keep
    hashes = np.concatenate([part.hash_D2[keep[index]] for index, part in parts.items()])
    sizes = np.concatenate([part.bytes_D[keep[index]] for index, part in parts.items()])
    held = choose_held_out(hashes, sizes, settings.held_out_share, settings.held_out_bytes)
    too_long = bool(held.any()) and int(sizes[held].sum()) > settings.held_out_bytes
    places, start = {}, 0
    for index, part in parts.items():
        place_D = np.where(keep[index], TRAIN, DROP)
        count = int(keep[index].sum())
        place_D[np.flatnonzero(keep[index])[held[start : start + count]]] = HELD_OUT
        start += count
        places[index] = place_D[part.document_P]
        if too_long:  # one document longer than may be held out: its first pieces are, the rest is neither trained on nor held out
            pieces = np.flatnonzero(places[index] == HELD_OUT)
            beyond = pieces[1:][np.cumsum(part.bytes_P[pieces])[1:] > settings.held_out_bytes]
            places[index][beyond] = DROP
            for piece in beyond:
                example = documents.where(index, int(part.document_P[piece])) | {"piece": int(piece)}
                documents.dropped.add("held_out_rest", int(part.bytes_P[piece]), example, None)
    if len(hashes) == 1:  # a language that is one long document: its last piece is held out
        index = next(index for index in parts if keep[index].any())
        pieces = np.flatnonzero(places[index] == TRAIN)
        if len(pieces) > 1:
            places[index][pieces[-1]] = HELD_OUT
    return places


def _drop_held_out(documents: _Documents, places: dict[int, NDArray[np.uint8]], known: Hashes, settings: CorpusSettings) -> Hashes:
    """Cut paragraphs of held-out documents out of those to train on that hold most of one, or are mostly in one; what is little else is dropped.

    Returns the runs of words by which such paragraphs are known.
    """
    parts, keep = documents.parts, documents.keep
    members = [index for index, part in enumerate(parts) if part.sketch is not None]
    files = [leaks.Sketch(path, parts[index].number_D) for index in members if (path := parts[index].sketch) is not None]
    if not files:
        return np.zeros(0, np.uint64)
    offsets = np.cumsum([0] + [len(keep[index]) for index in members])
    held_D = np.concatenate([_share(parts[index], places[index] == HELD_OUT) for index in members])
    pairs = leaks.suspects(files, settings.held_out_overlap, held_D, np.concatenate([keep[index] for index in members]) & (held_D == 0))

    def place(document: int) -> tuple[int, int]:
        number = int(np.searchsorted(offsets, document, side="right")) - 1
        return members[number], int(document - offsets[number])

    words: dict[int, Hashes] = {}  # of held-out documents
    found = [np.zeros(0, np.uint64)]
    for document in np.unique(pairs[:, 0]).tolist():
        index, own = place(document)
        texts = documents.texts(index, own, places[index], TRAIN, known)
        runs = _runs(texts)
        like = []
        start, end = np.searchsorted(pairs[:, 0], [document, document + 1])
        for other in pairs[start:end, 1].tolist():
            if other not in words:
                held_index, held_own = place(other)
                words[other] = word_hashes("\n".join(documents.texts(held_index, held_own, places[held_index], HELD_OUT, known)))
            if leaks.contained(runs, np.unique(shingles(words[other], near.SHINGLE_WORDS))) >= settings.held_out_overlap:
                like.append(other)
        if like:
            known_runs = np.unique(np.concatenate([shingles(words[other], overlap.RUN_WORDS) for other in like]))
            found.append(known_runs)
            _cut_held_out(documents, (index, own), place(like[0]), texts, known_runs, places, settings.min_characters)
    return np.unique(np.concatenate(found))


def _cut_held_out(
    documents: _Documents, at: tuple[int, int], like: tuple[int, int], texts: list[str], runs: Hashes, places: dict[int, NDArray[np.uint8]], min_characters: int
) -> None:
    """Note that a document is to be cut, or drop it where most of it would go."""
    index, own = at
    rest = [overlap.without_overlap(text, runs) or "" for text in texts]
    left, total = sum(map(len, rest)), sum(map(len, texts))
    whole = left == total or total - left > overlap.MOST_CUT * total or left < min_characters  # of verse in short runs nothing may be cut, yet it is a copy
    whole |= documents.parts[index].language.startswith("code")  # with lines missing it is no code any more
    example = documents.like(*like) | {"whole": whole}
    if whole:
        documents.drop(index, own, "held_out_overlap", example)
        places[index][documents.parts[index].document_P == own] = DROP
        return
    part = documents.parts[index]
    part.leak_D[own] = True
    lost = sum(len(text.encode()) for text in texts) - sum(len(text.encode()) for text in rest)
    documents.dropped.add("held_out_overlap", lost, documents.where(index, own) | {"text": documents.excerpt(index, own)} | example, None)


def _share(part: Part, chosen_P: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How much of each document the chosen pieces are."""
    share_D: NDArray[np.float64] = np.bincount(part.document_P, part.bytes_P * chosen_P, minlength=len(part.bytes_D)) / np.maximum(1, part.bytes_D)
    return share_D


def _runs(texts: Sequence[str]) -> Hashes:
    return np.unique(shingles(word_hashes("\n".join(texts)), near.SHINGLE_WORDS))
