"""Every number has one spelling in every language, and the spelling leads back to the number."""


import pytest

from hagane.corpus.embedded.numbers import LIMIT, all_places, all_words, parse, squash, words
from hagane.corpus.embedded.tasks import LANGUAGES

KNOWN = {
    "en": {0: "zero", 12: "twelve", 40: "forty", 101: "one hundred one", 4372: "four thousand three hundred seventy-two"},
    "ja": {0: "零", 10: "十", 21: "二十一", 100: "百", 1000: "千", 1101: "千百一", 4372: "四千三百七十二"},
    "ko": {0: "영", 10: "십", 21: "이십일", 100: "백", 1000: "천", 6016: "육천십육", 4372: "사천삼백칠십이"},
    "zh": {
        0: "零", 10: "十", 12: "十二", 22: "二十二", 102: "一百零二", 112: "一百一十二", 200: "二百", 2000: "两千",
        1010: "一千零一十", 4002: "四千零二", 4020: "四千零二十", 4200: "四千二百", 4302: "四千三百零二", 4372: "四千三百七十二",
    },
    "sv": {0: "noll", 21: "tjugoett", 100: "etthundra", 1000: "ettusen", 1101: "ettusenetthundraett", 4372: "fyratusentrehundrasjuttiotvå"},
    "nb": {0: "null", 21: "tjueen", 101: "ett hundre og en", 1100: "ett tusen ett hundre", 4002: "fire tusen og to", 4372: "fire tusen tre hundre og syttito"},
    "is": {
        0: "núll", 21: "tuttugu og einn", 100: "eitt hundrað", 120: "eitt hundrað og tuttugu", 1300: "eitt þúsund og þrjú hundruð",
        2115: "tvö þúsund eitt hundrað og fimmtán", 4372: "fjögur þúsund þrjú hundruð sjötíu og tveir",
    },
    "fi": {0: "nolla", 10: "kymmenen", 11: "yksitoista", 100: "sata", 1000: "tuhat", 2200: "kaksituhattakaksisataa",
           4372: "neljätuhattakolmesataaseitsemänkymmentäkaksi"},
    "de": {0: "null", 1: "eins", 16: "sechzehn", 17: "siebzehn", 21: "einundzwanzig", 30: "dreißig", 101: "einhunderteins", 1000: "eintausend",
           4372: "viertausenddreihundertzweiundsiebzig"},
}  # fmt: skip

ALSO_READ = [
    ("en", "four thousand three hundred and seventy two", 4372),
    ("en", "FOUR HUNDRED", 400),
    ("ja", "〇", 0),
    ("ja", "一千", 1000),
    ("ko", "사천 삼백 칠십이", 4372),
    ("zh", "二千二百", 2200),
    ("zh", "两百", 200),
    ("sv", "fyra tusen tre hundra sjuttiotvå", 4372),
    ("sv", "tjugoen", 21),
    ("nb", "tusen og en", 1001),
    ("nb", "syttisyv", 77),
    ("is", "fjögur þúsund þrjú hundruð sjötíu og tvö", 4372),
    ("fi", "neljätuhatta kolmesataaseitsemänkymmentäkaksi", 4372),
    ("de", "hundertundeins", 101),
]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_number_comes_back(language):
    wrong = [(number, text, parse(text, language)) for number, text in enumerate(all_words(language)) if parse(text, language) != number]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_numbers_share_a_spelling(language):
    assert len({squash(text) for text in all_words(language)}) == LIMIT


@pytest.mark.parametrize("language", LANGUAGES)
def test_known_spellings(language):
    assert {number: words(number, language) for number in KNOWN[language]} == KNOWN[language]


@pytest.mark.parametrize(("language", "text", "number"), ALSO_READ)
def test_other_spellings_are_read(language, text, number):
    assert parse(text, language) == number


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", ""), ("en", "four apples"), ("en", "four thousand zero"), ("en", "hundred thousand"), ("zh", "四四"), ("de", "vier drei"), ("ja", "4")],
)
def test_what_is_no_number_is_refused(language, text):
    assert parse(text, language) is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_places_in_a_row_are_the_spelling_and_the_digits(language):
    for number, places in enumerate(all_places(language)):
        assert "".join(piece for _, piece in places) == words(number, language)
        said = {mark: digit for marks, _ in places for mark, digit in zip(marks[::2], marks[1::2])}
        assert "".join(said.get(place, "0") for place in "khtu") == f"{number:04}"


def test_a_number_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="10000"):
        words(10_000, "sv")
