"""Language tags."""

import pytest

from hagane.corpus.language import folder_language, normalise_tag


@pytest.mark.parametrize(
    "given, expected",
    [
        ("sv", "sv"),
        ("SV_se", "sv-SE"),
        ("zh_hant_tw", "zh-Hant-TW"),
        ("sma", "sma"),
        ("es-419", "es-419"),
        ("de-CH-1901", "de-CH-1901"),
        ("en-x-NYC", "en-x-nyc"),
        ("code-python", "code-python"),
        ("code-c", "code-c"),
        ("mis", "mis"),
    ],
)
def test_well_formed_tags_get_their_usual_case(given, expected):
    assert normalise_tag(given) == expected


@pytest.mark.parametrize("given", ["", "s", "?", "svenska språket", "sv--SE", "sv-", "123", "en-waytoolongsubtag"])
def test_others_are_refused(given):
    assert normalise_tag(given) is None


def test_the_nearest_folder_that_looks_like_a_tag_gives_the_language():
    assert folder_language(["news", "se", "nb"]) == "se"
    assert folder_language(["src", "raw", "text"]) is None
    assert folder_language(["zh_Hant"]) == "zh-Hant"
    assert folder_language(["code-python", "en"]) == "code-python"
