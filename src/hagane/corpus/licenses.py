"""Which licences may be learned from: `corpus.licenses` against the licence that a document or its source states.

A pattern is a glob on an identifier such as those of SPDX (https://spdx.org/licenses), whatever the case. A statement of several
identifiers is an expression: `OR` and `/` offer a choice, `AND`, `,`, `;` and `+` between them ask for all. Notes in brackets are left aside.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache

from hagane.recipe.schema import LicenseSettings

UNKNOWN = "unknown"  # no licence was stated

_NOTE = re.compile(r"\([^()]*\)")
_CHOICE = re.compile(r"\s+or\s+|\s*/\s*")
_ALL = re.compile(r"\s+and\s+|\s*[,;]\s*|\s+\+\s+")


@lru_cache(maxsize=4096)
def allowed(license: str, settings: LicenseSettings) -> bool:
    """Whether a document under this licence may be kept: one choice of it in which nothing is denied and, where there is an `allow`, all is allowed.

    The statement as a whole may be named by either, too."""
    if license == UNKNOWN:
        return settings.unknown == "keep"
    whole = license.strip().lower()
    if _matches(whole, settings.deny):
        return False
    return (bool(settings.allow) and _matches(whole, settings.allow)) or any(_choice_allowed(choice, settings) for choice in _choices(whole))


@lru_cache(maxsize=4096)
def wants_attribution(license: str, settings: LicenseSettings) -> bool:
    """Whether the licence asks for its authors to be named."""
    parts = [license.strip().lower(), *(part for choice in _choices(license.lower()) for part in choice)]
    return any(_matches(part, settings.attribution) for part in parts)


def _choices(license: str) -> list[list[str]]:
    """The alternatives of a statement in lower case, each with all its identifiers."""
    plain = _NOTE.sub(" ", license)
    return [[part.strip() for part in _ALL.split(choice) if part.strip()] for choice in _CHOICE.split(plain) if choice.strip()]


def _choice_allowed(parts: list[str], settings: LicenseSettings) -> bool:
    if any(_matches(part, settings.deny) for part in parts):
        return False
    return not settings.allow or all(_matches(part, settings.allow) for part in parts)


def _matches(part: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(part, pattern.lower()) for pattern in patterns)
