"""`.html`: the main text of a web page, without menus, footers and other boilerplate, by trafilatura (Barbaresi, ACL 2021).

Why trafilatura and how it compares is in the lab notebook. It comes with the extra `web`.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from hagane.corpus.blocks import Trace, whole
from hagane.corpus.inputs import Input
from hagane.corpus.language import normalise_tag
from hagane.corpus.records import KEEP, Damage, Item, Record, Wanted

_PRESCAN_BYTES = 1024  # a page's declaration must be in these (WHATWG HTML, section 13.2.3.2)
_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
_LANGUAGE = re.compile(r"""<html\b[^>]*?\s(?:xml:)?lang\s*=\s*["']?([A-Za-z0-9_-]+)""", re.IGNORECASE)
_LANGUAGE_CHARACTERS = 1 << 14  # comments and conditional junk may come before <html>
PERMALINK = re.compile(r"[ \t]*[\u00b6\uf0c1][ \t]*$", re.MULTILINE)  # the sign behind a heading that links to it (Sphinx; the second in its icon font)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# What browsers read where a page names the first (WHATWG Encoding, section 4.2): the second holds all its characters and more.
_SUPERSETS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "big5": "big5hkscs",
    "utf-16": "utf-8", "utf-16-le": "utf-8", "utf-16-be": "utf-8",  # whoever can read the declaration in ASCII has no UTF-16 before him
}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """What a page says: its main text (empty where it has none) and the language its `<html>` is marked with."""

    text: str
    language: str | None


class NotHtmlError(Exception):
    """The bytes are no web page: the message says why."""


def read_html(item: Input, trace: Trace, wanted: Wanted, limit: int) -> Iterator[Item]:
    """The page of a file."""
    data = whole(item, trace, wanted, limit)
    if not isinstance(data, bytes):
        if data is not None:
            yield data
        return
    try:
        page = page_of(data)
    except NotHtmlError as error:
        excerpt = data[:200].decode("utf-8", "replace")
        yield Damage(0, "damaged_record", f"{item.path} is not a web page ({error}).", KEEP.format("drop such files"), len(data), excerpt)
        return
    yield Record(0, page.text, item.name, page.language)


def page_of(data: bytes, charset: str | None = None) -> Page:
    """Main text and language of a page's bytes; `charset` is what the HTTP header says. Raises NotHtmlError.

    A byte that is wrong in the page's encoding becomes U+FFFD: of such there may be `corpus.max_damage`, as in any document.
    """
    if b"\0" in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise NotHtmlError("it holds zero bytes")
    html = decode(data, charset)
    found = _LANGUAGE.search(html, 0, _LANGUAGE_CHARACTERS)
    extract = _extract()
    try:
        text = extract(html, include_comments=False, with_metadata=False)
    except Exception as error:  # whatever a parser of broken pages stumbles over is damage of this page, not the end of the run
        raise NotHtmlError(f"{type(error).__name__} while its main text was looked for") from None
    return Page(PERMALINK.sub("", text or ""), normalise_tag(found[1]) if found else None)


def decode(data: bytes, charset: str | None = None) -> str:
    """Text of a page's bytes: by its byte order mark, the HTTP header, its own declaration, as UTF-8, or by what the bytes look like, in this order."""
    for mark, unicode in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(unicode, "replace")
    declared = _CHARSET.search(data[:_PRESCAN_BYTES])
    names = [_codec(charset) if charset else None, _codec(declared[1].decode("ascii")) if declared else None]
    name = next((name for name in names if name), None)
    if name is None and not _is_utf8(data):
        from charset_normalizer import from_bytes

        best = from_bytes(data[: 1 << 16]).best()
        name = best.encoding if best else None
    try:
        return data.decode(name or "utf-8", "replace")
    except UnicodeError:  # a few codecs, such as idna, replace nothing
        return data.decode("utf-8", "replace")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _codec(label: str) -> str | None:
    try:
        name = codecs.lookup(label.strip()).name
        b"".decode(name)  # some codecs are not of text
    except (LookupError, ValueError):
        return None
    return _SUPERSETS.get(name, name)


@cache
def _extract() -> Any:
    import trafilatura

    for name in ("trafilatura", "htmldate", "courlan", "justext"):  # a line for every page without text is not for our users
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return trafilatura.extract
