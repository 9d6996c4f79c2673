"""Web pages and archives: the main text, its language and its encoding; damage named, and what is good beside it kept."""

import gzip
import io

import pytest

from hagane.corpus import inputs
from hagane.corpus.blocks import Trace
from hagane.corpus.inputs import Input, kind_of
from hagane.corpus.readers import read
from hagane.corpus.records import Damage, Drop, Record
from hagane.errors import DataError

pytest.importorskip("trafilatura", reason="needs the extra `web`")
pytest.importorskip("warcio", reason="needs the extra `web`")

PARAGRAPHS = {
    "sv": "Det var en gång en liten stuga vid sjön, och där bodde en gammal man som hette Åke och fiskade varje dag.",
    "ja": "湖のほとりに小さな家があり、老人が一人で住んでいました。老人は毎日魚を釣り、夜には星を眺めていました。",
    "ru": "Жил у самого озера в маленьком доме старик, и каждый день он ловил рыбу, а ночью смотрел на звёзды.",
    "ko": "호숫가의 작은 집에 노인이 혼자 살고 있었습니다. 노인은 매일 물고기를 잡고 밤에는 별을 바라보았습니다.",
}


def page(language="sv", charset="utf-8", declare=True, tag=True):
    body = "".join(f"<p>{PARAGRAPHS[language]} ({number})</p>" for number in range(6))
    meta = f'<meta charset="{charset}">' if declare else ""
    lang = f' lang="{language}"' if tag else ""
    html = f"""<!DOCTYPE html><html{lang}><head>{meta}<title>T</title></head><body>
    <nav><ul><li><a href="/">HOME-MENU</a></li><li><a href="/a">ABOUT-MENU</a></li></ul></nav>
    <main><article><h1>Head</h1>{body}<p>med <code>a</code> å <code>b</code> は <code>c</code> i</p></article></main>
    <footer><a href="/c">FOOTER-LINE</a></footer></body></html>"""
    return html.encode(charset)


def items(path, **more):
    kind, compression = kind_of(path)
    return list(read(Input("text", kind, str(path), path.name, path.stat().st_size, compression), Trace(), **more))


def test_a_page_gives_its_main_text_and_language(tmp_path):
    (tmp_path / "a.html").write_bytes(page())
    (record,) = items(tmp_path / "a.html")
    assert (record.id, record.language) == ("a.html", "sv")
    assert record.text.count(PARAGRAPHS["sv"]) == 6
    assert "a å b は c" in record.text  # one-letter words between marked-up ones are words
    assert "MENU" not in record.text and "FOOTER" not in record.text


@pytest.mark.parametrize("language, charset", [("sv", "iso-8859-1"), ("ja", "shift_jis"), ("ja", "euc-jp"), ("ru", "windows-1251"), ("ko", "euc-kr")])
def test_the_encoding_is_what_the_page_declares(tmp_path, language, charset):
    text = page(language, charset="utf-8").replace(b'charset="utf-8"', f'charset="{charset}"'.encode()).decode()
    (tmp_path / "a.htm").write_bytes(text.encode(charset, "xmlcharrefreplace"))
    (record,) = items(tmp_path / "a.htm")
    assert PARAGRAPHS[language] in record.text


def test_without_a_declaration_the_bytes_decide(tmp_path):
    (tmp_path / "a.html").write_bytes(page("ru", declare=False))
    (tmp_path / "b.html").write_bytes("\ufeff".encode("utf-16-le") + page("ja", declare=False).decode().encode("utf-16-le"))
    assert PARAGRAPHS["ru"] in items(tmp_path / "a.html")[0].text
    assert PARAGRAPHS["ja"] in items(tmp_path / "b.html")[0].text


def test_a_language_that_is_no_tag_or_missing_is_none(tmp_path):
    (tmp_path / "a.html").write_bytes(page(tag=False))
    (tmp_path / "b.xhtml").write_bytes(b'<?xml version="1.0" encoding="utf-8"?>' + page().replace(b'lang="sv"', b'xml:lang="sv_SE"'))
    assert items(tmp_path / "a.html")[0].language is None
    (record,) = items(tmp_path / "b.xhtml")
    assert record.language == "sv-SE" and PARAGRAPHS["sv"] in record.text


def test_pages_that_are_none_are_named_and_a_large_one_is_dropped(tmp_path):
    (tmp_path / "a.html").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100))
    (tmp_path / "b.html.gz").write_bytes(gzip.compress(page())[:-20])
    (tmp_path / "c.html").write_bytes(b"<div>" * 3000 + b"x" * 3000)
    assert items(tmp_path / "a.html")[0].what.endswith("a.html is not a web page (it holds zero bytes).")
    assert items(tmp_path / "b.html.gz")[0].reason == "truncated"
    assert isinstance(items(tmp_path / "c.html")[0], Record | Damage)
    (drop,) = items(tmp_path / "c.html", max_record_bytes=10_000)
    assert isinstance(drop, Drop) and drop.reason == "too_long"


