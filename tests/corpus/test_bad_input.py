"""What goes wrong outside: each kind is named and ends the run with one sentence, or is counted and the good beside it is kept."""

import gzip
import json
import os
import time
import tracemalloc

import pyarrow.parquet as pq
import pytest
import zstandard

from hagane.corpus import blocks as blocks_module
from hagane.corpus.blocks import Trace
from hagane.corpus.documents import read_documents
from hagane.corpus.inputs import Input, kind_of, list_inputs
from hagane.corpus.readers import read
from hagane.corpus.records import Drop, Record
from hagane.errors import DataError
from hagane.recipe.schema import Source

BAD = {
    "a.txt": ("för många ord på latin-1, och det är inte bra alls".encode("latin-1"), "encoding_damage"),
    "a.md.gz": (gzip.compress(os.urandom(3000))[:-500], "truncated"),
    "a.jsonl": (b'{"text": "a line that is long enough to be kept by the reader"}\n{"text": \nx\n', "damaged_record"),
    "b.jsonl.gz": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "truncated"),
    "c.jsonl.zst": (b"not zstandard at all", "corrupt_file"),
    "a.ipynb": (b'{"cells": 1}', "damaged_record"),
    "a.parquet": (b"PAR1", "corrupt_file"),
    "a.html": (b"\x89PNG\0\0\0", "damaged_record"),
    "a.warc": (b"no archive", "damaged_record"),
    "b.warc.gz": (b"no archive", "damaged_record"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_malformed_file_among_good_ones(build, make, list_of_files, tmp_path, name):
    if name.split(".")[1] in ("html", "warc"):
        pytest.importorskip("trafilatura", reason="needs the extra `web`")
        pytest.importorskip("warcio", reason="needs the extra `web`")
    data, reason = BAD[name]
    make.write_jsonl(tmp_path / "sv" / "good.jsonl", [make.record("sv", number) for number in range(5)])
    (tmp_path / "sv" / name).write_bytes(data)
    with pytest.raises(DataError) as raised:
        build(tmp_path / "sv", out="stopped")
    assert f"{tmp_path / 'sv' / name}" in str(raised.value) and 'corpus.on_damage = "keep"' in str(raised.value)
    facts = build(tmp_path / "sv", on_damage="keep")
    assert facts.dropped[reason].documents >= 1
    assert facts.documents_kept == 5 + (name == "a.jsonl")
    files = {file["path"]: file for file in list_of_files(tmp_path / "corpus")}
    assert str(tmp_path / "sv" / name) in files[str(tmp_path / "sv" / name)]["damage"][0]
    assert files[str(tmp_path / "sv" / name)]["documents_set_aside"] == (name == "a.jsonl")
    assert "damage" not in files[str(tmp_path / "sv" / "good.jsonl")]
    assert json.loads((tmp_path / "corpus" / "manifest.json").read_text())["files"]["damaged"] == [files[str(tmp_path / "sv" / name)]]


def many_files(folder, count):
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:05d}.txt").write_text(f"Det var en gång en stuga vid sjön, och den hade nummer {number}.")
    return folder


def test_thousands_of_tiny_files_take_linear_time_and_memory(build, tmp_path):
    spent = []
    for count in (200, 1600):
        folder = many_files(tmp_path / str(count) / "sv", count)
        tracemalloc.start()
        started = time.process_time()
        facts = build(folder, out=f"corpus-{count}")
        spent.append((time.process_time() - started, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
        assert facts.documents_kept == count
    (time_few, memory_few), (time_many, memory_many) = spent
    assert time_many < 24 * time_few  # eight times the files; three times as much again for a machine that is busy
    assert memory_many < 12 * memory_few
    with pq.ParquetFile(tmp_path / "corpus-1600" / "train" / "text.sv.parquet") as file:
        assert file.num_row_groups <= 5  # not one for each file


def items(path, **more):
    kind, compression = kind_of(path)
    return read(Input("text", kind, str(path), path.name, path.stat().st_size, compression), Trace(), **more)


def write_long_line(path, megabytes):
    with path.open("wb") as file:
        file.write(b'{"text": "short one first"}\n{"text": "')
        for _ in range(megabytes):
            file.write(b"many words " * 95325 + b"x")
        file.write(b'"}\n{"text": "and a short one after it"}\n')


def test_a_line_of_64_megabytes_is_read_in_little_more_memory_than_it_takes(tmp_path):
    write_long_line(tmp_path / "a.jsonl", 64)
    tracemalloc.start()
    lengths = [len(record.text) for record in items(tmp_path / "a.jsonl")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lengths == [15, 64 * (1 << 20), 24]
    assert peak < 4 * (64 << 20)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_line_over_the_limit_is_dropped_without_being_held(tmp_path, suffix):
    write_long_line(tmp_path / "a.jsonl", 16)
    path = tmp_path / f"a.jsonl{suffix}"
    if suffix:
        path.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes(), 1))
    tracemalloc.start()
    first, drop, last = items(path, max_record_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(drop, Drop) and (drop.reason, drop.num_bytes) == ("too_long", 16 * (1 << 20) + 12)
    assert drop.excerpt.startswith('{"text": "many words') and "line 2 has more than corpus.max_record_bytes = 1,048,576 bytes" in drop.what
    assert (first.text, last.text, last.position) == ("short one first", "and a short one after it", 2)
    assert peak < 6 << 20


def test_what_is_too_long_never_ends_the_run(build, make, tmp_path):
    make.write_jsonl(tmp_path / "sv" / "a.jsonl", [make.record("sv", 1), {"text": "lång " * 1000}, make.record("sv", 2)])
    facts = build(tmp_path / "sv", max_record_bytes=2000)
    assert (facts.documents_in, facts.documents_kept, facts.dropped["too_long"].documents) == (3, 2, 1)
    example = json.loads((tmp_path / "corpus" / "dropped.jsonl").read_text())
    assert example["file"] == "a.jsonl" and "line 2" in example["what"]


@pytest.mark.parametrize("name, compress", [("a.jsonl.gz", gzip.compress), ("a.txt.zst", zstandard.compress), ("a.ipynb.gz", gzip.compress)])
def test_a_compression_bomb_is_not_unpacked(build, make, tmp_path, monkeypatch, name, compress):
    monkeypatch.setattr(blocks_module, "BOMB_BYTES", 1 << 22)
    make.write_jsonl(tmp_path / "sv" / "good.jsonl", [make.record("sv", number) for number in range(5)])
    (tmp_path / "sv" / name).write_bytes(compress(b" " * (128 << 20)))
    with pytest.raises(DataError, match=rf"{name.replace('.', '[.]')} is a compression bomb"):
        build(tmp_path / "sv", out="stopped")
    tracemalloc.start()
    facts = build(tmp_path / "sv", on_damage="keep")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert facts.dropped["compression_bomb"].documents == 1 and facts.documents_kept == 5
    assert peak < 110 << 20


def test_text_that_packs_well_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_module, "BOMB_BYTES", 1 << 20)
    lines = b"".join(b'{"text": "the same words on every line, number %d"}\n' % number for number in range(40_000))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(lines))
    assert sum(isinstance(item, Record) for item in items(tmp_path / "a.jsonl.zst")) == 40_000


