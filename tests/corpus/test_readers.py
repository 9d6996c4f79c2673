"""Readers: every format gives its documents, and damage is named by file and line."""

import gzip
import json
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from hagane.corpus.blocks import Trace
from hagane.corpus.formats import text as text_files
from hagane.corpus.inputs import Input, kind_of
from hagane.corpus.readers import read
from hagane.corpus.records import Damage, Record
from hagane.errors import DataError


def items(path, wanted=lambda position: True, trace=None):
    kind, compression = kind_of(path)
    return list(read(Input("text", kind, str(path), path.name, path.stat().st_size, compression), trace or Trace(), wanted))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.ndjson", "A.JSONL.GZ"])
def test_lines_of_json(tmp_path, make, name):
    records = [make.record("ja", number, source="somewhere") for number in range(300)]
    trace = Trace()
    found = items(make.write_jsonl(tmp_path / name.lower(), records).rename(tmp_path / name), trace=trace)
    assert [item.text for item in found] == [item["text"] for item in records]
    assert found[7] == Record(7, records[7]["text"], "ja-7", "ja", "somewhere", "CC0-1.0")
    assert trace.at_end
    assert trace.num_bytes == (tmp_path / name).stat().st_size


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compressed_files_may_have_several_members(tmp_path, compress):
    path = tmp_path / ("a.jsonl.gz" if compress is gzip.compress else "a.jsonl.zst")
    path.write_bytes(b"".join(compress(b'{"text": "%d"}\n' % number) for number in range(5)))
    assert [item.text for item in items(path)] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.txt.gz"])
def test_a_text_file_is_one_document(tmp_path, name):
    text = "\ufeffEin Satz.\r\n\r\n" + "Häuser über Häuser 家 🏠. " * 20_000
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert items(tmp_path / name) == [Record(0, text[1:], name)]


def test_a_very_large_text_file_becomes_several_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "TEXT_BLOCK", 100_000)
    text = "\n\n".join(f"Paragraph {number}. " + "word " * 50 for number in range(4000))
    (tmp_path / "a.txt").write_text(text)
    found = items(tmp_path / "a.txt")
    assert len(found) > 5
    assert "".join(item.text for item in found) == text
    assert [item.id for item in found[:2]] == ["a.txt#0", "a.txt#1"]


def test_parquet(tmp_path, make):
    records = [make.record("sv", number) for number in range(200)]
    table = pa.table({key: [record[key] for record in records] for key in ("text", "lang", "license")})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    found = items(tmp_path / "a.parquet", wanted=lambda position: position % 3 == 0)
    assert [(item.position, item.text) for item in found] == [(number, records[number]["text"]) for number in range(0, 200, 3)]
    assert found[0].language == "sv"


def test_reading_is_streaming(tmp_path, make):
    path = make.write_jsonl(tmp_path / "a.jsonl.gz", [{"text": random.Random(number).randbytes(20_000).hex()} for number in range(300)])  # 12 MB
    stream = read(Input("text", "jsonl", str(path), path.name, 0, "gzip"), Trace())
    tracemalloc.start()
    assert sum(len(item.text) for item in stream) == 12_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_truncated_file_gives_what_there_is_and_says_so(tmp_path, make, compress):
    random.seed(0)
    records = [{"text": random.randbytes(2000).hex()} for _ in range(500)]
    data = compress("".join(json.dumps(record) + "\n" for record in records).encode())
    path = tmp_path / ("a.jsonl.gz" if compress is gzip.compress else "a.jsonl.zst")
    path.write_bytes(data[: len(data) // 2])
    *good, damage = items(path)
    assert 200 < len(good) < 300
    assert [item.text for item in good] == [record["text"] for record in records[: len(good)]]
    assert damage.reason == "truncated"
    assert damage.rest
    assert f"{path} ends in the middle of a record (after {len(good)} documents)" in damage.what
    assert 'corpus.on_damage = "keep"' in damage.remedy


def test_a_plain_file_cut_off_in_a_line_is_truncated_too(tmp_path, make):
    path = make.write_jsonl(tmp_path / "a.jsonl", [make.record("en", number) for number in range(3)])
    path.write_bytes(path.read_bytes()[:-20])
    assert [getattr(item, "reason", "good") for item in items(path)] == ["good", "good", "truncated"]


def test_a_file_with_changed_bytes_is_corrupt(tmp_path, make):
    path = make.write_jsonl(tmp_path / "a.jsonl.gz", [make.record("en", number) for number in range(3000)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = b"\xff" * 20
    path.write_bytes(data)
    assert items(path)[-1].reason in ("corrupt_file", "damaged_record")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but nothing else")
    assert items(tmp_path / "b.parquet")[-1].reason == "corrupt_file"
    (tmp_path / "c.jsonl.gz").write_bytes(b"not gzip")
    assert items(tmp_path / "c.jsonl.gz")[-1].reason == "corrupt_file"
    (tmp_path / "d.jsonl.gz").write_bytes(b"")
    assert items(tmp_path / "d.jsonl.gz")[-1].reason == "truncated"


@pytest.mark.parametrize(
    "line, reason, words",
    [
        ('{"title": "no text here"}', "no_text", 'line 2 has no "text"'),
        ('{"text": null}', "no_text", 'line 2 has no "text"'),
        ('["text"]', "no_text", 'line 2 has no "text"'),
        ('{"text": "open', "damaged_record", "line 2 is not JSON"),
        ("[" * 100_000, "damaged_record", "line 2 is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, reason, words):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "first"}\n' + line + '\n\n{"text": "third"}\n')
    first, damage, third = items(path)
    assert (first.text, third.text, third.position) == ("first", "third", 2)
    assert damage.reason == reason
    assert str(path) in damage.what
    assert words in damage.what


def test_text_that_is_not_utf8_is_named_and_repaired_for_those_who_want_it(tmp_path):
    (tmp_path / "a.txt").write_bytes("schön".encode("latin-1"))
    (damage,) = items(tmp_path / "a.txt")
    assert isinstance(damage, Damage)
    assert "is not UTF-8 at byte 3" in damage.what
    assert damage.record.text == "sch\ufffdn"
    (tmp_path / "a.jsonl").write_bytes('{"text": "ok"}\n{"text": "schön", "lang": "de"}\n'.encode("latin-1"))
    _, damage = items(tmp_path / "a.jsonl")
    assert "is not UTF-8 in line 2" in damage.what
    assert (damage.record.text, damage.record.language) == ("sch\ufffdn", "de")


def test_a_table_without_text_says_which_columns_it_has(tmp_path):
    pq.write_table(pa.table({"body": ["x"], "title": ["y"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column \"text\" \(it has body, title\)"):
        items(tmp_path / "a.parquet")
