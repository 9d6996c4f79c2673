"""Where a language's own text ends and the unusual begins: one fence per feature, from quantiles that a few strange documents do not move.

A fence lies `width` spreads from the median, a spread being the distance from the median to the ninth decile on the suspect side
(the first where small values are suspect), or the feature's `least` where a language is more even than that. So nothing is assumed of how
long words are or how many digits a page has in a language. A language with fewer than FEWEST documents takes the fences of
all documents in its script, never those of another script: the words of a language that puts no space between them are too long
by the fence of any that does. Where the script has fewer too, nothing is judged. Borrowed fences judge the odd document: a feature by which they
would drop more than one in ten is a habit of the language.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hagane.corpus.rules.measure import FEATURES, Feature
from hagane.recipe.types import Frozen

FEWEST = 50
BORROWED_SHARE = 0.1  # of a language's documents (and one in any case) that a fence of its script may drop


class Fence(Frozen):
    """Beyond `value` a document is dropped; None where no value of the feature would be."""

    value: float | None
    median: float
    decile: float = Field(description="the ninth, or the first where small values are suspect")


class LanguageFences(Frozen):
    """The fences of one language, by feature; `taken_from` is whose documents they were measured on."""

    taken_from: str = Field(description="the language or `script LATIN`; `none`: too few documents to say anything")
    documents: int
    script: str
    fences: dict[str, Fence]


@dataclass(frozen=True)
class Found:
    """For each document the index of the first feature that is beyond its fence, or -1; and the fences of every language."""

    feature_D: NDArray[np.int64]
    languages: dict[str, LanguageFences]


def script_of(text: str) -> str:
    """The script of most letters, as Unicode names them (LATIN, CJK, HANGUL, CHEROKEE); COMMON where there are none."""
    scripts = Counter(unicodedata.name(letter, "COMMON").split()[0] for letter in text if letter.isalpha())
    return scripts.most_common(1)[0][0] if scripts else "COMMON"


def judge(
    values_DF: NDArray[np.float64], language_D: NDArray[np.str_], excerpts: Callable[[str], str], width: float, rules: Mapping[str, bool]
) -> Found:
    """Fences from the documents themselves, and which of these lie beyond theirs. `excerpts` gives some text of a language; `rules` may turn some off."""
    names = sorted(set(language_D.tolist()))
    scripts = {name: script_of(excerpts(name)) for name in names}
    script_D = np.array([scripts[name] for name in language_D.tolist()], dtype=np.str_)
    judged_D = ~np.isnan(values_DF).all(1)
    feature_D = np.full(len(values_DF), -1, np.int64)
    languages = {}
    for name in names:
        own = language_D == name
        taken_from, pool = name, own & judged_D
        if pool.sum() < FEWEST:
            taken_from, pool = f"script {scripts[name]}", (script_D == scripts[name]) & judged_D
        fences = {}
        if pool.sum() >= FEWEST:
            known = {feature.name: _fence(feature, values_DF[pool, index], width) for index, feature in enumerate(FEATURES) if rules[feature.rule]}
            fences = {feature: fence for feature, fence in known.items() if fence is not None}
        else:
            taken_from = "none"
        for index in reversed(range(len(FEATURES))):
            fence = fences.get(FEATURES[index].name)
            if fence is not None and fence.value is not None:
                values_D = values_DF[:, index]
                beyond_D = own & (values_D < fence.value if FEATURES[index].side == "low" else values_D > fence.value)
                if taken_from != name and beyond_D.sum() > max(1.0, BORROWED_SHARE * own.sum()):
                    fences[FEATURES[index].name] = fence.model_copy(update={"value": None})
                    continue
                feature_D[beyond_D] = index
        languages[name] = LanguageFences(taken_from=taken_from, documents=int(pool.sum()), script=scripts[name], fences=fences)
    return Found(feature_D, languages)


def _fence(feature: Feature, values: NDArray[np.float64], width: float) -> Fence | None:
    values = values[~np.isnan(values)]
    if len(values) < FEWEST:  # long enough to be packed
        return None
    median, decile = (float(value) for value in np.quantile(values, [0.5, 0.1 if feature.side == "low" else 0.9]))
    spread = max(abs(decile - median), feature.least)
    value = median - width * spread if feature.side == "low" else median + width * spread
    reachable = value > 0 if feature.name == "packed" else value < 1 or feature.name in ("word_length_high", "mixed_words") or feature.side == "low"
    return Fence(value=round(value, 4) if reachable else None, median=round(median, 4), decile=round(decile, 4))
