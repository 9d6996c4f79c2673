"""The language of a document: our classifier for the languages that have labelled text here, py3langid for those that it knows.

The two are put together by Bayes' rule. What py3langid answers is evidence, and how it answers for documents of a language is counted on
labelled ones: it has never heard of Lule Sami and calls it Northern Sami with certainty, so that answer speaks for Lule Sami, too.
No table says which languages are close or known to whom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hagane.corpus.classifier import Classifier, Quality, Scores, add_up
from hagane.corpus.language import UNDETERMINED
from hagane.corpus.ngrams import windows
from hagane.errors import RunError

MULTIPLE = "mul"  # ISO 639-2: several languages, RFC 5646 section 4.1
MIN_LETTERS = 20  # fewer say nothing
MIN_LETTERS_CHECK = 100
CONFIDENT = 0.8  # below this a document without a label stays undetermined
USUAL = 0.5  # of the mean weight that is usual for a language: documents of it rarely have less, those of other languages rarely more
KNOWN_QUALITY, KNOWN_DOCUMENTS = 0.9, 20  # on held-out documents, some of which may be mislabelled themselves: what a label is questioned from
LABEL_PRIOR = 0.9  # a label is right, before the text is read
LABEL_WRONG = 0.9  # that it is wrong, after; a classifier calibrated on labels of which some are wrong is never much surer
STRANGE = 0.3  # of the usual weight of its label has text that is certainly something else: what guards a label most
CERTAIN = 0.99  # of a window
PUBLISHED_WINDOWS = 4  # py3langid walks over bytes in Python: half of the excerpt keeps it as fast as the classifier
PUBLISHED_SURE = 0.7  # below this py3langid's answer counts as none
_UNSURE = "?"
_PRIOR_PUBLISHED = 0.2  # of a language without labelled text here, against one with
_PRIOR_NOTHING = 0.01  # of a language that nobody here knows
# Documents of a language have 0.7 to 1.2 of its usual weight, those of most others below 0.3, of close ones 0.4 to 0.8
# (notebook, "Telling languages apart"): how much likelier a weight is for the language than for another that was not learned.
_EVEN, _SLOPE, _MOST = 0.6, 8.0, 3.0
# py3langid says 0.98 and more of most languages it knows, but 0.7 to 0.8 of Manx, which it calls Welsh.
_SHARPEN = 8
# py3langid's codes that BCP-47 text does not use: its Norwegian that is not Nynorsk is Bokmål.
_TAGS = {"no": "nb", "zxx": _UNSURE}

By = Literal["classifier", "py3langid", "none"]


@dataclass(frozen=True)
class Answer:
    """A language tag, `und` or `mul`, and who found it."""

    language: str
    by: By


@dataclass(frozen=True)
class Identifier:
    """`answers`: language -> what py3langid calls its documents -> how many. `classifier` None: fewer than two languages have labelled text."""

    classifier: Classifier | None
    answers: Mapping[str, Mapping[str, int]]

    @property
    def well_known(self) -> frozenset[str]:
        """The languages whose label may be questioned, and in whose favour."""
        return frozenset(name for name, quality in (self.classifier.quality if self.classifier else {}).items() if known(quality))

    def identify(self, texts: Sequence[str]) -> list[Answer]:
        """The language of each text."""
        called = [published(text) for text in texts]
        if self.classifier is None:
            return [Answer(UNDETERMINED, "none") if tag == _UNSURE else Answer(tag, "py3langid") for tag, _ in called]
        pieces, whole = self._scores(self.classifier, texts)
        probability_TL, fit_TL = self.classifier.probabilities(whole), self._fit(whole)
        several = self._several(pieces, [len(windows(text)) for text in texts])
        return [
            Answer(MULTIPLE, "classifier") if mixed else self._combine(probability_L, fit_L, int(letters), *call)
            for mixed, probability_L, fit_L, letters, call in zip(several, probability_TL, fit_TL, whole.letters_T, called, strict=True)
        ]

    def mislabelled(self, texts: Sequence[str], label: str) -> list[str | None]:
        """For each text the language that it certainly is instead of `label`; None where the label stands.

        It stands wherever either language is not well known, so a language that nobody here knows is never questioned.
        """
        if self.classifier is None or label not in self.well_known or not texts:
            return [None] * len(texts)
        _, whole = self._scores(self.classifier, texts)
        probability_TL, fit_TL, own = self.classifier.probabilities(whole), self._fit(whole), self.classifier.languages.index(label)
        prior_L = np.full(len(self.classifier.languages), 1 - LABEL_PRIOR)
        prior_L[own] = LABEL_PRIOR
        weighed_TL = probability_TL * prior_L
        weighed_TL /= weighed_TL.sum(1, keepdims=True)
        found: list[str | None] = []
        for weighed_L, fit_L, letters in zip(weighed_TL, fit_TL, whole.letters_T, strict=True):
            best = int(weighed_L.argmax())
            name = self.classifier.languages[best]
            sure = weighed_L[best] >= LABEL_WRONG and fit_L[best] >= USUAL and fit_L[own] < STRANGE and letters >= MIN_LETTERS_CHECK
            found.append(name if sure and name != label and name in self.well_known else None)
        return found

    def _scores(self, classifier: Classifier, texts: Sequence[str]) -> tuple[Scores, Scores]:
        """Of every window, and of every text."""
        cut = [windows(text) for text in texts]
        pieces = classifier.scores([piece for text in cut for piece in text])
        return pieces, add_up(pieces, [len(text) for text in cut])

    def _fit(self, scores: Scores) -> NDArray[np.float64]:
        """Mean weight over the usual one, (T, L)."""
        assert self.classifier is not None
        fit_TL: NDArray[np.float64] = scores.mean / self.classifier.usual_L
        return fit_TL

    def _several(self, pieces: Scores, counts: Sequence[int]) -> list[bool]:
        """Whether at least two windows, and a third of those that are certain, are in another language than most."""
        assert self.classifier is not None
        probability_TL, fit_TL = self.classifier.probabilities(pieces), self._fit(pieces)
        best_T = probability_TL.argmax(1)
        row_T = np.arange(len(best_T))
        certain_T = (probability_TL[row_T, best_T] >= CERTAIN) & (fit_TL[row_T, best_T] >= USUAL) & (pieces.letters_T >= MIN_LETTERS_CHECK)
        several, start = [], 0
        for count in counts:
            own = slice(start, start + count)
            start += count
            votes = Counter(best_T[own][certain_T[own]].tolist())
            most = max(votes.values(), default=0)
            several.append(votes.total() - most >= max(2, votes.total() / 3))
        return several

    def _combine(self, probability_L: NDArray[np.float64], fit_L: NDArray[np.float64], letters: int, tag: str, sure: float) -> Answer:
        assert self.classifier is not None
        if letters < MIN_LETTERS:
            return Answer(UNDETERMINED, "none")
        scores: dict[tuple[str, By], float] = {("", "none"): _PRIOR_NOTHING}
        for language, probability, fit in zip(self.classifier.languages, probability_L, fit_L, strict=True):
            scores[language, "classifier"] = probability * self._called(language, tag) * min(_MOST, float(np.exp(_SLOPE * (fit - _EVEN))))
        if tag != _UNSURE and tag not in {language.split("-")[0] for language in self.classifier.languages}:
            scores[tag, "py3langid"] = _PRIOR_PUBLISHED * sure**_SHARPEN
        (language, by), best = max(scores.items(), key=lambda item: item[1])
        return Answer(language, by) if language and best >= CONFIDENT * sum(scores.values()) else Answer(UNDETERMINED, "none")

    def _called(self, language: str, tag: str) -> float:
        """How often py3langid calls a document of `language` so, a little for what was never seen; 1 where it is not sure: that says nothing."""
        if tag == _UNSURE:
            return 1.0
        answers = self.answers.get(language, {})
        return (answers.get(tag, 0) + 0.2) / (sum(answers.values()) + 1)


def known(quality: Quality) -> bool:
    """Whether a language is told apart well enough that a label may be questioned."""
    return quality.documents >= KNOWN_DOCUMENTS and min(quality.precision or 0.0, quality.recall) >= KNOWN_QUALITY


def published(text: str) -> tuple[str, float]:
    """py3langid's tag and its probability for an excerpt; `?` where it is not sure."""
    tag, sure = _library().classify(" ".join(windows(text, PUBLISHED_WINDOWS)))
    return (_TAGS.get(tag, tag), float(sure)) if sure >= PUBLISHED_SURE else (_UNSURE, float(sure))


def published_answers(documents: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """What py3langid calls the documents of each language."""
    return {language: dict(Counter(published(text)[0] for text in own)) for language, own in documents.items()}


@lru_cache(maxsize=1)
def _library() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        message = 'py3langid, which finds the language of documents without a label, is not installed. Install hagane again, or set corpus.identify = "off".'
        raise RunError(message) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)  # 0.8 s and 100 MB: only where a document needs it