def test_links_that_go_round_are_followed_once(tmp_path):
    folder = tmp_path / "texts" / "sv"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("x")
    (folder / "back").symlink_to(tmp_path / "texts")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("y")
    (folder / "there").symlink_to(tmp_path / "elsewhere")
    found = list_inputs([Source(name="text", path=str(tmp_path / "texts"))])
    assert [item.name for item in found.inputs] == ["sv/a.txt", "sv/there/b.txt"]
    assert found.ignored == {"link to a folder that is read already": 1}


def test_a_link_to_itself_is_named(build, make, tmp_path):
    make.write_jsonl(tmp_path / "sv" / "good.jsonl", [make.record("sv", number) for number in range(5)])
    (tmp_path / "sv" / "a.txt").symlink_to(tmp_path / "sv" / "a.txt")
    with pytest.raises(DataError, match=r"a\.txt \(corpus source text\) cannot be read: Too many levels of symbolic links"):
        build(tmp_path / "sv", out="stopped")
    facts = build(tmp_path / "sv", on_damage="keep")
    assert facts.dropped["unreadable"].documents == 1 and facts.documents_kept == 5


def test_documents_with_one_id_are_told_apart(build, make, tmp_path):
    long = "\n\n".join(f"Stycke {number} av en lång berättelse." + " ord" * 50 for number in range(30))
    make.write_jsonl(tmp_path / "sv" / "a.jsonl", [make.record("sv", 1), make.record("sv", 2), make.record("sv", 2, id="sv-1")])
    make.write_jsonl(tmp_path / "sv" / "b.jsonl", [make.record("sv", 3, id="sv-1"), make.record("sv", 4), {"id": "sv-2", "text": long}])
    facts = build(tmp_path / "sv", max_characters=2000)
    ids = [row["id"] for split in ("train", "held_out") for row in read_documents(tmp_path / "corpus", split, "text.sv")]
    assert facts.repeated_ids == 2  # the third record of a.jsonl is a duplicate: it is dropped, and its id is nobody's
    assert len(set(ids)) == len(ids) == facts.documents_kept
    assert {"sv-1", "sv-2", "sv-4"} <= set(ids)
    (own,) = {identity for identity in ids if identity.startswith("sv-1~")}
    assert len(own) == len("sv-1~") + 16
    assert {identity.partition("#")[2] for identity in ids if identity.startswith("sv-2~")} == {str(number) for number in range(len(ids) - 4)}


@pytest.mark.parametrize("on_damage", ["stop", "keep"])
def test_a_file_that_changes_while_it_is_read_ends_the_run(build, make, tmp_path, monkeypatch, on_damage):
    from hagane.corpus import gather as module

    path = make.write_jsonl(tmp_path / "sv" / "a.jsonl", [make.record("sv", number) for number in range(5)])
    reading = module.read

    def append_meanwhile(*arguments):
        for number, item in enumerate(reading(*arguments)):
            if number == 2:
                with path.open("a") as file:
                    file.write('{"text": "one more"}\n')
            yield item

    monkeypatch.setattr(module, "read", append_meanwhile)
    with pytest.raises(DataError, match=r"a\.jsonl \(corpus source text\) changed while it was read"):
        build(tmp_path / "sv", on_damage=on_damage)
