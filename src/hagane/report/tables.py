"""What the templates can show: tiles, tables and heat tables of plain values, and pictures that somebody drew."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True)
class Tile:
    """One number of the headline row."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure as the template shows it. `legend` pairs a CSS class of the swatch with its label."""

    title: str
    svg: Markup
    caption: str
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of text cells. The first cell of a row is its heading; `numeric` are the columns set to the right. A foot row sums up."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    foot: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of a page made before anything was spent: a heading, a sentence, and what is shown. `reasons` pairs a name with its reason."""

    name: str
    title: str
    intro: str = ""
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class HeatCell:
    """A share in [0, 1] to colour by, its text, and what a pointer over it says; share None is an empty cell."""

    share: float | None
    text: str
    title: str = ""


@dataclass(frozen=True)
class Heat:
    """A table of shares: families down, languages across."""

    title: str
    caption: str
    columns: tuple[tuple[str, str], ...]  # tag, full name
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@dataclass(frozen=True)
class Count:
    """Right answers out of a total, with its 95 % Wilson interval (Wilson 1927)."""

    correct: float = 0.0
    total: float = 0.0
    _z: float = field(default=1.959964, repr=False)

    def __add__(self, other: Count) -> Count:
        return Count(self.correct + other.correct, self.total + other.total)

    def __str__(self) -> str:
        return f"{self.correct:,.0f} of {self.total:,.0f}"

    @property
    def share(self) -> float | None:
        return self.correct / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        if not self.total:
            return None
        n, p, z = self.total, min(1.0, self.correct / self.total), self._z
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)
