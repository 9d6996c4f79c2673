"""Numbers as people read them: parameters, bytes, energy, shares. None becomes a dash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from hagane.plan import amounts
from hagane.recipe.types import Budget, duration
from hagane.report.record import number

UNKNOWN = "–"
YEAR = 365 * 86400
LONG = 2 * YEAR  # from here on days are too many to be grasped

# What a number of bits per byte means. 1.93: docs/notebook.md, "Twenty minutes of 27 languages, again"; 0.72: val_bpb of nanochat's fastest run to the score of
# GPT-2 (dev/LEADERBOARD.md, record 6); 0.62: 1.69 + 406.4 / N^0.34 + 410.7 / D^0.28 nats a token of 4.5 bytes for 70 billion parameters and 1.4T tokens.
ANCHOR = (
    "Fewer is better, and 8 is knowing nothing. A model that two processor cores trained for twenty minutes reached 1.93 in 27 languages; "
    "of English web text a model as able as GPT-2 needs about 0.72 (nanochat), and one like Chinchilla, of 70 billion parameters, 0.62 by the law of "
    "Hoffmann et al. 2022."
)


@cache
def _languages() -> Mapping[str, str]:
    """English names by tag, from the Unicode CLDR; read when the first is asked for."""
    from babel import Locale

    return Locale("en").languages


def language(tag: str) -> str:
    """English name of a language tag; a tag with region or script that has none of its own names its language, and any other tag stands for itself."""
    names, parts = _languages(), re.split("[-_]", tag)
    return names.get("_".join(parts)) or (f"{names[parts[0]]} ({tag})" if parts[0] in names else tag)


def scaled(value: Any, unit: str = "") -> str:
    """1234567 -> `1.23 M`; three significant digits."""
    value = number(value)
    return UNKNOWN if value is None else amounts.amount(value, unit, gap=True)


def in_words(value: Any) -> str:
    """8590200832 -> `8.59 billion`."""
    value = number(value)
    return UNKNOWN if value is None else amounts.in_words(value)


def flops(value: Any) -> str:
    """5.8e13 -> `5.80e13 FLOPs`."""
    value = number(value)
    return UNKNOWN if value is None else amounts.flops(value)


def whole(value: Any) -> str:
    """18204 -> `18,204`."""
    value = number(value)
    return UNKNOWN if value is None else f"{round(value):,}"


def fixed(value: Any, digits: int = 3) -> str:
    value = number(value)
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def small(value: Any) -> str:
    """3.1e-06 -> `3.1e-6`."""
    value = number(value)
    return UNKNOWN if value is None else re.sub(r"e([+-])0*(\d)", r"e\1\2", f"{value:.1e}").replace("e+0", "")


def percent(share: Any, digits: int = 1) -> str:
    share = number(share)
    return UNKNOWN if share is None else f"{100 * share:.{digits}f} %"


def seconds(value: Any) -> str:
    """Seconds in the units people say: `9.4 s`, `4 min 58 s`, `2 days 15 h`, `3.2 years`."""
    value = number(value)
    if value is None:
        return UNKNOWN
    if 0 < value < 9.95:
        return f"{value:.1f} s".replace(".0 s", " s")
    if value >= 3600:
        value = 60 * round(value / 60)
    if value >= LONG:
        return f"{amounts.factor(value / YEAR)} years"
    return re.sub(r"(\d+)([a-z]+)", lambda part: f"{part[1]} {part[2] if part[2] != 'd' else 'day' if part[1] == '1' else 'days'}", duration(value))


def energy(joules: Any) -> str:
    """Joules as watt-hours."""
    value = number(joules)
    return UNKNOWN if value is None else amounts.energy(value)


def dollars(value: Any) -> str:
    value = number(value)
    return UNKNOWN if value is None else amounts.dollars(value)


def size(num_bytes: Any) -> str:
    return scaled(num_bytes, "B")


def spent(budget: Budget) -> str:
    """A budget as people say it: `21 days`, `22.6 MWh`, `123,000 USD`, `1 trillion tokens`, `1.00e20 FLOPs`."""
    if budget.kind == "tokens":
        return f"{in_words(budget.amount)} tokens"
    if budget.kind == "flops":
        return flops(budget.amount)
    return {"time": seconds, "energy": energy, "money": dollars}[budget.kind](budget.amount)


def plain(value: Any) -> str:
    """Any value of a recipe or of the environment, on one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    return str(value)
