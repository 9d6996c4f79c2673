"""Markup that was left in a record's text: whole pages, notebooks and XML become their text; tags, macros and notes to programs go.

What stands in code (fenced, or between backticks) is the author's and stays. A word or two of each notation, with where it is described:
HTML tags, comments and entities (WHATWG HTML); front matter (Jekyll, Hugo, pandoc); `[!INCLUDE …]`, `::: moniker` and `<xref:…>` (DocFX);
`{{cssxref("…")}}` (MDN's KumaScript); `{% … %}` (Jinja, Liquid); `{#id}` (kramdown, pandoc); ruby and notes in Japanese texts (Aozora Bunko).
"""

from __future__ import annotations

import html
import json
import re
from importlib.util import find_spec
from xml.etree import ElementTree

from hagane.corpus.formats.html import PERMALINK, NotHtmlError, page_of
from hagane.corpus.formats.notebook import notebook_text
from hagane.corpus.formats.text import FRONT_MATTER

NO_PAGE = "markup_page"  # a web page whose main text cannot be had

_CODE = re.compile(r"(^(?:```|~~~).*?(?:^(?:```|~~~)[ \t]*$|\Z)|``.+?``|`[^`\n]+`|^(?: {4}|\t)[^\n]*$)", re.MULTILINE | re.DOTALL)
_PAGE = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*(?:<!DOCTYPE\s+html|<html[\s>])", re.IGNORECASE | re.DOTALL)
_XML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!DOCTYPE[^>\[]*>\s*)?<([A-Za-z][\w.:-]*)[\s>]")
_NAMES = (
    "a|abbr|address|article|aside|b|big|blockquote|body|br|caption|center|cite|code|col|colgroup|dd|del|details|dfn|div|dl|dt|em|figcaption|figure|font"
    "|footer|h[1-6]|head|header|hr|html|i|iframe|img|ins|kbd|label|li|link|main|mark|meta|nav|noscript|ol|p|picture|pre|q|rp|rt|ruby|s|samp|section|small"
    "|source|span|strong|style|sub|summary|sup|svg|table|tbody|td|tfoot|th|thead|time|tr|tt|u|ul|var|video|wbr"
)
_HIDDEN = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(r"</?(?:br|hr)\b[^<>\n]*>[ \t]*\n?|</(?:p|div|tr|h[1-6]|dt|dd|table|ul|ol)\s*>[ \t]*\n?", re.IGNORECASE)
_ROW = re.compile(r"^[ \t]*\|[^\n]*<[^\n]*$", re.MULTILINE)  # a cell cannot hold a line end
_ROW_BREAK = re.compile(r"(?:</?(?:br|p)\b[^<>\n]*>[ \t]*)+", re.IGNORECASE)
# Attributes have values: "<Var ikje her >" is a misread letter and no tag.
_VALUE = r"""[\w:.@-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)"""
_TAG = re.compile(rf"</?(?:{_NAMES})(?:\s+(?:{_VALUE}|allowfullscreen|async|checked|controls|defer|disabled|hidden|nowrap|open))*\s*/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}|#[0-9]{2,6}|#[xX][0-9A-Fa-f]{2,5});")
_XREF = re.compile(r"<xref:([^<>\s?]+)[^<>]*>")
_INCLUDE_LINE = re.compile(r"^[ \t]*\[!INCLUDE[^\n]*?\]\([^)\n]*\)\]?[ \t]*$\n?", re.MULTILINE | re.IGNORECASE)
_INCLUDE = re.compile(r"\[!INCLUDE\s*\[([^\]\n]*)\]\([^)\n]*\)\]", re.IGNORECASE)
_FENCED_DIV = re.compile(r"^[ \t]*:::(?:[ \t]*[\w{(-].*)?$\n?", re.MULTILINE)
_MACRO_LINE = re.compile(r"^[ \t]*(?:\{\{[^{}\n]*\}\}[ \t]*)+$\n?", re.MULTILINE)
_MACRO = re.compile(r"\{\{[^{}\n]*\}\}")
_TEMPLATE = re.compile(r"\{%[^{}\n]*%\}")
_ATTRIBUTES = re.compile(r"[ \t]*\{:?[ \t]*[#.][\w:-]+(?:[ \t]+[^{}\n]*)?\}")
_BRACES = re.compile(r"\{[{%#:]")
_QUOTED = re.compile(r"""(["'])(.*?)\1""")
_AOZORA_HEAD = re.compile(r"^-{20,}\n[^\n]*テキスト中に現れる記号について.*?^-{20,}\n", re.MULTILINE | re.DOTALL)
_AOZORA = re.compile(r"［＃[^［］\n]*］|《[^《》\n]{1,40}》")
_METADATA = frozenset({"head", "header", "teiheader", "metadata", "meta"})  # what an XML document says of itself
_INLINE = frozenset({"em", "i", "b", "span", "hi", "a", "emph", "strong", "sub", "sup", "foreign", "ref", "errorort", "correct"})


