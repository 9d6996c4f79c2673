"""How much a text is like good text of its language, told in two ways that were learned from the user's own text alone.

The classifier says what tells good text from the rest: the mean log ratio of how often the text's character n-grams come in the one and in the other
(`classifier.py`). Perplexity says how well good text foretells this one, whatever the rest is like: bits per character under a model of
character n-grams of the good text (Wenzek et al. 2020, "CCNet", arXiv 1911.00359, section 3.4, do so with an encyclopaedia). Broken
sentences of the good source's subject are like it to the first and strange to the second. `both` adds the two up in units of their spread.

Grams are those of `ngrams.py`: they see words and spelling, not layout, digits or truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hagane.corpus.classifier import document_scores, learn
from hagane.corpus.ngrams import NOTHING, NUM_BUCKETS, ORDERS, grams, windows

By = Literal["both", "classifier", "perplexity"]
CONCENTRATION = 5.0  # how many characters of its own a history needs to be believed as much as the shorter one
_GOOD, _OTHER = "good", "other"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CharacterModel:
    """A hierarchical Dirichlet model of characters (MacKay & Peto 1995, "A hierarchical Dirichlet language model", one concentration for all orders).

    P(c | h) = (n(hc) + a P(c | h')) / (n(h) + a), where h' is the history h without its first character; without any history, all are alike.
    `count_G` is how often each gram of one to `ORDERS` characters comes in the good text, spaces in the bucket of nothing.
    """

    count_G: NDArray[np.float32]
    num_characters: int
    num_different: int

    def bits(self, texts: Sequence[str]) -> Array:
        """Bits per character of the excerpt of each text."""
        return np.array([self._bits(_grams(text)) for text in texts])

    def _bits(self, bucket_NK: NDArray[np.int64]) -> float:
        count_NK = self.count_G[bucket_NK].astype(np.float64)
        size = len(bucket_NK)
        chance_N = np.full(size, 1 / self.num_different)
        history_N = np.full(size, float(self.num_characters))
        for order in range(1, min(ORDERS, size) + 1):  # the gram that ends at n begins at n - order + 1, and its history is the shorter gram there
            whole_N = count_NK[: size - order + 1, order - 1]
            if order > 1:
                history_N = count_NK[: size - order + 1, order - 2]
            # of grams in one bucket only some may go on like this: never more than all
            own_N = np.minimum(whole_N, history_N[: len(whole_N)])
            chance_N[order - 1 :] = (own_N + CONCENTRATION * chance_N[order - 1 :]) / (history_N[: len(whole_N)] + CONCENTRATION)
        return float(-np.log2(chance_N[1:]).mean()) if size > 1 else float(np.log2(self.num_different))


@dataclass(frozen=True)
class Likeness:
    """A score that is higher the more a text is like the good ones: the sum of the parts that are there, each divided by its spread."""

    weight_G1: NDArray[np.float32] | None  # of the classifier
    model: CharacterModel | None
    spreads: tuple[float, float]

    def scores(self, texts: Sequence[str]) -> Array:
        """(T), from an excerpt of each text."""
        total_T = np.zeros(len(texts))
        if self.weight_G1 is not None:
            total_T += document_scores(self.weight_G1, texts).mean[:, 0] / self.spreads[0]
        if self.model is not None:
            total_T -= self.model.bits(texts) / self.spreads[1]
        return total_T


@dataclass(frozen=True)
class Learned:
    """A likeness and how well it, and each way alone, tells good documents from others that it did not learn from."""

    likeness: Likeness
    separation: float
    by_classifier: float
    by_perplexity: float


def learn_likeness(good: Sequence[str], others: Sequence[str], by: By) -> Learned:
    """Every second document is learned from, the others measure it. Needs two of each kind."""
    texts = {_GOOD: good, _OTHER: others}
    measured = {kind: own[1::2] for kind, own in texts.items()}
    classifier = learn({kind: ["".join(windows(text)) for text in own[::2]] for kind, own in texts.items()}, measured)
    place = classifier.languages.index(_GOOD)
    weight_G1 = (classifier.weight_GL[:, place] - classifier.weight_GL[:, 1 - place])[:, None]
    model = learn_model(good[::2])
    told = {kind: (document_scores(weight_G1, own).mean[:, 0], -model.bits(own)) for kind, own in measured.items()}
    spreads = tuple(max(float(np.std(told[_OTHER][way])), 1e-9) for way in (0, 1))
    alone = [separation(told[_GOOD][way], told[_OTHER][way]) for way in (0, 1)]
    likeness = Likeness(weight_G1 if by != "perplexity" else None, model if by != "classifier" else None, (spreads[0], spreads[1]))
    return Learned(likeness, separation(*(likeness.scores(measured[kind]) for kind in (_GOOD, _OTHER))), *alone)


def learn_model(texts: Sequence[str]) -> CharacterModel:
    """From the excerpts of good texts, in whatever order."""
    count_G = np.zeros(NUM_BUCKETS, np.int64)
    single_G = np.zeros(NUM_BUCKETS, np.int64)
    for text in texts:
        bucket_NK = _grams(text)
        count_G += np.bincount(bucket_NK[:, 1:].ravel(), minlength=NUM_BUCKETS)
        single_G += np.bincount(bucket_NK[:, 0], minlength=NUM_BUCKETS)
    count_G[NOTHING] = 0  # grams that would reach beyond a text
    # spaces stay in the bucket of nothing; one more than were seen, so that a new character has a chance
    return CharacterModel((count_G + single_G).astype(np.float32), int(single_G.sum()), int(np.count_nonzero(single_G)) + 1)


def separation(good_T: Array, other_T: Array) -> float:
    """Area under the receiver operating characteristic: ranks of the good among all (Mann and Whitney 1947); equal scores count half."""
    _, inverse, counts = np.unique(np.concatenate([good_T, other_T]), return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ranks = middle[inverse[: len(good_T)]].sum()
    return float((ranks - len(good_T) * (len(good_T) + 1) / 2) / (len(good_T) * len(other_T)))


def _grams(text: str) -> NDArray[np.int64]:
    """Buckets of the grams of a text's excerpt, (characters, `ORDERS`)."""
    return grams(["".join(windows(text))])[0]
