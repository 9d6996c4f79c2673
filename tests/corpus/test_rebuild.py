"""A corpus is made again from its manifest and the files it lists, and every difference is named."""

import json
import shutil

import pytest

from hagane.corpus import manifest
from hagane.corpus.documents import read_documents
from hagane.corpus.rebuild import rebuild
from hagane.errors import DataError, HaganeError, RunError
from hagane.recipe.schema import PROBLEMS, Source

SETTINGS = {"sample_bytes": 12_000, "near_duplicates": 0.8, "held_out_overlap": 0.5}


@pytest.fixture
def made(build, make, tmp_path):
    """A folder of texts, and the corpus of a sample of it and of generated problems."""
    for name in ("a", "b"):
        make.write_jsonl(tmp_path / "texts" / "sv" / f"{name}.jsonl", [make.record("sv", number, id=f"{name}{number}") for number in range(60)])
    for number in range(10):
        (tmp_path / "texts" / "sv" / f"{number}.txt").write_text(make.record("sv", 100 + number)["text"])
    sources = [Source(name="text", path=str(tmp_path / "texts")), Source(name="problems", path=PROBLEMS, share=0.2)]
    build(sources=sources, seed=3, **SETTINGS)
    return tmp_path / "corpus"


def test_from_the_two_files_alone_it_is_the_same_to_the_byte(made, tmp_path):
    (tmp_path / "kept").mkdir()
    for name in (manifest.MANIFEST, manifest.FILES):
        shutil.copy(made / name, tmp_path / "kept" / name)
    again = rebuild(tmp_path / "kept" / manifest.MANIFEST, tmp_path / "again")
    assert again.same and again.files >= 2 and again.shards == len(list(made.rglob("*.parquet"))) > 4
    one, other = ({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")} for folder in (made, tmp_path / "again"))
    assert one == other
    assert list(again.lines()) == [f"the same: {again.files} files read, {again.shards} shards equal to the byte"]


def test_texts_that_were_moved_are_found(made, tmp_path):
    (tmp_path / "texts").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="there is no file or folder"):
        rebuild(made, tmp_path / "again")
    again = rebuild(made, tmp_path / "again", {str(tmp_path / "texts"): str(tmp_path / "elsewhere")})
    assert again.same


def test_every_difference_is_named(build, make, tmp_path, monkeypatch):
    folder = tmp_path / "texts" / "sv"
    for name in "abc":
        make.write_jsonl(folder / f"{name}.jsonl", [make.record("sv", number, id=f"{name}{number}") for number in range(ord(name), ord(name) + 20)])
    build(tmp_path / "texts")
    (folder / "c.jsonl").unlink()
    make.write_jsonl(folder / "d.jsonl", [make.record("sv", 500)])
    with (folder / "a.jsonl").open("a") as file:
        file.write(json.dumps(make.record("sv", 600)) + "\n")
    monkeypatch.setattr("hagane.corpus.rebuild.versions", lambda: manifest.versions() | {"numpy": "9.9"})
    again = rebuild(tmp_path / "corpus", tmp_path / "again")
    assert not again.same
    assert [[name.rsplit("/", 1)[-1] for name in names] for names in (again.changed, again.gone, again.new)] == [["a.jsonl"], ["c.jsonl"], ["d.jsonl"]]
    assert "train/text.sv.parquet" in again.shards_differ
    told = "\n".join(again.lines())
    assert "1 in the manifest and not read now: " in told and "here it is 9.9: that alone may change bytes" in told


def test_a_corpus_that_documents_were_taken_out_of_is_made_without_them(build, make, tmp_path):
    from hagane.corpus.takeout import take_out

    make.write_jsonl(tmp_path / "texts" / "sv" / "a.jsonl", [make.record("sv", number, id=f"a{number}") for number in range(60)])
    (tmp_path / "run").mkdir()
    build(tmp_path / "texts", out="run/corpus")
    assert take_out(tmp_path / "run", ["a17"]).documents == ["a17"]
    again = rebuild(tmp_path / "run", tmp_path / "again")
    assert not (again.changed or again.gone or again.new)
    ids = [row["id"] for split in ("train", "held_out") for row in read_documents(tmp_path / "again", split, "text.sv")]
    assert len(ids) == 59 and "a17" not in ids
    assert json.loads((tmp_path / "again" / manifest.MANIFEST).read_text())["facts"]["dropped"]["removed"]["documents"] == 1


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("nothing", "is no manifest, and no corpus or run folder"), ("old", "has format 2, this hagane reads 3"), ("no list", r"files\.jsonl is missing"),
        ("unknown setting", "min_charaters is not a setting. Did you mean min_characters"), ("there", "is there already"),
    ],
)  # fmt: skip
def test_what_cannot_be_rebuilt_is_said_in_a_sentence(made, tmp_path, what, sentence):
    content = json.loads((made / manifest.MANIFEST).read_text())
    if what == "nothing":
        (made / manifest.MANIFEST).unlink()
    elif what == "no list":
        (made / manifest.FILES).unlink()
    elif what == "there":
        (tmp_path / "again").mkdir()
    else:
        content |= {"format": 2} if what == "old" else {"settings": {"min_charaters": 3}}
        (made / manifest.MANIFEST).write_text(json.dumps(content))
    with pytest.raises((RunError, HaganeError), match=sentence):
        rebuild(made, tmp_path / "again")
    assert (tmp_path / "again").exists() == (what == "there") and not list(tmp_path.glob(".again*"))
