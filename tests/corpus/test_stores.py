"""Sources in stores: what is listed, read and remembered of them, on fsspec's own filesystems and on a local server that speaks S3."""

import functools
import gzip
import http.server
import json
import sys
import threading

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hagane.corpus import stores
from hagane.corpus.inputs import fingerprint, list_inputs
from hagane.errors import DataError
from hagane.recipe.schema import Source


def write(root, make):
    """Nine Swedish and nine Japanese documents in three files, and a picture, below the URL `root`."""
    lines = "".join(json.dumps(make.record("sv", number)) + "\n" for number in range(9)).encode()
    contents = {"sv/a.jsonl.gz": gzip.compress(lines, mtime=0), "sv/deep/b.txt": "En berättelse om skogen. ".encode() * 9, "picture.png": b"x"}
    for name, data in contents.items():
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(data)
    table = pa.table({"text": [make.record("ja", number)["text"] for number in range(9)], "lang": ["ja"] * 9})
    with fsspec.open(f"{root}/d.parquet", "wb") as file:
        pq.write_table(table, file, row_group_size=3)
    return root


@pytest.fixture(params=["memory", "file"])
def root(request, tmp_path, make):
    yield write("memory://bucket/texts" if request.param == "memory" else f"file://{tmp_path}/texts", make)
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/bucket", recursive=True)


def listed(*paths):
    return list_inputs([Source(name="text", path=paths)])


def check_corpus(root, build, list_of_files, tmp_path):
    """The corpus made of the store is complete, and its manifest says which files it was."""
    facts = build(root)
    assert {name: shard.documents + shard.held_out_documents for name, shard in facts.shards.items()} == {"text.ja": 9, "text.sv": 10}
    files = {file["path"].rsplit("/", 1)[-1]: file for file in list_of_files(tmp_path / "corpus")}
    assert set(files) == {"a.jsonl.gz", "b.txt", "d.parquet"}
    assert all(file["complete"] and ":" in file["identity"] for file in files.values())
    assert files["a.jsonl.gz"]["bytes_read"] == files["a.jsonl.gz"]["bytes"] and len(files["a.jsonl.gz"]["blake2b"]) == 32
    assert files["d.parquet"]["blake2b"] is None  # a table is read by seeking
    assert build(root, out="sample", sample_bytes=1000).documents_kept < 19


def test_a_store_is_listed_read_and_named(root, build, list_of_files, tmp_path):
    found = listed(root)
    assert [(item.name, item.kind, item.compression, item.language) for item in found.inputs] == [
        ("d.parquet", "parquet", None, None),
        ("sv/a.jsonl.gz", "jsonl", "gzip", "sv"),
        ("sv/deep/b.txt", "text", None, "sv"),
    ]
    assert found.ignored == {".png": 1}
    assert all(item.num_bytes > 0 for item in found.inputs)
    check_corpus(root, build, list_of_files, tmp_path)


def test_globs_and_single_files_of_a_store(root):
    assert [item.name for item in listed(f"{root}/**/*.txt").inputs] == ["sv/deep/b.txt"]
    assert [item.name for item in listed(f"{root}/d.parquet", f"{root}/*.parquet").inputs] == ["d.parquet"]
    with pytest.raises(DataError, match=r"picture\.png is of an unknown type"):
        listed(f"{root}/picture.png")
    with pytest.raises(DataError, match=r"there is no file or folder .*gone"):
        listed(f"{root}/gone")
    with pytest.raises(DataError, match=r"nothing matches .*\*\.jsonl"):
        listed(f"{root}/*.jsonl")


def test_the_fingerprint_changes_with_a_file_of_the_store(root):
    sources = [Source(name="text", path=root)]
    before = fingerprint(sources)
    assert fingerprint(sources) == before
    with fsspec.open(f"{root}/sv/deep/b.txt", "wb") as file:
        file.write("Ännu en berättelse.".encode())
    assert fingerprint(sources) != before


