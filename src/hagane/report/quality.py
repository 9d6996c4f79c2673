"""How good it became: bits per byte and per parallel sentence by language, right answers by mode, samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hagane.report import figures, text
from hagane.report.figures import Interval
from hagane.report.record import Record, dig, number, rows, table
from hagane.report.tables import Count, Heat, HeatCell, Picture, Table
from hagane.tokenizer.special import END_OF_TEXT, END_THINK, IM_END, THINK

MAX_SAMPLES = 24
MAX_SAMPLE_CHARACTERS = 3000


def human_languages(tags: Iterable[Any]) -> list[str]:
    """Distinct tags that name a human language; code-python and its like are no languages to average over."""
    return sorted({str(tag) for tag in tags if tag is not None and not str(tag).startswith("code")})


def mean_bits(record: Record) -> tuple[float, int, str, float] | None:
    """Mean bits per byte over all languages that were scored, code among them as in the plan's expectation; their number, the weakest and its value."""
    values = {tag: number(dig(item, "value")) for tag, item in table(record.facts("evaluate").get("bits_per_byte")).items()}
    known = {tag: value for tag, value in values.items() if value is not None}
    if not known:
        return None
    worst = max(sorted(known), key=lambda tag: known[tag])
    return sum(known.values()) / len(known), len(known), worst, known[worst]


def counted(record: Record, key: Callable[[dict[str, Any]], str | None], name: str = "accuracy") -> dict[str, Count]:
    """Right answers added up by `key`, in the order of the facts."""
    totals: dict[str, Count] = {}
    for row in rows(record.facts("evaluate").get(name)):
        correct, total, group = number(row.get("correct")), number(row.get("total")), key(row)
        if correct is not None and total and group is not None:
            totals[group] = totals.get(group, Count()) + Count(correct, total)
    return totals


def languages(record: Record) -> dict[str, Any] | None:
    """Quality by language; None before evaluation."""
    facts = record.facts("evaluate")
    bits, parallel = _intervals(facts.get("bits_per_byte"), "value"), _intervals(facts.get("parallel"), "bits_per_sentence")
    if not bits and not parallel:
        return None
    predicted = table(record.facts("plan").get("predicted"))
    low, high = number(predicted.get("low")), number(predicted.get("high"))
    band = (low, high) if low is not None and high is not None else None
    pictures = []
    if bits:
        note = "Held-out text; lower is better. Scripts differ in bytes per character, so compare a language with itself, not with others."
        pictures.append(figures.intervals("bits", "Bits per byte", _by_value(bits), caption=note, band=band))
    if parallel:
        note = "The same sentences in every language: what one meaning costs, whatever the script. Lower is better, and languages can be compared."
        pictures.append(figures.intervals("parallel", "Bits per parallel sentence", _by_value(parallel), caption=note))
    columns = ("language", "bits per byte", "95 % interval", "bits per sentence", "95 % interval", "held-out text", "bytes per token")
    lines = tuple(_language_row(tag, facts, bits.get(tag), parallel.get(tag)) for tag in dict.fromkeys([*bits, *parallel]))
    return {"pictures": pictures, "table": Table("Quality by language", columns, lines, frozenset(range(1, len(columns)))), "start": _forgetting(record)}


def _forgetting(record: Record) -> Table | None:
    """Of a run that went on from a checkpoint: bits per byte before and after, by language; None for any other."""
    facts = record.facts("evaluate")
    start = table(facts.get("start"))
    before, change, after = _intervals(start.get("before"), "value"), _intervals(start.get("change"), "value"), _intervals(facts.get("bits_per_byte"), "value")
    if not before:
        return None
    named, each = start.get("languages"), table(record.facts("tokenizer").get("bytes_per_token_at_start"))
    known = {str(tag) for tag in named} if isinstance(named, list) else set()
    lines = []
    for tag in sorted(before, key=lambda tag: (tag not in known, tag)):
        num_bytes, num_tokens = (number(dig(facts, "bits_per_byte", tag, name)) for name in ("bytes", "tokens"))
        tokens = f"{text.fixed(each.get(tag), 2)} to {text.fixed(num_bytes / num_tokens if num_bytes and num_tokens else None, 2)}"
        kind = ("known" if tag in known else "new") if known else text.UNKNOWN
        lines.append((text.language(tag), kind, _with_range(before[tag]), _with_range(after.get(tag)), _with_range(change.get(tag), "+"), tokens))
    for name, label in (("known", "mean of those it knew: forgetting above 0"), ("new", "mean of the new ones: gain below 0")):
        mean = _intervals({name: start.get(name)}, "value").get(name)
        if mean is not None:
            lines.append((label, name, "", "", _with_range(mean, "+"), ""))
    columns = ("language", "to the starting model", "bits per byte before", "after", "change (95 % interval)", "bytes per token before and after")
    return Table("What the starting model forgot and gained", columns, tuple(lines), frozenset(range(2, len(columns))))


