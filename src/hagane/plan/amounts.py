"""Amounts as people read them, on the terminal and on pages: three significant digits, and the unit that the size asks for."""

from __future__ import annotations

import math

PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
MWH = 3.6e9  # joules
ROUNDED = 0.9995  # from here on three digits show the next unit


def amount(value: float, unit: str = "", *, gap: bool = False) -> str:
    """12.4e12 -> `12.4T`, with a gap `12.4 T`, with a unit `300 PB`."""
    for size, letter in PREFIXES:
        if abs(value) >= size * ROUNDED:
            return f"{factor(value / size)}{' ' * (gap or bool(unit))}{'G' if unit and letter == 'B' else letter}{unit}"
    return f"{factor(value)} {unit}".strip()


def in_words(value: float) -> str:
    """8.59e9 -> `8.59 billion`; below a million all digits."""
    for size, word in WORDS:
        if abs(value) >= size * ROUNDED:
            return f"{factor(value / size)} {word}"
    return f"{value:,.0f}" if abs(value) >= 100 else factor(value)


def binary(size: float) -> str:
    """Memory as drivers show it: `80 GiB`, `160 TiB`."""
    unit, name = (2**40, "TiB") if size >= 2**40 else (2**30, "GiB")
    return f"{factor(size / unit)} {name}"


def flops(value: float) -> str:
    """1.08e24 -> `1.08e24 FLOPs`."""
    return f"{value:.2e} FLOPs".replace("e+", "e")


def energy(joules: float) -> str:
    """4.32e12 -> `1,200 MWh`; below one in kWh and Wh."""
    return f"{factor(joules / MWH)} MWh" if joules >= MWH * ROUNDED else amount(joules / 3600, "Wh")


def dollars(value: float) -> str:
    """122573 -> `123,000 USD`, 4.256 -> `4.26 USD`, 12.3e6 -> `12.3 million USD`; what is less than a tenth of a cent says so."""
    if 0 < value < 0.1:
        return f"{round(value, 3):g} USD" if value >= 0.0005 else "less than 0.001 USD"
    return f"{value:.2f} USD" if value < 9.995 and value != round(value) else f"{in_words(value) if value >= 1e6 * ROUNDED else factor(value)} USD"


def factor(value: float) -> str:
    """A ratio or a count with three digits, as people read it: `1.3`, `850`, `46,000`."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    rounded = round(value, 2 - math.floor(math.log10(abs(value))))
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}" if abs(rounded) >= 1e-4 else f"{rounded:.2g}"


def percent(share: float) -> str:
    """0.0123 -> `1.23 %`."""
    return f"{factor(100 * share)} %"
