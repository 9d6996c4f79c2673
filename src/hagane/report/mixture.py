"""The mixture that `hagane mix` found for the text: what it was expected to gain, which proxies that rests on, and its shares beside UniMax's."""

from __future__ import annotations

from typing import Any

from matplotlib.ticker import PercentFormatter
from pydantic import ValidationError

from hagane.plan.found import FoundMixture
from hagane.report import text
from hagane.report.record import Record
from hagane.report.svg import MUTED, RULE, SERIES, new_figure, to_svg
from hagane.report.tables import Picture, Table

MOST_LANGUAGES = 30  # in the picture; the table has all


def mixture(record: Record) -> dict[str, Any] | None:
    """Pictures, table and verdict; None where the folder has no found mixture."""
    try:
        found = FoundMixture.model_validate(record.mixture)
    except ValidationError:
        return None
    pairs = "" if found.measured_gain is None else f" {found.pairs} pairs of proxies that differ in nothing else measured {100 * found.measured_gain:+.2f} %."
    interval = f"{100 * found.gain:.2f} % (95 % interval {100 * found.low:.2f} to {100 * found.high:.2f} %)"
    verdict = "The run uses it." if found.gains else "No gain here: UniMax stays."
    return {
        "told": f"Expected off {found.what} against UniMax: {interval}, from {len(found.proxies)} proxies.{pairs} {verdict}",
        "pictures": [_proxies(found), _shares(found)],
        "table": _table(found),
    }


def _proxies(found: FoundMixture) -> Picture:
    figure, axes = new_figure()
    kinds = (("sampled", "sampled around UniMax", SERIES[2]), ("unimax", "UniMax", SERIES[0]), ("found", "the found mixture", SERIES[1]))
    for height, (kind, _, colour) in enumerate(kinds):
        values = [proxy.objective for proxy in found.proxies if proxy.kind == kind]
        axes.plot(values, [height] * len(values), "o", color=colour, markersize=7, alpha=0.75)
    axes.set_yticks(range(len(kinds)), [kind for kind, _, _ in kinds])
    axes.set_ylim(-0.6, len(kinds) - 0.4)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_xlabel(f"bits per byte, {found.what}", color=MUTED, fontsize=10)
    told = "; ".join(f"{label}: {', '.join(text.fixed(p.objective, 3) for p in found.proxies if p.kind == kind)}" for kind, label, _ in kinds[1:])
    return Picture(
        "What the proxies reached",
        to_svg(figure, "mixture-proxies", f"Bits per byte of the proxies. {told}."),
        f"Each point is a model of width {found.width} trained on {found.tokens / 1e6:.2f}M tokens; points of one mixture differ in their seed.",
        (("series-3", "sampled mixtures"), ("series-1", "UniMax"), ("series-2", "the found mixture")),
    )


def _shares(found: FoundMixture) -> Picture:
    ordered = sorted(found.languages.items(), key=lambda pair: pair[1].found / max(1e-9, pair[1].unimax))
    shown = ordered if len(ordered) <= MOST_LANGUAGES else [*ordered[: MOST_LANGUAGES // 2], *ordered[-(MOST_LANGUAGES // 2) :]]
    figure, axes = new_figure(max(150, 16 * len(shown) + 60))
    for height, (_, item) in enumerate(shown):
        axes.plot([item.unimax, item.found], [height, height], color=MUTED, linewidth=1)
    axes.plot([item.unimax for _, item in shown], range(len(shown)), "o", color=SERIES[0], markersize=6)
    axes.plot([item.found for _, item in shown], range(len(shown)), "o", color=SERIES[1], markersize=6)
    axes.set_yticks(range(len(shown)), [text.language(name) for name, _ in shown])
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("share of the text", color=MUTED, fontsize=10)
    told = ", ".join(f"{text.language(name)} {text.percent(item.unimax)} to {text.percent(item.found)}" for name, item in reversed(shown))
    return Picture(
        "How much of each language", to_svg(figure, "mixture-shares", f"Shares by UniMax and found: {told}."),
        "Shares of the text that is mixed; sources with a share of their own are not in it.", (("series-1", "UniMax"), ("series-2", "found")),
    )  # fmt: skip


def _table(found: FoundMixture) -> Table:
    lines = []
    for name, item in sorted(found.languages.items(), key=lambda pair: -pair[1].found / max(1e-9, pair[1].unimax)):
        expected = (text.fixed(item.expected_unimax, 3), text.fixed(item.expected_found, 3))
        lines.append((text.language(name), text.percent(item.unimax), text.percent(item.found), f"{item.repeats:.1f}×", *expected))
    columns = ("language", "UniMax", "found", "read", "bits per byte by UniMax", "by the found mixture")
    caption = f"Mixture by language; expected bits per byte are those of a proxy, by a regression ({found.form}, error {100 * found.error:.2f} %)"
    return Table(caption, columns, tuple(lines), frozenset({1, 2, 3, 4, 5}))
