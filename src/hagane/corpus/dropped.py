"""What is not kept and what is mended: counted by reason, with a few examples to look at, on the account of those whose documents they were."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hagane.corpus.accounts import Account

EXAMPLES = 20  # dropped documents kept per reason, to look at


@dataclass
class Dropped:
    """Counts and a few examples of what is not kept, by reason, and of what is kept mended, by rule; `accounts` say whose documents were dropped."""

    documents: Counter[str] = field(default_factory=Counter)
    num_bytes: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    masked: Counter[tuple[str, str]] = field(default_factory=Counter)  # source and kind of personal data -> places
    excerpts: int = 0  # documents that a stretch was taken of
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    accounts: dict[tuple[Account, str], list[int]] = field(default_factory=dict)

    def wants(self, reason: str) -> bool:
        """Whether there is room for another example."""
        return len(self.examples.get(reason, ())) < EXAMPLES

    def add(self, reason: str, num_bytes: int, example: dict[str, Any], account: Account | None) -> None:
        """Count a document, or a part of one (then it is on nobody's account)."""
        self.documents[reason] += 1
        self.num_bytes[reason] += num_bytes
        self._show(reason, example)
        if account is not None:
            self._book(account, reason, 1, num_bytes)

    def repair(self, rule: str, example: dict[str, Any]) -> None:
        """Count a document that was mended."""
        self.repaired[rule] += 1
        self._show(rule, example)

    def _show(self, reason: str, example: dict[str, Any]) -> None:
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append({"reason": reason, **example})

    def _book(self, account: Account, reason: str, documents: int, num_bytes: int) -> None:
        entry = self.accounts.setdefault((account, reason), [0, 0])
        entry[0] += documents
        entry[1] += num_bytes

    def merge(self, other: Dropped) -> None:
        self.documents.update(other.documents)
        self.num_bytes.update(other.num_bytes)
        self.repaired.update(other.repaired)
        self.masked.update(other.masked)
        self.excerpts += other.excerpts
        for reason, examples in other.examples.items():
            own = self.examples.setdefault(reason, [])
            own.extend(examples[: EXAMPLES - len(own)])
        for (account, reason), (documents, num_bytes) in other.accounts.items():
            self._book(account, reason, documents, num_bytes)
