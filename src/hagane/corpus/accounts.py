"""Who a document is from: the account it is counted on, and the origin whose documents share menus and notices."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit


class Account(NamedTuple):
    """Documents are counted by source of the recipe, licence and language."""

    source: str
    license: str
    language: str


def origin_of(identity: str, record_source: str | None, source: str) -> str:
    """The host of a page's address, else the part of the record's source before a colon, else the source of the recipe."""
    for address in (identity, record_source or ""):
        if address.startswith(("http://", "https://")):
            try:
                return urlsplit(address).hostname or source
            except ValueError:
                continue
    return (record_source or source).partition(":")[0]
