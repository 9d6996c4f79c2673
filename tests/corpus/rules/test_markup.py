"""Markup goes, what is shown as code stays, and text without markup is the same object."""

import json

import pytest

from hagane.corpus.rules.contents import without_contents
from hagane.corpus.rules.markup import mend


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Se <a name=\"x\"></a>här<br>\noch <em>där</em>.", "Se här\noch där."),
        ("| Ord<br/><br/> Mer | B |", "| Ord Mer | B |"),
        ("Ein {{Glossary(\"a\", \"Begriff\")}} und {{cssxref(\"@font-face\")}}.\n{{Compat}}\n", "Ein Begriff und @font-face.\n"),
        ("[!INCLUDE [x](y.md)]\nKun [!INCLUDE[prod](z.md)] on.", "Kun prod on."),
        ("1. Ett\n\n    Två [!INCLUDE[prod](z.md)] `x`\n<b>tre</b>", "1. Ett\n\n    Två prod `x`\ntre"),
        ("Rubrik¶\nText om tecknet ¶ självt.\nNamn \uf0c1\n", "Rubrik\nText om tecknet ¶ självt.\nNamn\n"),
        ("::: moniker range=\"vs\"\nText\n:::\n", "Text\n"),
        ("## Rubrik {#id}\n", "## Rubrik\n"),
        ("---\ntitle: X\nlang: sv\n---\nText\n", "Text\n"),
        ("---\ntitle: X\n---\n\n{{APIRef}}\n\nText\n", "Text\n"),
        ("Fisk &amp; sk&auml;rg&aring;rd", "Fisk & skärgård"),
        ("雨《あめ》が［＃「雨」に傍点］降る。", "雨が降る。"),
        ("<xref:System.Text.Json?x=1> を参照", "System.Text.Json を参照"),
        ("a<!-- note\nmore -->b", "ab"),
    ],
)  # fmt: skip
def test_markup_goes(text, plain):
    assert mend(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "Om a < b och c > d gäller {x}.",
        "<Var ikje her kommen hele fem fremmede, kanskje?\n\nDet trur > eg.",
        "Skriv `<br>` och ``{{x}}``:\n\n```html\n<p>hej &amp; hå</p>\n```\n",
        "Exempel:\n\n    <div class=\"x\">{% if x %}\n",
        "AT&T; R&D, {a: 1} [x] :::",
        "C++: vector<int> och `x`",
    ],
)  # fmt: skip
def test_other_text_is_the_same_object(text):
    assert mend(text) is text


def test_a_notebook_inside_a_record_becomes_its_cells():
    cells = [{"cell_type": "markdown", "source": ["# Rubrik"]}, {"cell_type": "code", "source": "x = 1", "outputs": []}]
    assert mend(json.dumps({"cells": cells, "metadata": {}})) == "# Rubrik\n\n```python\nx = 1\n```\n"


def test_xml_inside_a_record_becomes_its_paragraphs():
    text = '<document xml:lang="sme"><header><title>T</title><year>2016</year></header><body><p>Okta <em>guokte</em>.</p>\n<p>Golbma.</p></body></document>'
    assert mend(text) == "Okta guokte.\n\nGolbma.\n"


def test_a_page_inside_a_record_becomes_its_main_text():
    pytest.importorskip("trafilatura")
    body = "".join(f"<p>Detta är stycke {number} av en artikel som handlar om stål och om hur man smider det.</p>" for number in range(8))
    found = mend(f"<!DOCTYPE html><html><body><nav><ul><li><a href='/'>Hem</a></li></ul></nav><article>{body}</article></body></html>")
    assert "stycke 7" in found
    assert "Hem" not in found
    assert "<" not in found


def test_a_table_of_contents_goes():
    rows = "".join(f"{number}. Kapitel ............ {number * 7}\n" for number in range(4))
    assert without_contents(f"Innehåll\n{rows}\nHär börjar texten...\n") == "Innehåll\n\nHär börjar texten...\n"
    links = "- [Ett](#ett)\n- [Två](#tva)\n\n- [Tre](#tre)\n"
    assert without_contents(f"Text\n\n{links}\nMer text.") == "Text\n\nMer text."


@pytest.mark.parametrize(
    "text", ["Två rader .......... 3\nMed punkter .......... 4\nSlut", "Han tänkte...... sedan gick han", "- [Se](#x)\nText\n- [Se](#y)\nText\n- [Se](#z)"]
)
def test_a_few_such_lines_are_no_table_of_contents(text):
    assert without_contents(text) == text
