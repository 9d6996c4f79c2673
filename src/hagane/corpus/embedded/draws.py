"""Random choices addressed by name: the same name gives the same choices in every process, with no state to keep."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draws:
    """512 bits from a hash, spent as digits of a mixed-radix number: enough for a problem, ten times cheaper than seeding a generator."""

    __slots__ = ("left",)

    def __init__(self, name: str) -> None:
        self.left = int.from_bytes(hashlib.blake2b(name.encode()).digest(), "little")

    def below(self, limit: int) -> int:
        """A whole number in [0, limit)."""
        self.left, value = divmod(self.left, limit)
        return value

    def between(self, low: int, high: int) -> int:
        """A whole number in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]