def archive(*pages, compressed=False):
    """A WARC file with one response per (content, media type, status), made by warcio."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    file = io.BytesIO()
    writer = WARCWriter(file, gzip=compressed)
    writer.write_record(writer.create_warcinfo_record("a.warc", {"software": "test"}))
    for number, (content, kind, status) in enumerate(pages):
        headers = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
        writer.write_record(writer.create_warc_record(f"http://h.example/{number}", "response", payload=io.BytesIO(content), http_headers=headers))
    return file.getvalue()


def good(number, language="sv"):
    return page(language), "text/html; charset=utf-8", "200 OK"


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_gives_pages_and_plain_text_and_counts_the_rest(tmp_path, compressed):
    latin = PARAGRAPHS["sv"].encode("latin-1"), "text/plain; charset=iso-8859-1", "200 OK"
    rest = [(b"\x89PNG", "image/png", "200 OK"), (page(), "text/html", "404 Not Found")]
    path = tmp_path / ("a.warc.gz" if compressed else "a.warc")
    path.write_bytes(archive(good(0), latin, *rest, good(4, "ja"), compressed=compressed))
    first, plain, picture, missing, last = items(path)
    assert (first.id, first.language, last.language, last.position) == ("http://h.example/0", "sv", "ja", 4)
    assert plain.text == PARAGRAPHS["sv"]
    assert [(item.reason, type(item)) for item in (picture, missing)] == [("not_text", Drop), ("http_status", Drop)]
    assert [item.position for item in items(path, wanted=lambda position: position == 4)] == [4]


def test_chunked_and_packed_answers_are_undone(tmp_path):
    data = gzip.compress(page())
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n" + chunks
    head = b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: http://h.example/\r\nContent-Type: application/http\r\nContent-Length: %d\r\n\r\n"
    (tmp_path / "a.warc").write_bytes(head % len(http) + http + b"\r\n\r\n")
    assert PARAGRAPHS["sv"] in items(tmp_path / "a.warc")[0].text


def test_a_damaged_record_is_named_and_the_others_are_read(tmp_path):
    data = archive(*[good(number) for number in range(4)])
    third = data.index(b"WARC/1.0", data.index(b"http://h.example/1"))
    forms = {
        "its header is not that of a record": data[:third] + b"XXXX" + data[third + 4 :],
        "its length is not what its header says": data[:third] + data[third:].replace(b"Content-Length: ", b"Content-Length: 50\r\nX-Was: ", 1),
        "it ends too soon": data[:third] + data[third:].replace(b"Content-Length: ", b"Content-Length: 9", 1),
    }
    for words, form in forms.items():
        (tmp_path / "a.warc").write_bytes(form)
        found = items(tmp_path / "a.warc")
        damage = [item for item in found if isinstance(item, Damage)]
        assert [item.reason for item in damage] == ["damaged_record"], words
        assert words in damage[0].what and str(tmp_path / "a.warc") in damage[0].what
        assert len(found) == 4 and found[3].id == "http://h.example/3"


def test_a_damaged_member_and_a_cut_off_end_of_a_packed_archive(tmp_path):
    data = archive(*[good(number) for number in range(4)], compressed=True)
    starts = [index for index in range(len(data)) if data.startswith(b"\x1f\x8b\x08", index)]
    middle = starts[2] + 200
    (tmp_path / "a.warc.gz").write_bytes(data[:middle] + b"\xff" * 20 + data[middle + 20 :])
    found = items(tmp_path / "a.warc.gz")
    assert [getattr(item, "reason", "good") for item in found] == ["good", "damaged_record", "good", "good"]
    (tmp_path / "b.warc.gz").write_bytes(data[:-20])
    assert [getattr(item, "reason", "good") for item in items(tmp_path / "b.warc.gz")] == ["good"] * 3 + ["truncated"]


def test_a_record_over_the_limit_is_passed_over(tmp_path):
    (tmp_path / "a.warc").write_bytes(archive((b"<p>x" * 100_000, "text/html", "200 OK"), good(1)))
    drop, record = items(tmp_path / "a.warc", max_record_bytes=50_000)
    assert (drop.reason, record.id) == ("too_long", "http://h.example/1")


def test_pages_and_archives_become_a_corpus(build, tmp_path):
    (tmp_path / "web").mkdir()
    for language in ("sv", "ja"):
        (tmp_path / "web" / f"{language}.html").write_bytes(page(language))
    (tmp_path / "web" / "a.warc.gz").write_bytes(archive(good(0, "ru"), good(1, "ko"), compressed=True))
    facts = build(tmp_path / "web", sample_bytes=1_000_000)
    assert set(facts.shards) == {"text.sv", "text.ja", "text.ru", "text.ko"}


def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "a.html").write_bytes(page())
    monkeypatch.setattr(inputs, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"a\.html \(corpus source text\) cannot be read without the package trafilatura\. Install .*hagane\[web\]"):
        inputs.list_inputs([inputs.Source(name="text", path=str(tmp_path))])
