"""The whole corpus stage on small inputs."""

import itertools
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus import gather
from hagane.corpus.documents import balanced_sample, held_out_texts, read_documents
from hagane.corpus.inputs import Input
from hagane.corpus.sample import Take
from hagane.errors import DataError
from hagane.recipe.schema import Source


@pytest.fixture
def folder(tmp_path, make):
    """Three languages in four formats; English has duplicates within and across files."""
    root = tmp_path / "root"
    make.write_jsonl(root / "a.jsonl.gz", [make.record("en", number) for number in range(60)])
    make.write_jsonl(root / "b.jsonl.zst", [make.record("en", number, id=f"copy-{number}") for number in range(40, 80)] + [make.record("sv", 1)] * 3)
    make.write_jsonl(root / "sv" / "c.jsonl", [{"text": make.record("sv", number)["text"]} for number in range(1, 30)])
    table = pa.table({"text": [make.record("ja", number)["text"] for number in range(50)], "language": ["ja"] * 50})
    pq.write_table(table, root / "d.parquet")
    (root / "sv" / "e.txt").write_text("En berättelse om skogen.\n\n" * 10)
    return root


def test_documents_counts_languages_and_licences(folder, build, make, tmp_path):
    facts = build(folder)
    assert facts.documents_in == 60 + 40 + 3 + 29 + 50 + 1
    assert facts.dropped["duplicate"].documents == 20 + 2 + 1
    assert facts.documents_kept == facts.documents_in - 23
    assert set(facts.shards) == {"text.en", "text.sv", "text.ja"}
    english = facts.shards["text.en"]
    assert english.documents + english.held_out_documents == 80
    assert english.license == ("CC0-1.0",)
    assert set(facts.shards["text.sv"].license) == {"CC0-1.0", "unknown"}
    texts = make.texts_of(tmp_path / "corpus", facts)
    assert sum(len(text.encode()) for split in texts.values() for text in split) == facts.bytes_kept
    assert not set(texts["train"]) & set(texts["held_out"])
    assert all(shard.held_out_documents >= 1 for shard in facts.shards.values())
    rows = list(read_documents(tmp_path / "corpus", "train", "text.en"))
    assert set(rows[0]) == {"id", "text", "lang", "source", "license"}
    assert rows[0]["source"] == "text:a.jsonl.gz"


def test_of_equal_documents_the_first_in_order_stays(folder, build, tmp_path):
    facts = build(folder)
    names = Counter(row["id"].split("-")[0] for split in ("train", "held_out") for row in read_documents(tmp_path / "corpus", split, "text.en"))
    assert names == {"en": 60, "copy": 20}
    assert facts.dropped["duplicate"].bytes > 0


def test_sources_are_ordered_by_name_when_duplicates_are_decided(build, make, tmp_path):
    for name in ("zeta", "alpha"):
        make.write_jsonl(tmp_path / name / "x.jsonl", [make.record("en", number) for number in range(10)])
    facts = build(sources=[Source(name=name, path=str(tmp_path / name)) for name in ("zeta", "alpha")])
    assert set(facts.shards) == {"alpha.en"}


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_give_the_same_files_as_one(folder, build, tmp_path, spread):
    one, two = build(folder, out="one", workers=1), build(folder, out="two", workers=2)
    assert one.model_copy(update={"seconds": 0}) == two.model_copy(update={"seconds": 0})
    files = files_of(tmp_path / "one")
    assert len(files) == 10
    assert files == files_of(tmp_path / "two")


SAMPLES = ({}, {"sample_bytes": 9000}, {"near_duplicates": 0.8, "held_out_overlap": 0.5, "on_damage": "keep", "identify": "check"})


@pytest.mark.parametrize("settings", SAMPLES, ids=["all", "sample", "rules"])
def test_files_read_together_give_what_each_gives_alone(folder, build, make, list_of_files, tmp_path, monkeypatch, settings):
    for number in range(40):
        (folder / "sv" / f"{number:02d}.txt").write_text(make.record("sv", number % 30)["text"])
    make.write_jsonl(folder / "sv" / "z.jsonl", [make.record(language, number, id=f"z{number}") for number in range(90, 99) for language in ("sv", "en")])
    if settings.get("on_damage"):
        (folder / "sv" / "07a.txt").write_bytes(b"\xff\xfe broken")
        (folder / "sv" / "zz.jsonl").write_text('{"text": "cut o')
    tasks = []
    monkeypatch.setattr("hagane.corpus.build.gather", lambda task: tasks.append(len(task.inputs)) or gather.gather(task))
    together = build(folder, out="together", **settings)
    assert len(tasks) <= 4 and max(tasks) > 10
    monkeypatch.setattr(gather, "TASK_BYTES", 0)
    tasks.clear()
    alone = build(folder, out="alone", **settings)
    assert set(tasks) == {1}
    assert together.model_copy(update={"seconds": 0, "identified": None}) == alone.model_copy(update={"seconds": 0, "identified": None})
    one, other = files_of(tmp_path / "together"), files_of(tmp_path / "alone")
    shown = [  # a task is looked through by language: of many documents that are left out for one reason, others are the examples
        sorted(line for line in files.pop("dropped.jsonl").splitlines() if b"held_out_overlap" not in line) for files in (one, other)
    ]
    assert shown[0] == shown[1]
    assert one == other
    files = list_of_files(tmp_path / "together")
    assert sum(file["documents_set_aside"] for file in files) >= together.documents_kept


