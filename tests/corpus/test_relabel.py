"""The corpus stage with documents that carry no label, or a wrong one."""

import json

import pytest

from hagane.corpus import identify, relabel
from hagane.corpus.documents import read_documents
from hagane.corpus.reasons import show
from hagane.recipe.schema import Source
from toy_languages import invented

SPEAKERS = {"qaa": invented(1), "qab": invented(2), "qac": invented(3)}  # tags kept free for such use by ISO 639-2


@pytest.fixture
def folder(tmp_path, make):
    """Three languages with 120 labelled documents each, and 12 of each that carry no label."""
    root = tmp_path / "root"
    for name, speaker in SPEAKERS.items():
        make.write_jsonl(root / name / "a.jsonl", [{"text": speaker.document(number), "license": f"for-{name}"} for number in range(120)])
    unlabelled = [
        {"id": f"{name}-{number}", "text": speaker.document(number), "license": f"un-{name}"}
        for name, speaker in SPEAKERS.items()
        for number in range(500, 512)
    ]
    make.write_jsonl(root / "mixed" / "u.jsonl", unlabelled)
    return root


@pytest.fixture
def silent(monkeypatch):
    """py3langid is not sure of anything: its opinion of invented languages is worth nothing."""
    monkeypatch.setattr(identify, "_library", lambda: type("Library", (), {"classify": staticmethod(lambda text: ("xx", 0.1))}))


def rows_of(corpus, facts):
    return {name: [row for split in ("train", "held_out") for row in read_documents(corpus, split, name)] for name in facts.shards}


def test_documents_without_a_label_get_one(folder, build, tmp_path, silent):
    facts = build(folder)
    rows = rows_of(tmp_path / "corpus", facts)
    assert set(rows) == {f"text.{name}" for name in SPEAKERS}
    for name in SPEAKERS:
        assert all(row["lang"] == name for row in rows[f"text.{name}"])
        assert sum(row["id"].startswith(f"{name}-5") for row in rows[f"text.{name}"]) == 12
        assert facts.shards[f"text.{name}"].license == (f"for-{name}", f"un-{name}")
    assert facts.documents_kept == facts.documents_in == 3 * 132
    assert facts.identified.labels == {"classifier": 36, "source": 360}
    assert facts.identified.found == dict.fromkeys(SPEAKERS, 12)
    assert {name: (item.held_out, item.recall, item.known) for name, item in facts.identified.languages.items()} == dict.fromkeys(SPEAKERS, (30, 1.0, True))
    (tmp_path / "corpus" / "facts.json").write_text(json.dumps({"facts": facts.model_dump(mode="json")}))
    assert "  qaa: precision 100%, recall 100% of 30 documents" in show(tmp_path / "corpus")[0]
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert manifest["labels"] == {"text": {"classifier": 36, "source": 360}}
    assert manifest["facts"]["identified"]["languages"]["qaa"]["precision"] == 1.0


def test_pieces_of_a_long_document_go_where_it_goes(folder, build, tmp_path, make, silent):
    long = SPEAKERS["qab"].document(900, 3000)
    make.write_jsonl(folder / "mixed" / "v.jsonl", [{"id": "long", "text": long}, {"id": "next", "text": SPEAKERS["qaa"].document(901)}])
    facts = build(folder, max_characters=2000)
    pieces = [row for row in rows_of(tmp_path / "corpus", facts)["text.qab"] if row["id"].startswith("long")]
    pieces.sort(key=lambda row: int(row["id"].split("#")[1]))
    assert "".join(row["text"] for row in pieces) == long


def test_off_leaves_them_undetermined(folder, build, tmp_path):
    facts = build(folder, identify="off")
    assert facts.shards["text.und"].documents + facts.shards["text.und"].held_out_documents == 36
    assert facts.identified is None
    assert json.loads((tmp_path / "corpus" / "manifest.json").read_text())["labels"] == {"text": {"none": 36, "source": 360}}


def test_where_every_document_has_a_label_nothing_is_learned(folder, build, monkeypatch):
    (folder / "mixed" / "u.jsonl").unlink()
    monkeypatch.setattr(relabel, "_learn", lambda *_: pytest.fail("learned"))
    monkeypatch.setattr(identify, "_library", lambda: pytest.fail("loaded"))
    assert build(folder).identified is None