def test_a_file_of_a_store_that_changes_while_it_is_read_ends_the_run(root, build, monkeypatch):
    from hagane.corpus import build as module

    plan = module.plan_sample

    def change_first(*arguments):
        with fsspec.open(f"{root}/sv/deep/b.txt", "wb") as file:
            file.write(b"another text")
        return plan(*arguments)

    monkeypatch.setattr(module, "plan_sample", change_first)
    with pytest.raises(DataError, match=r"sv/deep/b\.txt \(corpus source text\) changed while it was read"):
        build(root)


def test_damage_in_a_store_is_named(root, build, tmp_path):
    with fsspec.open(f"{root}/sv/e.jsonl.gz", "wb") as file:
        file.write(gzip.compress(b'{"text": "a text that is long enough to be kept"}\n' * 999)[:60])
    with pytest.raises(DataError, match=rf"{root.split('//')[0]}//.*e\.jsonl\.gz ends in the middle of a record"):
        build(root, out="stopped")
    assert build(root, on_damage="keep").dropped["truncated"].documents == 1


def test_a_missing_package_and_an_unknown_store_are_one_sentence(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "gcsfs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DataError, match=r"gs://bucket/texts cannot be read without the package gcsfs\. Install it .*hagane\[stores\]"):
        listed("gs://bucket/texts")
    with pytest.raises(DataError, match=r"nowhere://texts cannot be listed \(ValueError: Protocol not known: nowhere\)"):
        listed("nowhere://texts")


@pytest.mark.parametrize(
    "before, after, differ",
    [("5:ETag=a", "5:ETag=a", False), ("5:ETag=a", "5:ETag=b", True), ("5", "6", True), ("5", "5:ETag=a", False), ("5:mtime=1", "5:ETag=1", False)],
)
def test_identities_are_compared_by_what_both_say(before, after, differ):
    assert stores.changed(before, after) == differ


def test_the_parts_of_an_address():
    assert stores.local_path("https://host/sv/a.jsonl.gz?download=true") == "sv/a.jsonl.gz"
    assert not stores.is_pattern("https://host/sv/a.txt?part=[1]")
    assert stores.is_pattern("s3://bucket/part-?.parquet")
    assert not stores.is_url("embedded:python")


@pytest.fixture
def website(tmp_path, make):
    """A folder behind a web server of the standard library."""
    pytest.importorskip("aiohttp", reason="needs the extra `stores`")
    write(f"file://{tmp_path}/site/texts", make)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/texts"
        server.shutdown()


def test_files_of_the_web_are_a_source(website, build):
    facts = build(f"{website}/sv/a.jsonl.gz", f"{website}/d.parquet")
    assert {name: shard.documents + shard.held_out_documents for name, shard in facts.shards.items()} == {"text.ja": 9, "text.sv": 9}
    assert [item.name for item in listed(f"{website}/sv/*.gz").inputs] == ["a.jsonl.gz"]
    with pytest.raises(DataError, match=r"there is no file or folder .*gone\.txt"):
        listed(f"{website}/gone.txt")


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of moto's server."""
    pytest.importorskip("s3fs", reason="needs the extra `stores`")
    server = pytest.importorskip("moto.server", reason="needs moto with its server")
    server = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1", "ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
    yield "s3://bucket/texts"
    server.stop()


def test_a_bucket_of_an_s3_server_is_a_source(bucket, build, make, list_of_files, tmp_path):
    root = write(bucket, make)
    assert [item.name for item in listed(root).inputs] == ["d.parquet", "sv/a.jsonl.gz", "sv/deep/b.txt"]
    assert all("ETag=" in item.identity for item in listed(root).inputs)
    check_corpus(root, build, list_of_files, tmp_path)
    assert [item.name for item in listed(f"{root}/sv/*.gz").inputs] == ["a.jsonl.gz"]
    with pytest.raises(DataError, match="nobody"):
        listed("s3://nobody/texts")
