"""`.txt`, `.rst`, `.md`: one file is one document, as it stands; a very large one becomes several.

Nothing is undone: markup, macros and directives are how such text is written, and no library turns them into prose without
knowing the tools they are for. One exception: the head of a Markdown file (front matter) is data about the page and is left out.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from hagane.corpus.blocks import Trace, blocks
from hagane.corpus.inputs import Input
from hagane.corpus.records import CorruptError, Damage, EndsTooSoonError, Item, Record, Wanted, broken, not_utf8

TEXT_BLOCK = 1 << 24  # characters: a file larger than this becomes several documents, cut at paragraph ends
# `---`, lines of YAML of which the first is `key:`, `---`: as Jekyll, Hugo, pandoc and others agree. Longer heads are no heads.
FRONT_MATTER = re.compile(r"\s*---[ \t]*\r?\n[\w.-]+[ \t]*:.{0,65536}?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def read_text(item: Input, trace: Trace, wanted: Wanted, limit: int) -> Iterator[Item]:
    """The document of a text file. No limit is needed: it is read in pieces."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    replaced: Damage | None = None
    text, position, offset = "", 0, 0
    source = blocks(item, trace)
    end: Damage | None = None
    while True:
        try:
            block = next(source, None)
        except (EndsTooSoonError, CorruptError) as error:
            end = broken(item, error, position, "paragraphs read so far are kept")
            block = None
        try:
            text += decoder.decode(block or b"", final=block is None and end is None)
        except UnicodeDecodeError as error:
            where = offset + len(block or b"") - len(error.object) + error.start
            replaced = replaced or not_utf8(item, position, f"at byte {where:,}")
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            text += decoder.decode(error.object, final=block is None)
        if block is None:
            break
        offset += len(block)
        if len(text) > 2 * TEXT_BLOCK:
            cut = text.rfind("\n\n", 0, TEXT_BLOCK) + 2
            cut = cut if cut > 1 else TEXT_BLOCK
            if wanted(position):
                yield _document(item, position, text[:cut], f"{item.name}#{position}", replaced)
            text, position = text[cut:], position + 1
    if (text or not end) and wanted(position):
        yield _document(item, position, text, f"{item.name}#{position}" if position else item.name, replaced)
    if end:
        yield end


def _document(item: Input, position: int, text: str, name: str, replaced: Damage | None) -> Item:
    if item.kind == "markdown" and not position and (head := FRONT_MATTER.match(text)):
        text = text[head.end() :]
    if replaced is None:
        return Record(position, text, name)
    return Damage(position, replaced.reason, replaced.what, replaced.remedy, len(text.encode()), text[:200], record=Record(position, text, name))
