"""What is kept, what a document's identity is, how long ones are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus.clean import document_hash, drop_reason, normalise_newlines, repair_encoding, split_long
from hagane.tokenizer.special import SPECIAL_TOKENS

GOOD = "Ein ganz gewöhnlicher Satz, lang genug, um behalten zu werden.\n\tUnd noch einer."


@pytest.mark.parametrize(
    "text, reason",
    [
        (GOOD, None),
        ("", "empty"),
        (" \n\t ", "empty"),
        ("zu kurz", "too_short"),
        (GOOD + "\ufffd", "encoding_damage"),
        (GOOD + "\x00", "encoding_damage"),
        (GOOD.encode().decode("latin-1").replace("Ã¶", "Ã\x96"), "encoding_damage"),
        (GOOD + "\ud800", "encoding_damage"),
        ("\ufffd" * 5, "encoding_damage"),
        (GOOD * 100 + "\ufffd", None),
        *[(GOOD + token, "special_token") for token in SPECIAL_TOKENS],
    ],
)
def test_reasons(text, reason):
    assert drop_reason(text, min_characters=32, max_damage=0.001) == reason


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("Abelbálkka\x9aupmi allaáiggala\x9a", "Abelbálkkašupmi allaáiggalaš"),  # Windows-1252 read as Latin-1
        (GOOD.encode().decode("latin-1"), GOOD),
        (GOOD.encode().decode("latin-1").replace("Ã¶", "Ã\x96"), GOOD.replace("ö", "Ö")),
        ("Don’t „so“".encode().decode("cp1252"), "Don’t „so“"),
    ],
)
def test_misread_characters_are_put_right(text, wanted):
    assert repair_encoding(text) == wanted


MEANT = ["", "plain", GOOD, "Sant’Angelo «ÀÉ» Ã la carte", "São Paulo ÃO", "Ääni õõ ﬁn ½ “q” &amp; Ａ", "漢字 かな 한국", GOOD + "\ud800é"]


@pytest.mark.parametrize("text", MEANT)
def test_what_may_be_meant_stays(text):
    assert repair_encoding(text) is text


def test_the_same_text_in_other_normal_forms_or_with_other_margins_is_the_same_document():
    assert document_hash("caf\u00e9 au lait") == document_hash("  cafe\u0301 au lait\n")
    assert document_hash("cafe au lait") != document_hash("caf\u00e9 au lait")
    assert document_hash(normalise_newlines("a\r\nb\rc")) == document_hash("a\nb\nc")


@given(st.lists(st.text(max_size=40), max_size=30), st.integers(8, 60), st.sampled_from(["\n\n", "\n", " ", "", "。"]))
def test_pieces_are_short_enough_and_nothing_is_lost(parts, limit, separator):
    text = separator.join(parts)
    pieces = split_long(text, limit)
    assert "".join(pieces) == text
    assert all(len(piece) <= limit for piece in pieces)
    assert len(pieces) == 1 or all(pieces)


def test_long_documents_are_cut_at_paragraph_ends():
    paragraphs = [f"Paragraph {number}. " + "word " * 20 for number in range(40)]
    pieces = split_long("\n\n".join(paragraphs), 1000)
    assert len(pieces) > 3
    assert all(piece.startswith("Paragraph") for piece in pieces)
