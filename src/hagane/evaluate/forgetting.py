"""What going on from a checkpoint forgot of the languages that it knew, and gained of the others.

The same held-out documents are scored before and after. The vocabularies may differ: bits per byte can be compared all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from hagane.evaluate.bits_per_byte import Scores, rate
from hagane.evaluate.facts import Change, Forgetting
from hagane.evaluate.intervals import bootstrap_mean_ratio, bootstrap_ratio

Pair = tuple[NDArray[np.float64], NDArray[np.int64]]  # of each document: bits after minus bits before, bytes


def forgetting(before: Mapping[str, Scores], after: Mapping[str, Scores], known: Collection[str]) -> Forgetting:
    """Compare by language; `known` are those of them that the checkpoint knew. No means where none is named."""
    pairs = {language: (after[language].bits_D - scores.bits_D, scores.bytes_D) for language, scores in before.items()}
    old = [pair for language, pair in pairs.items() if language in known]
    new = [pair for language, pair in pairs.items() if language not in known and not language.startswith("code")]
    return Forgetting(
        before={language: rate(scores) for language, scores in before.items()},
        change={language: _change(pair) for language, pair in pairs.items()},
        languages=tuple(language for language in pairs if language in known),
        known=_mean_change(old) if old else None,
        new=_mean_change(new) if old and new else None,
    )


def _change(pair: Pair) -> Change:
    bits_D, bytes_D = pair
    low, high = bootstrap_ratio(bits_D.tolist(), bytes_D.tolist())
    return Change(value=float(bits_D.sum() / bytes_D.sum()), low=low, high=high)


def _mean_change(pairs: list[Pair]) -> Change:
    low, high = bootstrap_mean_ratio([(bits_D.tolist(), bytes_D.tolist()) for bits_D, bytes_D in pairs])
    return Change(value=float(np.mean([bits_D.sum() / bytes_D.sum() for bits_D, bytes_D in pairs])), low=low, high=high)
