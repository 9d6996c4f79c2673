"""Which language a text is in, learned from labelled text in seconds: naive Bayes over hashed character n-grams.

Naive Bayes over character n-grams is what langid.py is (Lui & Baldwin 2012), and what holds up best between close languages
(Jauhiainen et al. 2019, "Automatic Language Identification in Texts: A Survey", sections 5 and 6). A gram's weight for a language is the log of
how much more often it comes there than in all languages on average, as a Gamma-Poisson model estimates it from few counts:
log((n + k) / (e + k)), with n the times it came, e the times the average would give, and k the strength of the belief that
there is no difference (Robbins 1956; DuMouchel 1999 for such ratios). A language with little text so has weak weights,
not strong opinions, and text that is like nothing that was learned scores near zero for every language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hagane.corpus.ngrams import NOTHING, NUM_BUCKETS, ORDERS, WINDOW, grams, windows

PRIOR_COUNT = 1.0  # k
LEAST_USUAL = 0.1  # two names for one language leave less
_POSITIONS = 4096  # scored at a time: the gathered weights stay in the processor's cache
_SCALES = np.geomspace(0.02, 20, 120)


@dataclass(frozen=True)
class Quality:
    """How a language fared on labelled documents that were not learned from."""

    documents: int
    precision: float | None  # None: nothing was called this
    recall: float
    confusions: dict[str, int]  # what its documents were called instead


@dataclass(frozen=True)
class Scores:
    """Of T texts: summed weights (T, L), and how many letters there were to judge by (T)."""

    sum_TL: NDArray[np.float64]
    letters_T: NDArray[np.int64]

    @property
    def mean(self) -> NDArray[np.float64]:
        mean_TL: NDArray[np.float64] = self.sum_TL / (ORDERS * np.maximum(1, self.letters_T))[:, None]
        return mean_TL


@dataclass(frozen=True)
class Classifier:
    """`weight_GL` of a gram for a language; `usual_L` is the mean weight that a document of the language has; `scale` makes scores probabilities."""

    languages: tuple[str, ...]
    weight_GL: NDArray[np.float32]
    usual_L: NDArray[np.float64]
    scale: float
    quality: dict[str, Quality]

    def scores(self, texts: Sequence[str]) -> Scores:
        """Scores of texts as they stand, all of each."""
        return _scores(self.weight_GL, texts)

    def probabilities(self, scores: Scores) -> NDArray[np.float64]:
        """(T, L), rows sum to 1. Grams overlap, so a text says less than its number of grams: the square root of it, times `scale`."""
        return _softmax(self.scale * _evidence(scores))


def learn(train: Mapping[str, Sequence[str]], held_out: Mapping[str, Sequence[str]]) -> Classifier:
    """A classifier of the languages of `train`, calibrated and measured on `held_out` (language -> documents; others than in `train` are left out).

    Nothing is random, and the order of documents makes no difference. Raises ValueError where there are not two languages.
    """
    languages = tuple(sorted(train))
    if len(languages) < 2:
        raise ValueError("a classifier needs two languages")
    weight_GL = _weights([train[language] for language in languages])
    documents, truth = [], []
    for number, language in enumerate(languages):
        documents += list(held_out.get(language, ()))
        truth += [number] * len(held_out.get(language, ()))
    truth_T = np.array(truth, np.int64)
    whole = document_scores(weight_GL, documents)
    # at the length of a document and of a paragraph, so that the one number that is fitted serves both
    short = _scores(weight_GL, [windows(document, 1)[0] for document in documents])
    scale = _fit_scale(np.concatenate([_evidence(whole), _evidence(short)]), np.concatenate([truth_T, truth_T]))
    usual = [_usual(whole.mean[truth_T == number, number]) for number in range(len(languages))]
    quality = _quality(languages, truth_T, whole.sum_TL.argmax(1) if len(truth_T) else truth_T)
    return Classifier(languages, weight_GL, np.array(usual), scale, quality)


def document_scores(weight_GL: NDArray[np.float32], documents: Sequence[str]) -> Scores:
    """Scores of the excerpt of every document."""
    pieces = [windows(document) for document in documents]
    flat = _scores(weight_GL, [piece for document in pieces for piece in document])
    return add_up(flat, [len(document) for document in pieces])


def add_up(scores: Scores, counts: Sequence[int]) -> Scores:
    """Scores of documents from those of their windows, `counts` of them each (at least one)."""
    if not counts:
        return scores
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return Scores(np.add.reduceat(scores.sum_TL, starts, 0), np.add.reduceat(scores.letters_T, starts))


def _usual(mean_T: NDArray[np.float64]) -> float:
    """The median; none where no document was held out, and never so little that noise would look usual."""
    return max(float(np.median(mean_T)), LEAST_USUAL) if len(mean_T) else np.inf


def _weights(texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    share_GL = np.zeros((NUM_BUCKETS, len(texts)), np.float32)
    totals = []
    for number, own in enumerate(texts):
        count_G = np.zeros(NUM_BUCKETS, np.int64)
        for text in own:
            for start in range(0, len(text), 64 * WINDOW):
                count_G += np.bincount(grams([text[start : start + 64 * WINDOW]])[0].ravel(), minlength=NUM_BUCKETS)
        count_G[NOTHING] = 0
        totals.append(max(1, int(count_G.sum())))
        share_GL[:, number] = count_G / totals[-1]
    average_G = share_GL.mean(1)
    for number, total in enumerate(totals):
        share_GL[:, number] = np.log((share_GL[:, number] * total + PRIOR_COUNT) / (average_G * total + PRIOR_COUNT))
    share_GL[NOTHING] = 0
    return share_GL


def _scores(weight_GL: NDArray[np.float32], texts: Sequence[str]) -> Scores:
    sums, letters = [np.zeros((0, weight_GL.shape[1]))], [np.zeros(0, np.int64)]
    batch: list[str] = []
    room = _POSITIONS
    for text in texts:
        if batch and len(text) > room:
            _score_batch(weight_GL, batch, sums, letters)
            batch, room = [], _POSITIONS
        batch.append(text)
        room -= len(text)
    if batch:
        _score_batch(weight_GL, batch, sums, letters)
    return Scores(np.concatenate(sums), np.concatenate(letters))


def _score_batch(weight_GL: NDArray[np.float32], batch: Sequence[str], sums: list[NDArray[np.float64]], letters: list[NDArray[np.int64]]) -> None:
    bucket_NK, starts_T = grams(batch)
    gathered = weight_GL[bucket_NK.ravel()]
    sums.append(np.add.reduceat(gathered, ORDERS * starts_T, 0).astype(np.float64))
    letters.append(np.add.reduceat((bucket_NK[:, 0] != NOTHING).astype(np.int64), starts_T))


def _evidence(scores: Scores) -> NDArray[np.float64]:
    evidence_TL: NDArray[np.float64] = scores.mean * np.sqrt(scores.letters_T)[:, None]
    return evidence_TL


def _softmax(logits_TL: NDArray[np.float64]) -> NDArray[np.float64]:
    power_TL = np.exp(logits_TL - logits_TL.max(1, keepdims=True))
    share_TL: NDArray[np.float64] = power_TL / power_TL.sum(1, keepdims=True)
    return share_TL


def _fit_scale(evidence_TL: NDArray[np.float64], truth_T: NDArray[np.int64]) -> float:
    """The scale with the least mean log loss, every language counting the same (Guo et al. 2017, temperature scaling)."""
    if not len(truth_T):
        return 1.0
    weight_T = 1 / np.bincount(truth_T)[truth_T]
    best, least = 1.0, np.inf
    for scale in _SCALES:
        chosen = _softmax(scale * evidence_TL)[np.arange(len(truth_T)), truth_T]
        loss = float((weight_T * -np.log(np.maximum(chosen, 1e-12))).sum())
        if loss < least:
            best, least = float(scale), loss
    return best


def _quality(languages: Sequence[str], truth_T: NDArray[np.int64], called_T: NDArray[np.int64]) -> dict[str, Quality]:
    count_LL = np.zeros((len(languages), len(languages)), np.int64)
    np.add.at(count_LL, (truth_T, called_T), 1)
    quality = {}
    for number, language in enumerate(languages):
        documents, called, right = int(count_LL[number].sum()), int(count_LL[:, number].sum()), int(count_LL[number, number])
        others = [(name, int(count)) for name, count in zip(languages, count_LL[number], strict=True) if count and name != language]
        confusions = dict(sorted(others, key=lambda pair: (-pair[1], pair[0])))
        quality[language] = Quality(documents, right / called if called else None, right / documents if documents else 0.0, confusions)
    return quality