def _with_range(item: Interval | None, sign: str = "") -> str:
    """A value and its interval: `2.104 (2.081 to 2.127)`."""
    if item is None:
        return text.UNKNOWN
    inside = "" if item.low is None or item.high is None else f" ({item.low:{sign}.3f} to {item.high:{sign}.3f})"
    return f"{item.value:{sign}.3f}{inside}"


def _language_row(tag: str, facts: dict[str, Any], bits: Interval | None, parallel: Interval | None) -> tuple[str, ...]:
    num_bytes, num_tokens = (number(dig(facts, "bits_per_byte", tag, name)) for name in ("bytes", "tokens"))
    name = text.language(tag)
    return (
        name if name == tag else f"{name} ({tag})",
        text.fixed(bits.value if bits else None), _range(bits, 3),
        text.fixed(parallel.value if parallel else None, 1), _range(parallel, 1),
        text.size(num_bytes), text.fixed(num_bytes / num_tokens if num_bytes and num_tokens else None, 2),
    )  # fmt: skip


def _range(item: Interval | None, digits: int) -> str:
    return f"{item.low:.{digits}f} to {item.high:.{digits}f}" if item and item.low is not None and item.high is not None else text.UNKNOWN


def _intervals(facts: Any, name: str) -> dict[str, Interval]:
    found = {}
    for tag, item in table(facts).items():
        value = number(dig(item, name))
        if value is not None:
            found[str(tag)] = Interval(text.language(str(tag)), value, number(dig(item, "low")), number(dig(item, "high")))
    return found


def _by_value(items: dict[str, Interval]) -> list[Interval]:
    return sorted(items.values(), key=lambda item: (item.value, item.label))


def answers(record: Record) -> dict[str, Any] | None:
    """Right answers by mode, family and language, beside the baseline; None before evaluation."""
    modes = list(counted(record, lambda row: str(row.get("mode"))))
    if not modes:
        return None
    families = list(counted(record, lambda row: str(row.get("family"))))
    series: list[tuple[str, dict[str, Interval]]] = []
    heats = []
    for mode in modes:
        by_family = counted(record, _where("mode", mode, "family"))
        series.append((mode, _as_intervals(by_family)))
        heats.append(_heat(record, mode.capitalize(), _where("mode", mode), families, "accuracy"))
    baseline = counted(record, lambda row: str(row.get("family")), "baseline")
    if baseline:
        series.append(("look-up baseline", _as_intervals({family: count for family, count in baseline.items() if family in families})))
    picture: Picture = figures.accuracy("accuracy", families, series[:4])
    look_up = _heat(record, "Look-up baseline", lambda row: "all", families, "baseline") if baseline else None
    return {"picture": picture, "heats": heats, "baseline": look_up, "table": _mode_table(record, modes, baseline), "notes": _unanswered(record)}


def _unanswered(record: Record) -> list[str]:
    """Outputs that could not count, because their thinking or their turn never ended, by mode."""
    notes = []
    for row in rows(record.facts("evaluate").get("unanswered")):
        parts = [
            f"{text.whole(count)} answers {what}"
            for name, what in (("thinking_open", "whose thinking never ended"), ("unfinished", "that never ended"))
            if (count := number(row.get(name)))
        ]
        if parts:
            notes.append(f"Counted as wrong, {row.get('mode')}: {', '.join(parts)}.")
    return notes


def _where(field: str, value: str, then: str | None = None) -> Callable[[dict[str, Any]], str | None]:
    """A key for `counted`: rows whose `field` is `value`, grouped by `then`."""
    return lambda row: (str(row.get(then)) if then else "all") if str(row.get(field)) == value else None


def _as_intervals(counts: dict[str, Count]) -> dict[str, Interval]:
    return {name: Interval(name, count.share, *(count.interval or (None, None))) for name, count in counts.items() if count.share is not None}


def _mode_table(record: Record, modes: Sequence[str], baseline: dict[str, Count]) -> Table:
    counts = [(mode, counted(record, _where("mode", mode)).get("all", Count())) for mode in modes]
    if baseline:
        counts.append(("look-up baseline", sum(baseline.values(), Count())))
    lines = []
    for name, count in counts:
        low, high = count.interval or (None, None)
        lines.append((name, text.percent(count.share), f"{text.percent(low)} to {text.percent(high)}", str(count)))
    return Table("Right answers by mode", ("mode", "right", "95 % interval", "problems"), tuple(lines), frozenset({1, 2, 3}))


