"""A sample reads what it needs, balances languages, and is the same every time."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus.documents import read_documents
from hagane.corpus.sample import EXCERPT_BYTES, Take


@pytest.fixture
def folder(tmp_path, make):
    """9 MB of English in four files, 3 MB of Swedish in one, 60 kB of Japanese."""
    root = tmp_path / "root"
    for file in range(4):
        records = [make.record("en", number) for number in range(file * 8000, file * 8000 + 8000)]
        make.write_jsonl(root / "en" / f"{file}.jsonl.gz", records)
    make.write_jsonl(root / "sv" / "0.jsonl", [make.record("sv", number) for number in range(12_000)])
    make.write_jsonl(root / "ja" / "0.jsonl.gz", [make.record("ja", number) for number in range(180)])
    return root


def test_languages_get_equal_parts_and_small_ones_all_they_have(folder, build, tmp_path):
    facts = build(folder, sample_bytes=1_000_000)
    got = {name: shard.bytes + shard.held_out_bytes for name, shard in facts.shards.items()}
    small = sum(len(json.loads(line)["text"].encode()) for line in _lines(folder / "ja" / "0.jsonl.gz"))
    assert got["text.ja"] == small
    expected = (1_000_000 - small) / 2
    assert got["text.en"] == pytest.approx(expected, rel=0.1)
    assert got["text.sv"] == pytest.approx(expected, rel=0.1)


def test_it_reads_a_part_of_the_files_only(folder, build, list_of_files, tmp_path):
    facts = build(folder, sample_bytes=240_000)
    files = list_of_files(tmp_path / "corpus")
    swedish = next(file for file in files if file["language"] == "sv")
    assert not swedish["complete"]
    assert swedish["bytes_read"] < 0.3 * swedish["bytes"]
    assert facts.documents_in < 4000


def test_documents_come_from_more_than_the_beginning(folder, build, tmp_path):
    build(folder, sample_bytes=600_000)
    numbers = [int(row["id"].split("-")[1]) for row in read_documents(tmp_path / "corpus", "train", "text.sv")]
    assert numbers == sorted(numbers)
    assert max(numbers) > 2.5 * len(numbers)


def test_the_seed_chooses_other_documents_and_the_same_seed_the_same(folder, build):
    first, again, other = (build(folder, out=name, sample_bytes=300_000, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first.shards == again.shards
    assert first.shards != other.shards


def test_a_sample_larger_than_the_text_is_everything(folder, build):
    everything, sample = build(folder, out="a"), build(folder, out="b", sample_bytes=100_000_000)
    assert sample.shards == everything.shards


def test_many_small_files_are_not_all_opened(tmp_path, make, build):
    for number in range(200):
        path = tmp_path / "root" / "sv" / f"{number:03d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make.record("sv", number)["text"] * 20)
    facts = build(tmp_path / "root", sample_bytes=100_000)
    total = sum(shard.bytes + shard.held_out_bytes for shard in facts.shards.values())
    assert total == pytest.approx(100_000, rel=0.1)
    assert facts.files < 50
    assert facts.files + facts.files_not_needed == 200


def _lines(path):
    import gzip

    return gzip.open(path).read().splitlines()


def test_embedded_sources_get_their_shares(tmp_path, build):
    from hagane.corpus.embedded import LANGUAGES
    from hagane.recipe.schema import Source

    sources = [Source(name="python", path="embedded:python", share=0.25), Source(name="problems", path="embedded:problems")]
    facts = build(sources=sources, sample_bytes=240_000)
    sizes = {name: shard.bytes + shard.held_out_bytes for name, shard in facts.shards.items()}
    assert set(sizes) == {"python.en", "python.code-python", *(f"problems.{language}" for language in LANGUAGES)}
    assert sum(size for name, size in sizes.items() if name.startswith("problems")) == pytest.approx(180_000, rel=0.1)
    assert all(sizes[f"problems.{language}"] == pytest.approx(20_000, rel=0.15) for language in LANGUAGES)
    assert sizes["python.en"] >= 29_000  # the last document is taken whole
    assert facts.shards["python.code-python"].license == ("PSF-2.0",)


def test_without_a_sample_size_generated_text_is_sized_by_its_share(folder, build):
    from hagane.recipe.schema import Source

    swedish = Source(name="text", path=str(folder / "sv"))
    facts = build(sources=[swedish, Source(name="problems", path="embedded:problems", language="sv", share=0.1)])
    made, read = (sum(shard.bytes + shard.held_out_bytes for shard in facts.shards.values() if shard.source == source) for source in ("problems", "text"))
    assert made / (made + read) == pytest.approx(0.1, rel=0.1)


LANGUAGES = ("en", "sv", "ja")


def _one_language_each(root, make, number):
    """As many files in one folder, each of one language that only its records tell."""
    for index in range(number):
        language = LANGUAGES[index % 3]
        make.write_jsonl(root / f"{index}.jsonl", [make.record(language, index * 2000 + place) for place in range(2000)])
    return root


def _by_language(facts):
    return {shard.language: shard.bytes + shard.held_out_bytes for shard in facts.shards.values()}


def test_files_of_one_folder_may_each_have_a_language_of_their_own(tmp_path, make, build):
    facts = build(_one_language_each(tmp_path / "root", make, 3), sample_bytes=300_000)
    assert _by_language(facts) == pytest.approx(dict.fromkeys(LANGUAGES, 1e5), rel=0.1)


def test_parquet_files_may_each_have_a_language_of_their_own(tmp_path, make, build):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "root").mkdir()
    for language in LANGUAGES:
        records = [make.record(language, number) for number in range(2000)]
        columns = {name: [record[name] for record in records] for name in ("text", "lang")}
        pq.write_table(pa.table(columns), tmp_path / "root" / f"{language}.parquet", row_group_size=200)
    facts = build(tmp_path / "root", sample_bytes=300_000)
    assert _by_language(facts) == pytest.approx(dict.fromkeys(LANGUAGES, 1e5), rel=0.1)


def test_a_file_in_order_of_language_gives_every_language(tmp_path, make, build):
    make.write_jsonl(tmp_path / "root" / "all.jsonl", [make.record(language, number) for language in LANGUAGES for number in range(2000)])
    facts = build(tmp_path / "root", sample_bytes=300_000)
    assert {shard.language for shard in facts.shards.values()} == set(LANGUAGES)
    assert min(shard.bytes for shard in facts.shards.values()) > 80_000


@pytest.mark.parametrize("workers", [1, 2])
def test_wrong_estimates_are_put_right_by_what_reading_finds(workers, tmp_path, make, build, monkeypatch):
    """Only the first of three files is looked into, so that all are taken to be English: reading finds Swedish and Japanese."""
    monkeypatch.setattr("hagane.corpus.sample._PROBES", 1)
    facts = build(_one_language_each(tmp_path / "root", make, 3), sample_bytes=300_000, workers=workers)
    assert _by_language(facts) == pytest.approx(dict.fromkeys(LANGUAGES, 1e5), rel=0.1)
    assert facts.documents_in == facts.documents_kept + sum(count.documents for count in facts.dropped.values())


def test_lines_longer_than_a_look_are_estimated_from_the_beginning(tmp_path, make):
    from hagane.corpus.inputs import list_inputs
    from hagane.corpus.sample import estimate
    from hagane.recipe.schema import Source

    books = [{"text": "ord " * 50_000, "lang": "sv"} for _ in range(12)]
    make.write_jsonl(tmp_path / "books.jsonl", books)
    (found,) = estimate(list_inputs((Source(name="text", path=(str(tmp_path),)),), ("und",)).inputs)
    assert found == pytest.approx({"sv": 12 * 200_000}, rel=0.05)


WORDS = ["sol", "vind", "hav", "fjell", "natt", "bok", "ord", "regn"]


def prose(draw, paragraphs):
    return "\n\n".join(f"{' '.join(draw.choices(WORDS, k=40))}." for _ in range(paragraphs))


@pytest.fixture
def books(tmp_path, make):
    """40 books of 140 kB that begin alike, and as much in short documents of another language."""
    draw, head = random.Random(0), "A head that all of them have. " * 12
    long = [{"id": f"book-{number}", "text": f"{head}\n\n{number} {prose(draw, 800)}"} for number in range(40)]
    short = [{"id": f"note-{number}", "text": f"{number} {prose(draw, 5)}"} for number in range(6000)]
    for language, records in (("nb", long), ("sv", short)):
        make.write_jsonl(tmp_path / "books" / language / "0.jsonl", records)
    return tmp_path / "books"


def test_long_documents_give_a_stretch_each_so_that_a_sample_is_not_a_few_books(books, build, tmp_path, make):
    facts = build(books, sample_bytes=400_000, rules={"repetition": False, "lists": False})
    for language in ("nb", "sv"):
        shard = facts.shards[f"text.{language}"]
        assert shard.bytes + shard.held_out_bytes == pytest.approx(200_000, rel=0.2)
    rows = [row for part in ("train", "held_out") for row in read_documents(tmp_path / "corpus", part, "text.nb")]
    assert len({row["id"] for row in rows}) >= 10 and facts.excerpts == len(rows)
    originals = {record["id"]: record["text"] for record in map(json.loads, (books / "nb" / "0.jsonl").read_text().splitlines())}
    places = [originals[row["id"]].index(row["text"]) / len(originals[row["id"]]) for row in rows]
    assert all(len(row["text"]) > EXCERPT_BYTES / 2 for row in rows)
    assert min(places) > 0.1 and max(places) - min(places) < 0.05  # all begin alike, so their stretches are at one place, by this seed not the beginning


def test_stretches_are_as_long_as_asked_for(books, build, tmp_path):
    build(books, sample_bytes=400_000, stretch_bytes=40_000, rules={"repetition": False, "lists": False})
    rows = [row for part in ("train", "held_out") for row in read_documents(tmp_path / "corpus", part, "text.nb")]
    assert len(rows) <= 8 and all(len(row["text"].encode()) >= 20_000 for row in rows)


def test_copies_of_a_long_document_stay_copies(tmp_path, make, build):
    draw = random.Random(1)
    texts = [prose(draw, 400) for _ in range(12)]
    make.write_jsonl(tmp_path / "nb.jsonl", [{"id": f"{copy}-{number}", "text": text, "lang": "nb"} for copy in range(2) for number, text in enumerate(texts)])
    facts = build(tmp_path / "nb.jsonl", sample_bytes=400_000, rules={"repetition": False, "lists": False})
    assert facts.excerpts > 16 and facts.dropped["duplicate"].documents == facts.excerpts - 12


@given(st.text("ab. \n。å", min_size=1, max_size=400), st.floats(0.01, 0.99), st.integers(1, 200), st.integers(0, 10**9))
def test_an_excerpt_is_a_part_of_the_text(text, share, least, position):
    take = Take({"sv": 1.0}, share=share, least_bytes=least)
    found = take.excerpt(text, len(text.encode()), position)
    assert found is None or (found and found in text)
    assert Take({"sv": 1.0}).excerpt(text, len(text.encode()), position) is text


@pytest.mark.parametrize("paragraphs", [3, 40, 900])
@pytest.mark.parametrize("share", [0.25, 0.6, 0.95])
def test_on_average_the_share_is_taken_whatever_the_length(paragraphs, share):
    draw = random.Random(2)
    texts = [prose(draw, paragraphs) for _ in range(400 if paragraphs < 100 else 60)]
    take = Take({"nb": 1.0}, share=share)
    taken = sum(len(take.excerpt(text, len(text), number) or "") for number, text in enumerate(texts))
    assert taken / sum(map(len, texts)) == pytest.approx(share, rel=0.12)


@pytest.mark.parametrize("text", ["<html><body>{}</body></html>", '{{"cells": "{}"}}'])
def test_pages_and_notebooks_in_records_are_never_cut(text):
    whole = text.format("ord " * 5000)
    found = [Take({"nb": 1.0}, share=0.3).excerpt(whole, len(whole), position) for position in range(100)]
    assert {type(one) for one in found} == {str, type(None)} and all(one is whole for one in found if one is not None)


def test_a_folder_of_text_files_gives_a_stretch_of_many(tmp_path, build):
    draw, folder = random.Random(3), tmp_path / "texts" / "nb"
    folder.mkdir(parents=True)
    for number in range(60):
        (folder / f"{number:02d}.txt").write_text(f"{number} {prose(draw, 400)}", encoding="utf-8")
    facts = build(tmp_path / "texts", sample_bytes=400_000, rules={"repetition": False, "lists": False})
    shard = facts.shards["text.nb"]
    assert shard.bytes + shard.held_out_bytes == pytest.approx(400_000, rel=0.25)
    assert 20 <= facts.excerpts == facts.documents_kept <= 30
    rows = [row["text"] for part in ("train", "held_out") for row in read_documents(tmp_path / "corpus", part, "text.nb")]
    assert sum(text[0].isdigit() for text in rows) < 0.3 * len(rows), "stretches are from anywhere"
