"""Who a document is from: the account it is counted on, and the origin whose documents share menus and notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from hagane.corpus.decide import Kept

REPEATED = ("duplicate", "near_duplicate")


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


def table(dropped: Mapping[tuple[Account, str], list[int]], kept: Iterable[Kept]) -> list[dict[str, Any]]:
    """One row per account: documents and bytes in, kept (held-out ones among them), repeated, and dropped for other reasons, by reason."""
    rows: dict[Account, dict[str, Any]] = {}

    def row(account: Account) -> dict[str, Any]:
        stages = {stage: {"documents": 0, "bytes": 0} for stage in ("in", "kept", "repeated")}
        return rows.setdefault(account, account._asdict() | stages | {"held_out_documents": 0, "dropped": {}})

    def add(entry: dict[str, int], documents: int, num_bytes: int) -> None:
        entry["documents"] += documents
        entry["bytes"] += num_bytes

    for own in kept:
        add(row(own.account)["in"], own.documents, own.num_bytes)
        add(row(own.account)["kept"], own.documents, own.num_bytes)
        row(own.account)["held_out_documents"] += own.held_out
    for (account, reason), (documents, num_bytes) in sorted(dropped.items()):
        found = row(account)
        add(found["in"], documents, num_bytes)
        add(found["repeated"] if reason in REPEATED else found["dropped"].setdefault(reason, {"documents": 0, "bytes": 0}), documents, num_bytes)
    return [rows[account] for account in sorted(rows)]


def attribution(kept: Iterable[Kept], wanted: Iterable[str]) -> list[dict[str, Any]]:
    """Who is to be named: origins of kept documents whose licence is among `wanted`, with how many they are."""
    licenses = frozenset(wanted)
    counts: Counter[tuple[str, str]] = Counter()
    for own in kept:
        if own.account.license in licenses:
            counts[own.account.license, own.origin] += own.documents
    return [{"license": license, "origin": origin, "documents": count} for (license, origin), count in sorted(counts.items())]
