"""Boilerplate is what many documents of one origin share; a brute-force count is the judge."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from hagane.corpus.rules import lines
from hagane.corpus.rules.measure import measure

NOTICE = "Läs mer om kakor på vår sida om integritet"


def line_file(tmp_path, texts, origin="a", name="x"):
    writer = lines.Writer(tmp_path / f"{name}.npy")
    found = measure(pa.array(texts, pa.string()))[1]
    writer.add(found, np.arange(len(texts)), np.full(len(texts), lines.origin_hash(origin)))
    writer.close()
    return lines.LineFile(writer.path, np.arange(len(texts)), np.full(len(texts), ord(origin) - ord("a")), np.array([len(text.encode()) for text in texts]))


def article(number):
    return "\n".join(f"Rad {chr(97 + line)}{chr(97 + number % 26)}{chr(97 + number // 26)} i artikeln handlar om något eget" for line in range(4))


def test_a_notice_goes_and_the_articles_stay(tmp_path):
    texts = [f"{article(number)}\n\n{NOTICE}\n" for number in range(20)]
    known = lines.boilerplate([line_file(tmp_path, texts)])
    assert len(known) == 1
    for number, (text, cut) in enumerate(lines.without(texts, ["a"] * 20, known)):
        assert text == f"{article(number)}\n\n"
        assert cut == [NOTICE]


@pytest.mark.parametrize("count", [lines.FEWEST - 1, lines.FEWEST])
def test_a_line_must_be_in_so_many_documents(tmp_path, count):
    texts = [f"{article(number)}\n{NOTICE if number < count else ''}\n" for number in range(40)]
    assert len(lines.boilerplate([line_file(tmp_path, texts)])) == (count >= lines.FEWEST)


def test_origins_are_counted_apart(tmp_path):
    texts = [f"{article(number)}\n{NOTICE}\n" for number in range(4)]
    files = [line_file(tmp_path, texts, origin, name) for origin, name in (("a", "x"), ("b", "y"))]
    assert len(lines.boilerplate(files)) == 0


def test_what_documents_consist_of_is_their_content(tmp_path):
    texts = [f"Det var en gång en liten stuga vid sjön, nummer {number}" for number in range(30)]
    assert len(lines.boilerplate([line_file(tmp_path, texts)])) == 0


def test_counting_in_parts_gives_what_brute_force_gives(tmp_path, monkeypatch):
    draws = np.random.default_rng(0)
    notices = [f"Gemensam rad {chr(97 + place)} som står i många dokument" for place in range(20)]
    texts = [article(number) + "\n" + "\n".join(notice for notice in notices if draws.random() < 0.1) + "\n" for number in range(60)]
    files = [line_file(tmp_path, texts[:30], name="x"), line_file(tmp_path, texts[30:], name="y")]
    count = Counter(line for text in texts for line in set(text.split("\n")) if line.startswith("Gemensam"))
    expected = sum(number >= max(lines.FEWEST, lines.SHARE * len(texts)) for number in count.values())
    whole = lines.boilerplate(files)
    monkeypatch.setattr(lines, "AT_ONCE", 17)
    assert lines.boilerplate(files).tolist() == sorted(whole.tolist())
    assert len(whole) == expected
    assert 0 < expected < len(notices)
