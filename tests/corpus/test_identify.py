"""Our classifier and py3langid together. What py3langid answers is played here, so that every case can be made."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus import identify
from hagane.corpus.classifier import learn
from hagane.corpus.identify import Identifier, published_answers
from hagane.errors import RunError
from toy_languages import invented

SPEAKERS = {"aa": invented(1), "ab": invented(2, close_to=1), "zz": invented(3)}
STRANGE = invented(7)  # nobody has labelled text of it


@pytest.fixture
def say(monkeypatch):
    """`say(tag, sure)`: from then on py3langid answers so."""

    def play(tag, sure=0.99):
        monkeypatch.setattr(identify, "_library", lambda: type("Library", (), {"classify": staticmethod(lambda text: (tag, sure))}))

    play("xx", 0.3)
    return play


@pytest.fixture(scope="module")
def classifier():
    train = {name: [speaker.document(number) for number in range(40)] for name, speaker in SPEAKERS.items()}
    return learn(train, {name: [speaker.document(number) for number in range(100, 130)] for name, speaker in SPEAKERS.items()})


def answers(identifier, speaker, numbers=range(200, 210)):
    return [(answer.language, answer.by) for answer in identifier.identify([speaker.document(number) for number in numbers])]


def test_a_language_with_labelled_text_is_found(classifier, say):
    identifier = Identifier(classifier, {name: {"?": 30} for name in SPEAKERS})
    for name in SPEAKERS:
        assert answers(identifier, SPEAKERS[name]).count((name, "classifier")) >= 9


def test_an_answer_that_py3langid_gives_for_labelled_text_too_speaks_for_it(classifier, say):
    identifier = Identifier(classifier, {name: {"se": 30} for name in SPEAKERS})  # as for Lule Sami, which it does not know
    say("se", 1.0)
    assert answers(identifier, SPEAKERS["zz"]) == [("zz", "classifier")] * 10


def test_a_language_without_labelled_text_is_py3langids(classifier, say):
    identifier = Identifier(classifier, {name: {"?": 30} for name in SPEAKERS})
    say("da", 0.999)
    assert answers(identifier, STRANGE) == [("da", "py3langid")] * 10
    say("da", 0.5)
    assert answers(identifier, STRANGE) == [("und", "none")] * 10


def test_without_two_labelled_languages_py3langid_answers_alone(say):
    say("no")
    assert answers(Identifier(None, {}), STRANGE, [1]) == [("nb", "py3langid")]
    say("zxx")
    assert answers(Identifier(None, {}), STRANGE, [1]) == [("und", "none")]


def test_too_little_text_is_undetermined(classifier, say):
    say("da", 0.999)
    found = Identifier(classifier, {}).identify(["ad 12 : 4", "12 + 3 = 15", ""])
    assert [answer.language for answer in found] == ["und"] * 3


def test_a_document_in_two_languages_is_mul(say):
    far = {"aa": SPEAKERS["aa"], "zz": SPEAKERS["zz"]}
    train = {name: [speaker.document(number) for number in range(40)] for name, speaker in far.items()}
    identifier = Identifier(learn(train, {name: [speaker.document(number) for number in range(100, 110)] for name, speaker in far.items()}), {})
    both = SPEAKERS["aa"].document(1, 400) + "\n" + SPEAKERS["zz"].document(1, 400)
    assert identifier.identify([both])[0].language == "mul"
    mostly = SPEAKERS["aa"].document(1, 800) + "\n" + SPEAKERS["zz"].document(1, 60)
    assert identifier.identify([mostly])[0].language == "aa"


def test_a_wrong_label_is_found(classifier, say):
    identifier = Identifier(classifier, {})
    assert identifier.well_known >= {"zz"}
    texts = [SPEAKERS["aa"].document(1), SPEAKERS["zz"].document(1), STRANGE.document(1), "short"]
    assert identifier.mislabelled(texts, "zz") == ["aa", None, None, None]


@settings(max_examples=40, deadline=None)
@given(label=st.sampled_from(["smj", "xx", "x-mine", "zh-Hant", "code-forth"]), seed=st.integers(0, 50), text=st.text(max_size=400))
def test_a_label_that_was_not_learned_is_never_questioned(classifier, label, seed, text):
    identifier = Identifier(classifier, {})
    assert identifier.mislabelled([text, *(speaker.document(seed) for speaker in SPEAKERS.values()), invented(seed).document(1)], label) == [None] * 5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(10, 10_000))
def test_a_document_of_a_language_that_was_not_learned_keeps_any_label(classifier, seed):
    identifier = Identifier(classifier, {})
    for label in SPEAKERS:
        assert identifier.mislabelled([invented(seed).document(0)], label) == [None]


def test_languages_that_are_easily_confused_are_not_questioned(say):
    train = {name: [SPEAKERS["aa"].document(number) for number in numbers] for name, numbers in (("aa", range(40)), ("ac", range(40, 80)))}
    train["zz"] = [SPEAKERS["zz"].document(number) for number in range(40)]
    speaks = {"aa": ("aa", 1000), "ac": ("aa", 1050), "zz": ("zz", 1000)}
    held_out = {name: [SPEAKERS[speaker].document(start + number) for number in range(30)] for name, (speaker, start) in speaks.items()}
    identifier = Identifier(learn(train, held_out), {})
    assert "zz" in identifier.well_known and not {"aa", "ac"} <= identifier.well_known
    assert identifier.mislabelled([SPEAKERS["zz"].document(5)], "aa") == [None]


def test_a_language_with_few_labelled_documents_is_not_questioned(say):
    train = {name: [speaker.document(number) for number in range(20)] for name, speaker in SPEAKERS.items()}
    held_out = {name: [speaker.document(number) for number in range(100, 119)] for name, speaker in SPEAKERS.items()}
    assert Identifier(learn(train, held_out), {}).well_known == frozenset()


def test_the_library_answers_for_real_text():
    english = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife."
    assert identify.published(english)[0] == "en"
    assert published_answers({"xx": [english, english]}) == {"xx": {"en": 2}}


def test_without_the_library_one_sentence_says_what_to_do(monkeypatch):
    identify._library.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "py3langid.langid", None)
    with pytest.raises(RunError, match=r'corpus\.identify = "off"'):
        identify.published("some text")