def planned_files(sizes):
    """Files of two sources in turn of five, of so many bytes; of every eleventh the text is generated."""
    for index, size in enumerate(sizes):
        kind = "problems" if index % 11 == 10 else "text"
        yield gather.Planned(index, Input(f"source{index // 5 % 2}", kind, "", ""), Take(None, 1.0, 0, size))


@given(st.lists(st.integers(0, 2 * gather.TASK_BYTES) | st.integers(0, 1000)))
def test_tasks_hold_inputs_of_one_source_in_their_order(sizes):
    planned = list(planned_files(sizes))
    groups = gather.grouped(planned)
    assert [one for group in groups for one in group] == planned
    for group in groups:
        assert len({one.item.source for one in group}) == 1
        assert len(group) == 1 or sum(one.take.expected_bytes for one in group) <= gather.TASK_BYTES
        assert len(group) == 1 or all(one.item.kind == "text" for one in group)
    for one, other in itertools.pairwise(groups):  # nothing that fits is left for the next
        alike = one[0].item.source == other[0].item.source and {one[-1].item.kind, other[0].item.kind} == {"text"}
        assert not alike or sum(member.take.expected_bytes for member in (*one, other[0])) > gather.TASK_BYTES


def test_an_error_in_another_process_arrives_as_it_is(folder, build, spread):
    (folder / "zz.jsonl").write_text('{"titel": "x"}\n')
    with pytest.raises(DataError, match=r"zz\.jsonl, line 1 has no \"text\""):
        build(folder, workers=2)


def test_dropped_documents_are_counted_and_shown(build, make, tmp_path):
    records = [make.record("en", number) for number in range(5)] + [
        {"text": "short"},
        {"text": ""},
        {"text": "\ufffd" * 60},
        {"text": "<think> is special " * 9},
    ]
    facts = build(make.write_jsonl(tmp_path / "en" / "a.jsonl", records))
    assert {reason: count.documents for reason, count in facts.dropped.items()} == {"too_short": 1, "empty": 1, "encoding_damage": 1, "special_token": 1}
    assert facts.documents_in == facts.documents_kept + 4
    examples = [json.loads(line) for line in (tmp_path / "corpus" / "dropped.jsonl").read_text().splitlines()]
    assert {example["reason"] for example in examples} == set(facts.dropped)
    assert examples[-1]["text"] == "short"


def test_misread_characters_are_put_right_and_counted(build, make, tmp_path):
    good = [make.record("sv", number)["text"] for number in range(8)]
    texts = [text.encode().decode("latin-1") if number % 2 else text for number, text in enumerate(good)]
    path = make.write_jsonl(tmp_path / "sv" / "a.jsonl", [{"text": text} for text in texts])
    facts = build(path)
    assert facts.repaired == {"encoding": 4}
    kept = make.texts_of(tmp_path / "corpus", facts)
    assert sorted(kept["train"] + kept["held_out"]) == sorted(good)
    assert build(path, out="as-it-is", repair_encoding=False).repaired == {}


def test_the_manifest_says_where_everything_is_from(folder, build, list_of_files, tmp_path):
    (folder / "picture.png").write_text("x")
    facts = build(folder)
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert manifest["sources"][0]["licenses"] == ["CC0-1.0", "unknown"]
    assert (manifest["sources"][0]["files"], manifest["sources"][0]["digests"], manifest["files"]["damaged"]) == (5, 5, [])
    files = list_of_files(tmp_path / "corpus")
    assert [file["documents_in"] for file in files] == [60, 43, 50, 29, 1]
    assert all(file["complete"] and file["bytes_read"] == file["bytes"] and len(file["blake2b"]) == 32 for file in files)
    assert manifest["ignored_files"]["by_suffix"] == {".png": 1}
    assert facts.ignored_files == {".png": 1}
    assert manifest["facts"]["documents_kept"] == facts.documents_kept