def mend(text: str) -> str | None:
    """The text without markup; the same object where there is none, None where it is a page without a main text."""
    whole = _whole(text)
    if whole is None:
        return None
    if head := FRONT_MATTER.match(whole) if whole.startswith(("---", "\n", "\ufeff")) else None:
        whole = whole[head.end() :]
    cleaned = _outside_code(whole)
    if "\u00b6" in cleaned or "\uf0c1" in cleaned:
        cleaned = PERMALINK.sub("", cleaned)
    if "［＃" in cleaned or "テキスト中に現れる記号" in cleaned:
        cleaned = _AOZORA.sub("", _AOZORA_HEAD.sub("", cleaned)).replace("｜", "")
    return text if cleaned == text else cleaned.lstrip("\n")  # of a head or macros at its beginning the empty lines would stay


def _whole(text: str) -> str | None:
    """A text that is a page, a notebook or an XML document, as its main text; else as it is."""
    start = text[:200].lstrip()[:1]
    if start == "{" and '"cell_type"' in text and '"cells"' in text:
        try:
            return notebook_text(json.loads(text))
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return text
    if start != "<":
        return text
    if _PAGE.match(text[:2000]):
        return _page(text)
    found = _XML.match(text[:2000])
    if found and text.rstrip().endswith(f"</{found[1]}>"):
        return _xml(text)
    return text


def _page(text: str) -> str | None:
    if find_spec("trafilatura") is None:  # the extra `web`
        return None
    try:
        return page_of(text.encode("utf-8", "replace"), "utf-8").text or None
    except NotHtmlError:
        return None


def _xml(text: str) -> str:
    try:
        root = ElementTree.fromstring(text.encode("utf-8", "replace") if text.lstrip().startswith("<?xml") else text)
    except (ElementTree.ParseError, ValueError, LookupError):
        return text
    lines: list[str] = [""]

    def walk(element: ElementTree.Element) -> None:
        name = element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""
        if name in _METADATA or not name:
            return
        inline = name in _INLINE
        if not inline and lines[-1]:
            lines.append("")
        lines[-1] += element.text or ""
        for child in element:
            walk(child)
            lines[-1] += child.tail or ""
        if not inline and lines[-1]:
            lines.append("")

    try:
        walk(root)
    except RecursionError:
        return text
    paragraphs = [" ".join(line.split()) for line in lines]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _outside_code(text: str) -> str:
    """Tags, macros, attributes and entities taken out where they are not shown as code."""
    if "[" in text and "[!" in text:  # in no language is this code, and indented it is most often a paragraph of a list
        text = _INCLUDE.sub(r"\1", _INCLUDE_LINE.sub("", text))
    # one character is looked for many times faster than two
    if not ("<" in text or ("{" in text and _BRACES.search(text)) or "\n:::" in text or _has_entity(text)):
        return text
    if "`" not in text and "~~~" not in text and "\n    " not in text and "\n\t" not in text:
        return _prose(text)
    pieces = _CODE.split(text)  # prose and code by turns
    return "".join(piece if index % 2 else _prose(piece) for index, piece in enumerate(pieces))


def _has_entity(text: str) -> bool:
    return "&" in text and ";" in text and _ENTITY.search(text) is not None


def _prose(text: str) -> str:
    if "<" in text:
        text = _HIDDEN.sub("", text)
        text = _XREF.sub(r"\1", text)
        text = _ROW.sub(lambda row: _ROW_BREAK.sub(" ", row[0]), text)
        text = _TAG.sub("", _BREAK.sub("\n", text))
    if ":::" in text:
        text = _FENCED_DIV.sub("", text)
    if "{{" in text:
        text = _MACRO.sub(_label, _MACRO_LINE.sub("", text))
    if "{%" in text:
        text = _TEMPLATE.sub("", text)
    if "{#" in text or "{:" in text:
        text = _ATTRIBUTES.sub("", text)
    return _ENTITY.sub(lambda found: html.unescape(found[0]), text) if _has_entity(text) else text


def _label(macro: re.Match[str]) -> str:
    """What a macro shows: its second argument where it has one, else its first; nothing where it has none."""
    arguments = [found[2] for found in _QUOTED.finditer(macro[0])]
    return next((argument for argument in (arguments[1:2] + arguments[:1]) if argument), "")
