"""The classifier tells languages apart, knows how well, and favours none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus.classifier import _fit_scale, document_scores, learn
from toy_languages import invented

SPEAKERS = {"aa": invented(1), "ab": invented(2, close_to=1), "zz": invented(3)}


def documents(numbers, num_words=120, names=SPEAKERS):
    return {name: [SPEAKERS[name].document(number, num_words) for number in numbers] for name in names}


@pytest.fixture(scope="module")
def three():
    """A classifier of two close languages and a far one."""
    return learn(documents(range(40)), documents(range(100, 130)))


def test_languages_are_told_apart_and_the_quality_says_so(three):
    for name, own in documents(range(200, 240)).items():
        found = three.probabilities(document_scores(three.weight_GL, own)).argmax(1)
        assert np.mean(found == three.languages.index(name)) > 0.9
    assert all(quality.documents == 30 and quality.recall > 0.9 and quality.precision > 0.9 for quality in three.quality.values())


def test_the_scale_that_is_fitted_is_the_one_that_the_answers_follow():
    draw = np.random.default_rng(0)
    evidence = draw.normal(size=(6000, 3))
    probability = np.exp(1.7 * evidence) / np.exp(1.7 * evidence).sum(1, keepdims=True)
    truth = (probability.cumsum(1) < draw.random((6000, 1))).sum(1)
    assert _fit_scale(evidence, truth) == pytest.approx(1.7, rel=0.1)


def test_two_names_for_one_language_are_measured_as_such():
    train, held_out = documents(range(40)), documents(range(100, 130))
    train["ac"], held_out["ac"] = documents(range(40, 80))["aa"], documents(range(130, 160))["aa"]
    quality = learn(train, held_out).quality
    assert min(quality["aa"].precision, quality["ac"].precision) < 0.8
    assert max(quality["aa"].confusions.get("ac", 0), quality["ac"].confusions.get("aa", 0)) >= 5
    assert quality["zz"].precision == 1.0


def test_a_language_with_little_text_is_found_and_not_favoured():
    train = documents(range(60)) | {"ee": [invented(5).document(number, 60) for number in range(4)]}
    held_out = documents(range(100, 120)) | {"ee": [invented(5).document(number) for number in range(100, 110)]}
    quality = learn(train, held_out).quality
    assert quality["ee"].recall > 0.9 and quality["ee"].precision > 0.9
    strange = [invented(9).document(number) for number in range(20)]  # a language that was not learned
    classifier = learn(train, held_out)
    scores = document_scores(classifier.weight_GL, strange)
    best = scores.sum_TL.argmax(1)
    assert (scores.mean.max(1) / classifier.usual_L[best]).max() < 0.5


@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_documents_makes_no_difference(draw):
    train, held_out = documents(range(6), 40), documents(range(9, 12), 40)
    first = learn(train, held_out)
    for own in (*train.values(), *held_out.values()):
        draw.shuffle(own)
    again = learn(dict(reversed(train.items())), held_out)
    assert (again.weight_GL == first.weight_GL).all()
    assert (again.languages, again.scale, again.quality) == (first.languages, pytest.approx(first.scale), first.quality)


def test_it_needs_two_languages_and_text_without_letters_is_no_evidence(three):
    with pytest.raises(ValueError, match="two languages"):
        learn(documents(range(5), names=["aa"]), {})
    scores = three.scores(["", "1234 + 5 = 1239"])
    assert scores.letters_T.tolist() == [0, 0]
    assert three.probabilities(scores) == pytest.approx(1 / 3)
