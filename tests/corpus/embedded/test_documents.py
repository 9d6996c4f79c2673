"""Pretraining text: deterministic, of the size asked for, and without held-out problems."""

import re

import pytest

from hagane.corpus.embedded import LANGUAGES, documents, is_test, parallel_sentences, python_documents
from hagane.corpus.embedded.numbers import parse
from hagane.errors import DataError


@pytest.mark.parametrize("language", LANGUAGES)
def test_documents_are_deterministic_and_of_the_size_asked_for(language):
    first = list(documents(1, language, 30_000))
    assert first == list(documents(1, language, 30_000))
    assert first != list(documents(2, language, 30_000))
    size = sum(len(record["text"].encode()) for record in first)
    assert 30_000 <= size < 40_000
    assert len({record["id"] for record in first}) == len(first)
    assert {(record["lang"], record["source"]) for record in first} == {(language, "problems")}
    assert all(record["text"].strip() and record["license"] for record in first)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_held_out_number_is_spelled_beside_its_digits(language):
    pairs = 0
    for record in documents(3, language, 100_000):
        for left, right in re.findall(r"^(.+) = (.+)$", record["text"], re.MULTILINE):
            for digits, spelled in ((left, right), (right, left)):
                if digits.isdecimal() and parse(spelled, language) == int(digits):
                    pairs += 1
                    assert not is_test(f"number_words:{digits}")
    assert pairs > 100


def test_parallel_sentences_are_whole_and_held_out_ones_repeat():
    sentences = parallel_sentences(80)
    assert sentences == parallel_sentences(80) and len(sentences) == 80
    assert all(set(sentence) == set(LANGUAGES) and all(sentence.values()) for sentence in sentences)
    for sentence in sentences:  # the same numbers in every language, in whatever order, unless spelled out or part of a month
        numbers = {language: sorted(re.findall(r"\d{3,}", text)) for language, text in sentence.items()}
        assert len({tuple(found) for found in numbers.values()}) == 1, sentence


def test_the_library_of_this_interpreter_gives_code_and_english():
    records = []
    for record in python_documents():
        records.append(record)
        if len(records) == 120:
            break
    assert {record["lang"] for record in records} == {"code-python", "en"}
    assert {(record["source"], record["license"]) for record in records} == {("python", "PSF-2.0")}
    assert len({record["id"] for record in records}) == len(records)
    assert any(record["id"] == "python/this" and "Beautiful is better than ugly." in record["text"] for record in records)


def test_a_library_is_read_without_tests_damage_and_tables(tmp_path):
    body = (
        '"""A module about iron.\n\nIt has a second paragraph."""\n\n\ndef forge():\n    """Return a blade made of iron, folded many times over."""\n'
        + "    return 1\n" * 30
    )
    (tmp_path / "test").mkdir()
    (tmp_path / "iron.py").write_text(body)
    (tmp_path / "test" / "iron.py").write_text(body)
    (tmp_path / "latin.py").write_bytes(body.encode() + b'x = "\xe5"\n')
    (tmp_path / "table.py").write_text("# generated with gencodec.py\n" + body)
    (tmp_path / "broken.py").write_text("def {{ template }}\n" * 30)
    records = {record["id"]: record for record in python_documents(tmp_path)}
    assert set(records) == {"python/lib/iron.py", "python/lib/broken.py"}
    (tmp_path / "iron.py").write_text(body + f'\n\nclass Anvil:\n    """{"It is heavy and does not move. " * 8}"""\n')
    records = {record["id"]: record for record in python_documents(tmp_path)}
    documentation = records["python/doc/iron.py"]["text"]
    assert documentation.index("about iron") < documentation.index("folded many") < documentation.index("heavy")


def test_a_library_without_source_is_named(tmp_path):
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        next(python_documents(tmp_path))