def test_long_documents_are_cut_and_nothing_is_lost(build, tmp_path):
    text = "\n\n".join(f"Paragraph {number} of the story. " + "More words. " * 30 for number in range(30))
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "long.txt").write_text(text)
    facts = build(tmp_path / "en", max_characters=2000)
    rows = [row for split in ("train", "held_out") for row in read_documents(tmp_path / "corpus", split, "text.en")]
    rows.sort(key=lambda row: int(row["id"].split("#")[1]))
    assert [row["id"] for row in rows] == [f"long.txt#{number}" for number in range(len(rows))]
    assert "".join(row["text"] for row in rows) == text
    assert facts.shards["text.en"].held_out_documents == 1  # one long document: its last piece


def test_a_held_out_document_larger_than_the_cap_is_cut(build, tmp_path):
    (tmp_path / "en").mkdir()
    for name in "ab":
        (tmp_path / "en" / f"{name}.txt").write_text(f"{name}: " + "\n\n".join(f"Part {part}. " + "Many words. " * 50 for part in range(20)))
    facts = build(tmp_path / "en", max_characters=1000, held_out_bytes=3000)
    assert 0 < facts.shards["text.en"].held_out_bytes <= 3000
    assert facts.dropped["held_out_rest"].documents > 0


@pytest.mark.parametrize(
    "name, data, reason",
    [
        ("a.txt", "för många ord på latin-1, och det är inte bra alls".encode("latin-1"), "encoding_damage"),
        ("a.jsonl", b'{"title": "no text"}\n', "no_text"),
        ("a.jsonl", b'{"text": \n', "damaged_record"),
        ("a.jsonl", b'{"text": "a text that is long enough to be kept", "lang": "not a tag"}\n', "bad_language"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "truncated"),
        ("a.parquet", b"PAR1", "corrupt_file"),
    ],
)
def test_damage_stops_or_is_counted(build, make, tmp_path, name, data, reason):
    make.write_jsonl(tmp_path / "sv" / "good.jsonl", [make.record("sv", number) for number in range(5)])
    (tmp_path / "sv" / name).write_bytes(data)
    with pytest.raises(DataError, match=name.replace(".", r"\.")) as raised:
        build(tmp_path / "sv", out="stopped")
    assert 'corpus.on_damage = "keep"' in str(raised.value)
    facts = build(tmp_path / "sv", on_damage="keep")
    assert facts.dropped[reason].documents == 1
    assert facts.documents_kept == 5


def test_a_file_that_goes_away_while_reading_is_an_error_that_names_it(build, make, tmp_path, monkeypatch):
    from hagane.corpus import build as module

    path = make.write_jsonl(tmp_path / "sv" / "a.jsonl", [make.record("sv", number) for number in range(5)])
    plan = module.plan_sample

    def delete_first(*arguments):
        path.unlink()
        return plan(*arguments)

    monkeypatch.setattr(module, "plan_sample", delete_first)
    with pytest.raises(DataError, match=r"a\.jsonl \(corpus source text\) is gone"):
        build(tmp_path / "sv")
    assert not list((tmp_path / "corpus").iterdir())


def test_nothing_kept_is_an_error_with_the_reasons(build, make, tmp_path):
    with pytest.raises(DataError, match=r"no document of the corpus was kept \(of 3: 3 too_short\)"):
        build(make.write_jsonl(tmp_path / "a.jsonl", [{"text": "no"}, {"text": "not"}, {"text": "none"}]))


def test_a_balanced_sample_does_not_starve_small_languages(build, make, tmp_path):
    records = [make.record("en", number) for number in range(800)] + [make.record("ja", number) for number in range(30)]
    facts = build(make.write_jsonl(tmp_path / "a.jsonl", records))
    sizes = Counter()
    for text in balanced_sample(tmp_path / "corpus", facts, 40_000):
        sizes["en" if text.isascii() else "ja"] += len(text.encode())
    assert sizes["en"] == pytest.approx(20_000, rel=0.15)
    assert sizes["ja"] == pytest.approx(20_000, rel=0.15)
    assert held_out_texts(tmp_path / "corpus", facts, 500)["en"][0].startswith("Once")


def test_a_corpus_file_that_is_gone_is_an_error(build, make, tmp_path):
    facts = build(make.write_jsonl(tmp_path / "a.jsonl", [make.record("en", number) for number in range(9)]))
    (tmp_path / "corpus" / "train" / "text.en.parquet").unlink()
    with pytest.raises(DataError, match="is gone"):
        list(balanced_sample(tmp_path / "corpus", facts, 1000))