def test_a_wrong_label_is_dropped_by_check_alone_and_a_strange_language_never(folder, build, make, tmp_path, silent):
    wrong = [{"id": f"wrong-{number}", "text": SPEAKERS["qac"].document(number), "lang": "qaa"} for number in range(700, 703)]
    strange = [{"id": f"strange-{number}", "text": invented(8).document(number), "lang": lang} for lang in ("qaa", "smj") for number in range(3)]
    own = [{"id": f"own-{number}", "text": SPEAKERS["qac"].document(number), "lang": "qad"} for number in range(800, 802)]  # too little to learn qad
    make.write_jsonl(folder / "w.jsonl", wrong + strange + own)
    unquestioned = build(folder, out="unlabelled")
    assert "wrong_language" not in unquestioned.dropped
    facts = build(folder, identify="check")
    assert facts.dropped["wrong_language"].documents == 3
    assert facts.dropped["wrong_language"].bytes == sum(len(record["text"].encode()) for record in wrong)
    kept = {row["id"].rsplit("-", 1)[0] for rows in rows_of(tmp_path / "corpus", facts).values() for row in rows}
    assert {"strange", "own"} <= kept and "wrong" not in kept
    assert facts.documents_in == facts.documents_kept + sum(count.documents for count in facts.dropped.values())
    example = next(json.loads(line) for line in (tmp_path / "corpus" / "dropped.jsonl").read_text().splitlines() if "wrong_language" in line)
    assert (example["language"], example["found"], example["file"]) == ("qaa", "qac", "w.jsonl")


def test_a_wrongly_labelled_copy_does_not_displace_the_right_one(folder, build, make, silent):
    copy = SPEAKERS["qac"].document(3)
    make.write_jsonl(folder / "a-first.jsonl", [{"text": copy, "lang": "qaa"}])
    facts = build(folder, identify="check")
    assert facts.dropped["wrong_language"].documents == 1
    assert "duplicate" not in facts.dropped


def test_check_without_two_well_known_languages_drops_nothing(build, make, tmp_path, silent):
    root = tmp_path / "few"
    for name in ("qaa", "qab"):
        make.write_jsonl(root / name / "a.jsonl", [{"text": SPEAKERS[name].document(number)} for number in range(20)])
    make.write_jsonl(root / "b.jsonl", [{"text": SPEAKERS["qab"].document(50), "lang": "qaa"}])
    facts = build(root, identify="check")
    assert (facts.dropped, facts.identified.checked) == ({}, 0)
    assert not any(item.known for item in facts.identified.languages.values())


def test_two_processes_give_the_same_files_as_one(folder, build, make, tmp_path, spread):
    make.write_jsonl(folder / "mixed" / "v.jsonl", [{"text": SPEAKERS["qab"].document(number)} for number in range(600, 620)])
    one, two = (build(folder, out=name, workers=workers, identify="check") for name, workers in (("one", 1), ("two", 2)))
    assert one.shards == two.shards and one.dropped == two.dropped
    assert one.identified.model_copy(update={"seconds": 0}) == two.identified.model_copy(update={"seconds": 0})
    for path in (tmp_path / "one").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path.name


def test_the_order_of_files_does_not_change_what_is_learned(folder, build, tmp_path, silent):
    first = build(folder, out="first")
    for name in SPEAKERS:  # the same documents in two files, the second half first
        lines = (folder / name / "a.jsonl").read_text().splitlines(keepends=True)
        (folder / name / "a.jsonl").write_text("".join(lines[60:]))
        (folder / name / "b.jsonl").write_text("".join(lines[:60]))
    again = build(folder, out="again")
    assert (again.identified.languages, again.identified.found) == (first.identified.languages, first.identified.found)


def test_a_label_und_is_no_label_and_without_labelled_text_py3langid_answers(build, make, tmp_path):
    english = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, number {}."
    make.write_jsonl(tmp_path / "a.jsonl", [{"text": english.format(number), "lang": "und"} for number in range(6)])
    facts = build(tmp_path / "a.jsonl")
    assert set(facts.shards) == {"text.en"}
    assert facts.identified.labels == {"py3langid": 6}
    assert facts.identified.languages == {}


def test_generated_problems_are_not_learned_from(folder, build, silent):
    sources = [Source(name="text", path=(str(folder),)), Source(name="problems", path=("embedded:problems",), share=0.2)]
    facts = build(sources=sources)
    assert set(facts.identified.languages) == set(SPEAKERS)
