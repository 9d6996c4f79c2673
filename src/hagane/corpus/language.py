"""Language tags: any well-formed BCP-47 tag is a language here; nothing is looked up in a list of known ones.

Form after RFC 5646, section 2.1; `code-python` and other `code-…` tags are accepted for source code.
"""

from __future__ import annotations

import re

UNDETERMINED = "und"  # RFC 5646, section 4.1: "undetermined language"

_TAG = re.compile(r"(?:code(?:-[A-Za-z0-9]{1,16})+|[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*|x(?:-[A-Za-z0-9]{1,8})+)\Z")
_FOLDER_TAG = re.compile(r"(?:code-[A-Za-z0-9]{1,16}|[a-z]{2,3}(?:[-_][A-Za-z]{4})?(?:[-_](?:[A-Za-z]{2}|[0-9]{3}))?)\Z")
# Three-letter (or shorter) names that are folders far more often than they are languages (src is Logudorese Sardinian).
_FOLDERS = frozenset(
    {"all", "app", "bin", "dev", "dir", "doc", "etc", "gz", "in", "lib", "log", "md", "new", "old", "out", "pdf"}
    | {"raw", "rst", "set", "src", "sub", "tar", "tmp", "tsv", "txt", "var", "web", "www", "zip"}
)


def normalise_tag(tag: str) -> str | None:
    """The tag in its usual letter case (`zh_hant_tw` -> `zh-Hant-TW`), or None where it is not well-formed."""
    tag = tag.strip().replace("_", "-")
    if not _TAG.match(tag):
        return None
    first, *rest = tag.split("-")
    if first.lower() in ("code", "x"):
        return tag.lower()
    parts = [first.lower()]
    for part in rest:
        if len(parts[-1]) == 1:  # after a singleton (extension, private use) everything is lower case
            parts.append(part.lower())
        elif len(part) == 4 and part.isalpha():
            parts.append(part.title())
        elif len(part) == 2 and part.isalpha():
            parts.append(part.upper())
        else:
            parts.append(part.lower())
    return "-".join(parts)


def folder_language(names: list[str]) -> str | None:
    """The language that the nearest folder name gives, reading `names` from the file outwards; None where none looks like a tag."""
    for name in names:
        if _FOLDER_TAG.match(name) and name not in _FOLDERS:
            return normalise_tag(name)
    return None
