"""Tables of contents and indexes that a machine made: three lines and more with dot leaders and page numbers, or of links into the page itself."""

from __future__ import annotations

import re

FEWEST = 3  # such lines in a run, empty ones between them allowed

_LEADER = r"[^\n]*?(?:(?:[.·_][ \u00a0]?){4,}|[…‥]{2,}|・{4,}|．{4,})[ \t\u00a0]*(?:[0-9０-９]{1,4}|[ivxlcIVXLC]{1,7})[ \t]*"
_ANCHOR = r"[ \t]*(?:[-*+]|[0-9]{1,3}[.)])[ \t]+\[[^\]\n]*\]\(#[^)\n]*\)[ \t]*"
_LINE = re.compile(rf"(?:{_LEADER}|{_ANCHOR})\Z")
_MARKS = ("....", "](#", ". . .", "____")
_WIDE_MARKS = ("……", "· · ·", "‥‥", "・・・・", "．．．．")
_LAST = frozenset("0123456789０１２３４５６７８９ivxlcIVXLC)")


def without_contents(text: str) -> str:
    """The text without such runs of lines; the same object where there are none."""
    if not (any(mark in text for mark in _MARKS) or (not text.isascii() and any(mark in text for mark in _WIDE_MARKS))):
        return text
    lines = text.split("\n")
    marked = [len(line) < 400 and line.rstrip()[-1:] in _LAST and _LINE.match(line) is not None for line in lines]
    if sum(marked) < FEWEST:
        return text
    kept: list[str] = []
    held: list[str] = []  # a run so far, with the empty lines in it
    number = 0
    for line, found in zip([*lines, "end"], [*marked, False], strict=True):
        if found or (number and not line.strip()):
            held.append(line)
            number += found
            continue
        if number < FEWEST:
            kept += held
        elif kept and kept[-1].strip() and held and not held[-1].strip():
            kept.append("")
        held, number = [], 0
        kept.append(line)
    return "\n".join(kept[:-1])
