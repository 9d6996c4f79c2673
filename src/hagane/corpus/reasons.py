"""Why documents are left out, in words, and documents to look at: `hagane corpus show`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hagane.corpus.rules.measure import FEATURES
from hagane.errors import DataError
from hagane.folder import read_json

# What each drop reason of the corpus stage means; a reason that is not here is shown by its name.
REASONS = {
    "duplicate": "the same text was read before",
    "near_duplicate": "nearly the same as another document (corpus.near_duplicates)",
    "evaluation_overlap": "holds items of the evaluation files of corpus.exclude; their paragraphs were cut out",
    "held_out_overlap": "holds most of a held-out document, or is mostly in one; its paragraphs were cut out",
    "too_short": "shorter than corpus.min_characters",
    "encoding_damage": "not UTF-8, or more damaged characters than corpus.max_damage",
    "empty": "nothing but white space",
    "no_text": "a record without text",
    "damaged_record": "a line that is not JSON",
    "special_token": "holds a special token of the chat template as plain text",
    "bad_language": "its language is not a BCP-47 tag",
    "truncated": "the file ends in the middle of a record",
    "corrupt_file": "the rest of the file cannot be read",
    "compression_bomb": "unpacks to far more than the file holds",
    "unreadable": "the file cannot be opened",
    "too_long": "a line, page, notebook or row longer than corpus.max_record_bytes",
    "not_text": "a record of a web archive that is no page or text",
    "http_status": "a record of a web archive that is not the answer that was asked for",
    "held_out_rest": "the rest of a document of which the beginning is held out",
    "boilerplate": "little but lines that many documents of its origin share",
    "repetition": "repeats itself far more than its language does",
    "lists": "nearly nothing but list items, numbers or very short lines, for its language",
    "signs": "far more signs than its language has",
    "broken_text": "words taken apart, run together or mixed with digits",
    "cut_lines": "most lines are cut off with an ellipsis",
    "markup_page": "a web page inside a record whose main text could not be had (the extra `web` reads pages)",
    "license": "its licence is not allowed by corpus.licenses",
    "removed": "taken out with `hagane corpus remove`, or named by corpus.remove",
    "wrong_language": "certainly in another language than its label says",
}

# What was done to documents that were kept.
REPAIRS = {
    "encoding": "characters misread from another encoding put right",
    "markup": "markup taken out",
    "contents": "tables of contents cut out",
    "dumps": "JSON cut out that they mostly consisted of",
    "twice": "second copies of their text cut out",
    "boilerplate": "lines cut out that many documents of their origin share",
    "personal_data": "personal data and secrets masked",
}


def show(folder: Path, reason: str | None = None, count: int = 5) -> tuple[list[str], dict[str, Any]]:
    """Lines for a person, and the counts: every reason with `count` examples, or all that were kept of one reason.

    `folder` is that of a corpus. Raises DataError where nothing was dropped for that reason.
    """
    facts = read_json(folder / "facts.json")["facts"]
    dropped: dict[str, dict[str, int]] = facts["dropped"]
    repaired: dict[str, int] = facts.get("repaired", {})
    if reason is not None and reason not in dropped and reason not in repaired:
        near = difflib.get_close_matches(reason, [*REASONS, *REPAIRS], n=1)
        hint = f" Did you mean {near[0]}?" if near and near[0] != reason else ""
        found = ", ".join([*dropped, *(rule for rule in repaired if rule not in dropped)]) or "none at all"
        raise DataError(f"nothing was dropped from {folder} for the reason {reason!r}.{hint} Reasons found there: {found}.")
    examples: dict[str, list[dict[str, Any]]] = {}
    for line in (folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines():
        example = json.loads(line)
        examples.setdefault(example["reason"], []).append(example)
    lines = [f"{facts['documents_kept']:,} documents kept ({facts['bytes_kept'] / 1e6:,.1f} MB) of {facts['documents_in']:,} looked at"]
    if facts.get("excerpts"):
        lines.append(f"of {facts['excerpts']:,} long ones a stretch was taken, as much as a sample needs")
    for name in [reason] if reason is not None else [*dropped, *(rule for rule in repaired if rule not in dropped)]:
        lines.append("")
        if name in dropped:
            meaning = REASONS.get(name, "no words for it")
            lines.append(f"{name}: {dropped[name]['documents']:,} documents, {dropped[name]['bytes'] / 1e6:,.2f} MB; {meaning}")
        if name in repaired:
            lines.append(f"{name}: {repaired[name]:,} documents mended; {REPAIRS.get(name, 'no words for it')}")
        for example in examples.get(name, [])[: None if reason is not None else count]:
            lines += _example(example)
        if reason is not None:
            lines += _fences(facts, reason)
    if reason is None:
        lines += [*_fences(facts), *_languages(facts), *_quality(facts)]
    return lines, {"dropped": {name: dropped[name] for name in ([reason] if reason is not None else dropped) if name in dropped}}


def _fences(facts: dict[str, Any], rule: str | None = None) -> Iterator[str]:
    """Beyond which values documents of each language are dropped, for one rule or all."""
    rules = facts.get("rules") or {"languages": {}}
    of_rule = {feature.name: feature for feature in FEATURES if rule in (None, feature.rule)}
    if not of_rule or not rules["languages"]:
        return
    yield ""
    yield f"thresholds, {rules['width']:g} spreads from the median of each language's own documents:"
    for language, own in rules["languages"].items():
        values = [
            f"{name} {'<' if of_rule[name].side == 'low' else '>'} {fence['value']:g}"
            for name, fence in own["fences"].items()
            if name in of_rule and fence["value"] is not None
        ]
        yield f"  {language} ({own['documents']:,} documents of {own['taken_from']}): {', '.join(values) or 'none'}"


def _languages(facts: dict[str, Any]) -> Iterator[str]:
    """How well languages are told apart, the worst first."""
    languages = (facts.get("identified") or {"languages": {}})["languages"]
    if not languages:
        return
    yield ""
    yield "languages told apart, on labelled documents that were not learned from:"
    for language, own in sorted(languages.items(), key=lambda item: (item[1]["recall"], item[0])):
        precision = "-" if own["precision"] is None else f"{own['precision']:.0%}"
        confusions = ", ".join(f"{other} {count:,}" for other, count in own["confusions"].items())
        called = f"; called instead: {confusions}" if confusions else ""
        questioned = "" if own["known"] else "; its label is never questioned"
        yield f"  {language}: precision {precision}, recall {own['recall']:.0%} of {own['held_out']:,} documents{called}{questioned}"


def _quality(facts: dict[str, Any]) -> Iterator[str]:
    """How the text of each language was divided by quality."""
    quality = facts.get("quality")
    if not quality:
        return
    yield ""
    often = ", ".join(f"{value:g}" for value in quality["repeats"])
    yield f"quality: text most like {', '.join(quality['good'])} first; buckets are read {often} times as often:"
    for language, own in quality["languages"].items():
        yield f"  {language}: {in_words(own)}"


def in_words(own: dict[str, Any]) -> str:
    """What dividing one language by quality came to."""
    if own["divided"]:
        sizes = ", ".join(f"{size / 1e6:.2f} MB" for size in own["bucket_bytes"])
        alone = [f"{100 * own[f'by_{way}']:.0f} by {way}" for way in ("classifier", "perplexity") if own.get(f"by_{way}") is not None]
        ways = f" ({', '.join(alone)} alone)" if alone else ""
        return f"{sizes}; a good document scores higher than another one in {100 * own['separation']:.0f} % of pairs{ways}"
    if own["separation"] is None:
        return f"not divided: {own['good_documents']:,} good documents and {own['other_documents']:,} others are too few to learn from"
    return f"not divided: a good document scores higher than another one in only {100 * own['separation']:.0f} % of pairs"


def _example(example: dict[str, Any]) -> Iterator[str]:
    words = {"position": "record", "document": "document", "piece": "piece"}  # documents count those that were not dropped before
    place = next((f", {word} {example[key] + 1:,}" for key, word in words.items() if key in example), "")
    like = f", like {example['like_file']}, document {example['like_document'] + 1:,}" if "like_file" in example else ""
    yield f"  {example.get('file', '?')}{place}{like}"
    for key in ("what", "text", "like_text", "after"):
        if example.get(key):
            mark = {"like_text": "  ~ ", "after": "  > "}.get(key, "  | ")
            yield mark + " ".join(str(example[key]).split())[:200]
