"""What it was made from and on: data with licences and drop reasons, environment, events."""

from __future__ import annotations

import datetime
from typing import Any

from hagane.corpus.reasons import REASONS, in_words
from hagane.report import text
from hagane.report.record import Record, dig, number, table
from hagane.report.tables import Table

MAX_EVENTS = 150
NOT_SHOWN = frozenset({"settings", "format", "steps"})  # the recipe is shown as such; timings of candidate shapes interest nobody
# Who said the language of a document.
WHO = {
    "record": "their record",
    "source": "their source or folder",
    "classifier": "the classifier learned from labelled text",
    "py3langid": "py3langid",
    "none": "nobody",
}


def data(record: Record) -> dict[str, Any] | None:
    """Data, licences and drop reasons; None before the corpus is there."""
    corpus, plan = record.facts("corpus"), record.facts("plan")
    shards = {name: shard for name, shard in table(corpus.get("shards")).items() if isinstance(shard, dict)}
    if not corpus:
        return None
    lines = []
    for name, shard in sorted(shards.items(), key=lambda item: (-(number(item[1].get("bytes")) or 0), item[0])):
        share, repeats = number(dig(plan, "mixture", name)), number(dig(plan, "repeats", name))
        kept = (text.whole(shard.get("documents")), text.size(shard.get("bytes")))
        read = (text.percent(share), f"{repeats:.2f}×" if repeats is not None else text.UNKNOWN, text.size(shard.get("held_out_bytes")))
        lines.append((str(name), text.language(str(shard.get("language", ""))), _licences(shard), *kept, *read))
    columns = ("shard", "language", "licence", "documents", "text", "share of pretraining", "read", "held out")
    return {
        "table": Table("Text kept, by source and language", columns, tuple(lines), frozenset({3, 4, 5, 6, 7})),
        "licences": _by_licence(shards),
        "dropped": _dropped(corpus),
        "languages": _languages(table(corpus.get("identified"))),
        "quality": _quality(table(corpus.get("quality"))),
        "labels": _labels(table(corpus.get("identified"))),
        "documents_in": text.whole(corpus.get("documents_in")),
        "documents_kept": text.whole(corpus.get("documents_kept")),
        "bytes_kept": text.size(corpus.get("bytes_kept")),
        "not_needed": text.whole(corpus.get("files_not_needed")) if number(corpus.get("files_not_needed")) else None,
        "repaired": text.whole(dig(corpus, "repaired", "encoding")) if dig(corpus, "repaired", "encoding") else None,
        "ignored": ", ".join(f"{text.whole(count)} {suffix}" for suffix, count in table(corpus.get("ignored_files")).items()),
    }


def _licences(shard: dict[str, Any]) -> str:
    value = shard.get("license")
    names = list(value) if isinstance(value, dict | list | tuple) else [] if value is None else [value]
    return ", ".join(str(name) for name in names if name) or "not stated"


def _by_licence(shards: dict[str, dict[str, Any]]) -> Table:
    totals: dict[str, list[float]] = {}
    for shard in shards.values():
        total = totals.setdefault(_licences(shard), [0.0, 0.0])
        total[0] += number(shard.get("documents")) or 0
        total[1] += number(shard.get("bytes")) or 0
    lines = tuple((name, text.whole(documents), text.size(size)) for name, (documents, size) in sorted(totals.items(), key=lambda item: -item[1][1]))
    return Table("Licences", ("licence", "documents", "text"), lines, frozenset({1, 2}))


def _dropped(corpus: dict[str, Any]) -> Table | None:
    dropped = {str(name): item for name, item in table(corpus.get("dropped")).items()}
    if not dropped:
        return None
    lines = []
    for name, item in sorted(dropped.items(), key=lambda pair: (-(number(dig(pair[1], "documents")) or 0), pair[0])):
        lines.append((name, REASONS.get(name, ""), text.whole(dig(item, "documents")), text.size(dig(item, "bytes"))))
    return Table("Left out, by reason", ("reason", "meaning", "documents", "text"), tuple(lines), frozenset({2, 3}))


def _languages(identified: dict[str, Any]) -> Table | None:
    """How well the languages with labelled text are told apart."""
    lines = []
    for name, item in sorted(table(identified.get("languages")).items(), key=lambda pair: (number(dig(pair[1], "recall")) or 0.0, pair[0])):
        confusions = ", ".join(f"{text.language(other)} {text.whole(count)}" for other, count in table(dig(item, "confusions")).items())
        shares = (text.percent(number(dig(item, "precision"))), text.percent(number(dig(item, "recall"))))
        lines.append((text.language(str(name)), text.whole(dig(item, "held_out")), *shares, confusions, "yes" if dig(item, "known") else "no"))
    columns = ("language", "documents measured", "precision", "recall", "called instead", "label may be questioned")
    return Table("Languages told apart", columns, tuple(lines), frozenset({1, 2, 3})) if lines else None


def _quality(quality: dict[str, Any]) -> Table | None:
    """How text was divided by quality."""
    lines = tuple((text.language(str(name)), in_words(own)) for name, own in table(quality.get("languages")).items() if isinstance(own, dict))
    often = ", ".join(f"{value:g}" for value in quality.get("repeats", ()))
    caption = f"Quality: text most like {', '.join(quality.get('good', ()))} first; buckets are read {often} times as often"
    return Table(caption, ("language", "buckets, best first"), lines) if lines else None


def _labels(identified: dict[str, Any]) -> str:
    """Who said the language of how many documents."""
    return ", ".join(f"{WHO.get(who, who)} {text.whole(count)}" for who, count in table(identified.get("labels")).items() if count)


def environment(record: Record) -> Table | None:
    """What the run was made with, flattened."""
    lines = tuple(_flat(record.environment, ""))
    return Table("Environment", ("setting", "value"), lines) if lines else None


def _flat(value: dict[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, item in value.items():
        if name in NOT_SHOWN or item is None or item in ("", [], {}):
            continue
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(item, dict):
            found += _flat(item, f"{label}: ")
        else:
            found.append((label, _with_unit(name, item)))
    return found


def _with_unit(name: str, value: Any) -> str:
    if number(value) is not None:
        if name.endswith("_bytes"):
            return text.size(value)
        unit = next((unit for ending, unit in (("_flops", "FLOP/s"), ("bandwidth", "B/s"), ("_watts", "W")) if name.endswith(ending)), None)
        if unit:
            return text.scaled(value, unit)
    return text.plain(value)


def events(record: Record) -> dict[str, Any] | None:
    """The last events of all stages in the order of time; None where there are none."""
    found = [(number(event.get("time")) or 0.0, stage.name, event) for stage in record.stages for event in stage.events]
    if not found:
        return None
    found.sort(key=lambda item: item[0])
    lines = []
    for time, stage, event in found[-MAX_EVENTS:]:
        rest = {name: value for name, value in event.items() if name not in ("time", "step", "event") and value is not None}
        detail = ", ".join(f"{name.replace('_', ' ')} {text.plain(value)}" for name, value in rest.items())
        lines.append((_clock(time), stage, text.whole(event.get("step")), str(event.get("event", "")).replace("_", " "), detail))
    left_out = len(found) - len(lines)
    return {"table": Table("Events", ("time (UTC)", "stage", "step", "event", "details"), tuple(lines), frozenset({2})), "left_out": left_out}


def _clock(seconds: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return text.UNKNOWN