def _heat(record: Record, title: str, wanted: Callable[[dict[str, Any]], str | None], families: Sequence[str], name: str) -> Heat:
    tags = list(counted(record, lambda row: str(row.get("language")) if wanted(row) else None, name))
    cells = counted(record, lambda row: f"{row.get('family')}\n{row.get('language')}" if wanted(row) else None, name)
    by_family = counted(record, lambda row: str(row.get("family")) if wanted(row) else None, name)
    by_language = counted(record, lambda row: str(row.get("language")) if wanted(row) else None, name)
    lines = []
    for family in families:
        line = [_cell(cells.get(f"{family}\n{tag}")) for tag in tags]
        lines.append((family.replace("_", " "), (*line, _cell(by_family.get(family)))))
    lines.append(("all", (*(_cell(by_language.get(tag)) for tag in tags), _cell(sum(by_language.values(), Count())))))
    columns = (*((tag, text.language(tag)) for tag in tags), ("all", "all languages"))
    return Heat(title, "Per cent of test problems answered rightly, family by language.", columns, tuple(lines))


def retrieval(record: Record) -> list[Heat]:
    """Numbers found again, of either kind: depth by length; empty where none were hidden."""
    heats = []
    for kind, note in (("passkey", "a number among sentences that say nothing"), ("needle", "a number in one sentence of other text")):
        found = [row for row in rows(record.facts("evaluate").get("retrieval")) if row.get("kind") == kind]
        lengths = sorted({value for row in found if (value := number(row.get("length"))) is not None})
        depths = sorted({value for row in found if (value := number(row.get("depth"))) is not None})
        if not lengths or not depths:
            continue
        counts: dict[tuple[float | None, float | None], Count] = {}
        for row in found:
            count = Count(number(row.get("correct")) or 0.0, number(row.get("total")) or 0.0)
            at = (number(row.get("depth")), number(row.get("length")))
            for key in (at, (None, at[1])):
                counts[key] = counts.get(key, Count()) + count
        lines = [(text.percent(depth, 0), tuple(_cell(counts.get((depth, length))) for length in lengths)) for depth in depths]
        lines.append(("all", tuple(_cell(counts.get((None, length))) for length in lengths)))
        named = sorted({text.language(str(row.get("language"))) for row in found})
        note = f"Per cent found again, {note}: depth in the text by its tokens. Languages: {', '.join(named)}."
        heats.append(Heat(kind.capitalize(), note, tuple((f"{length:,.0f}", f"{length:,.0f} tokens") for length in lengths), tuple(lines)))
    return heats


def _cell(count: Count | None) -> HeatCell:
    if count is None or count.share is None or count.interval is None:
        return HeatCell(None, text.UNKNOWN)
    low, high = count.interval
    shown = f"{100 * count.share:.0f}" if count.correct == count.total or count.share < 0.995 else f"{100 * count.share:.1f}"
    return HeatCell(count.share, shown, f"{count}; 95 % interval {text.percent(low, 0)} to {text.percent(high, 0)}")


@dataclass(frozen=True)
class Sample:
    """One problem with what the model answered. `correct` is None where nothing was checked."""

    mode: str
    language: str
    tag: str
    family: str
    prompt: str
    thinking: str
    answer: str
    expected: str
    correct: bool | None


def samples(record: Record) -> list[Sample]:
    """The samples of the evaluation, thinking apart from the answer."""
    found = []
    for row in rows(record.facts("evaluate").get("samples"))[:MAX_SAMPLES]:
        mode = str(row.get("mode") or "")
        thinking, answer = _taken_apart(str(row.get("output") or ""), mode == "thinking")
        tag = str(row.get("language") or "")
        correct = row.get("correct")
        found.append(Sample(
            mode=mode, language=text.language(tag), tag=tag, family=str(row.get("family") or "").replace("_", " "),
            prompt=_short(row.get("prompt")), thinking=_short(thinking), answer=_short(answer),
            expected=_short(row.get("expected")), correct=correct if isinstance(correct, bool) else None,
        ))  # fmt: skip
    return found


def _taken_apart(output: str, thinking: bool) -> tuple[str, str]:
    """Thinking and answer. Nothing is judged here: a stray tag is shown where it stands. `thinking`: the output begins inside of it."""
    turn = output.removesuffix(END_OF_TEXT).removesuffix(IM_END)
    if turn.lstrip().startswith(THINK):
        turn, thinking = turn.lstrip().removeprefix(THINK), True
    if not thinking:
        return "", turn
    thought, _, answer = turn.partition(END_THINK)
    return thought, answer


def _short(value: Any) -> str:
    words = "" if value is None else str(value).strip()
    return words if len(words) <= MAX_SAMPLE_CHARACTERS else words[:MAX_SAMPLE_CHARACTERS] + " …"
