"""A page that holds its text twice, as converters of pages and of forms leave it: the second copy goes, the first stays.

Copied are blocks of lines in the order in which they stood before. A refrain is shorter, and a page that repeats little else than headings has no such block.
"""

from __future__ import annotations

BLOCK = 300  # characters of a block that stood before
BESIDE = 60  # of one that stands right behind its first copy
SHARE = 0.3  # of the text in such blocks: less is quotation
_FENCES = ("```", "~~~")
_LONG = 40  # characters of a line that is looked at first


def without_copies(text: str) -> str:
    """The text without second copies; the same object where they are less than SHARE of it."""
    lines = text.split("\n")
    long = [line for line in lines if len(line) >= _LONG]
    if sum(map(len, long)) - sum(map(len, set(long))) < SHARE * len(text) / 2:  # half: copies may differ in white space and have short lines
        return _without_half(text) if len(long) == 1 else text
    kept: list[str] = []  # printed lines that stay, white space around them aside
    places: dict[str, int] = {}  # of the first such line
    rest: list[str] = []
    lost = start = 0
    fenced = False
    printed = [line.strip() for line in lines]
    while start < len(lines):
        end, size = (start, 0) if fenced else _copied(printed, start, kept, places)
        if size:
            lost += size
            start = end
            continue
        if printed[start]:
            places.setdefault(printed[start], len(kept))
            kept.append(printed[start])
        fenced ^= printed[start].startswith(_FENCES)
        rest.append(lines[start])
        start += 1
    return "\n".join(rest) if lost >= SHARE * len(text) else text


def _copied(printed: list[str], start: int, kept: list[str], places: dict[str, int]) -> tuple[int, int]:
    """Where a block ends that begins at a line and stood before, and its characters; none where it is too short to be a copy.

    It ends outside of code, and where it has paragraphs at the end of one: half a table is worth nothing.
    """
    first = places.get(printed[start]) if printed[start] else None
    if first is None:
        return start, 0
    size, line, place, fenced = 0, start, first, False
    ends = [(start, 0, first)]  # of the lines, of paragraphs where there are such, outside of code
    paragraphs = False
    while line < len(printed) and place < len(kept) and printed[line] in ("", kept[place]):
        if printed[line]:
            size, place, fenced = size + len(printed[line]), place + 1, fenced ^ printed[line].startswith(_FENCES)
        line += 1
        if not fenced and (line == len(printed) or not printed[line] or not paragraphs):
            paragraphs |= line < len(printed) and not printed[line]
            ends.append((line, size, place))
    line, size, place = ends[-1]
    return (line, size) if size >= (BESIDE if place == len(kept) else BLOCK) else (start, 0)


def _without_half(text: str) -> str:
    """Of a text in one line that is the same twice, the first half."""
    stripped = text.strip()
    half = len(stripped) // 2
    # what begins again before its middle says the same over and over: that is for another rule
    if half < BLOCK or stripped[:half].rstrip() != stripped[-half:].lstrip() or stripped.find(stripped[:BESIDE], 1) < half:
        return text
    return stripped[:half].rstrip() + text[len(text.rstrip()) :]
