"""Documents that are taken out are nowhere left, stay out, and every model that saw them is named."""

import json

import pytest

from hagane.corpus.documents import read_documents
from hagane.corpus.removal import Removed, matches
from hagane.folder import open_environment
from hagane.recipe.load import load_recipe
from hagane.recipe.types import Machine
from hagane.run import BY_NAME, _do, create, derived, open_run, remove_documents, stage_key

MACHINE = Machine(name="test", device="cpu", num_cores=2, memory_bytes=8 << 30, matmul_flops=4e11, bandwidth=2e10, power_watts=31, power_source="test")


@pytest.mark.parametrize(
    ("identity", "pattern", "found"),
    [
        ("news/1", "news/1", True), ("news/1#3", "news/1", True), ("news/1~0123456789abcdef", "news/1", True), ("news/1~0123456789abcdef#2", "news/1", True),
        ("news/12", "news/1", False), ("news/12", "news/*", True), ("a[1].txt", "a[1].txt", True), ("books/1", "news/*", False),
    ],
)  # fmt: skip
def test_ids_globs_and_pieces(identity, pattern, found):
    assert matches(identity, [pattern]) == found


@pytest.fixture
def run(tmp_path, make):
    """A run of which the corpus is made: forty documents, one of them in several pieces."""
    records = [make.record("en", number) for number in range(40)]
    records.append({"id": "long", "lang": "en", "text": "\n\n".join(f"Paragraph number {number} of a long document, with some words." for number in range(60))})
    make.write_jsonl(tmp_path / "in" / "a.jsonl", records)
    settings = ["corpus.max_characters=1000", "corpus.near_duplicates=0", "corpus.sample_bytes=1000000", "budget=300000tokens"]
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'name = "r"\n[[corpus.sources]]\nname = "text"\npath = "{tmp_path / "in"}"\n')
    loaded, text = load_recipe(str(recipe), settings)
    opened = create(tmp_path / "run", loaded, text, MACHINE, (), started=0.0, say=lambda line: None)
    with opened:
        _do(opened, BY_NAME["corpus"])
    return tmp_path / "run"


def ids(run):
    facts = json.loads((run / "corpus" / "facts.json").read_text())["facts"]
    return [row["id"] for split in ("train", "held_out") for shard in facts["shards"] for row in read_documents(run / "corpus", split, shard)]


def remove(run, *patterns):
    with open_run(run) as opened:
        return remove_documents(opened, patterns)


def test_documents_are_gone_at_once_and_counts_fit(run):
    before = ids(run)
    assert any(name.startswith("long#") for name in before)
    taken = remove(run, "long", "en-1?")
    assert len(taken.documents) == 11
    after = ids(run)
    assert set(before) - set(after) == {name for name in before if name.startswith("long#") or (name.startswith("en-1") and len(name) == 5)}
    facts = json.loads((run / "corpus" / "facts.json").read_text())["facts"]
    assert facts["documents_kept"] == len(after)
    assert facts["dropped"]["removed"]["documents"] == 11
    rows = json.loads((run / "corpus" / "manifest.json").read_text())["accounts"]
    assert sum(row["kept"]["documents"] for row in rows) == len({name.partition("#")[0] for name in after})


def test_the_corpus_is_not_read_again_but_what_follows_is_made_again(run):
    digest = json.loads((run / "corpus" / "facts.json").read_text())["digest"]
    remove(run, "en-3")
    with open_run(run) as opened:
        record = opened.record("corpus")
        assert record["digest"] != digest
        assert record["key"] == stage_key(opened, BY_NAME["corpus"], derived(opened, "corpus"))


def test_a_corpus_made_again_leaves_them_out_and_their_copies_too(run, tmp_path, make):
    remove(run, "en-3")
    make.write_jsonl(tmp_path / "in" / "b.jsonl", [make.record("en", 3, id="other-name"), make.record("en", 99)])
    with open_run(run) as opened:
        _do(opened, BY_NAME["corpus"])
    after = ids(run)
    assert "en-99" in after
    assert "en-3" not in after
    assert "other-name" not in after
    assert open_environment(run).seed == 0


def test_stages_that_trained_on_them_are_named_and_shards_of_ids_go(run):
    for name in ("encode", "pretrain", "superseded/encode-1"):
        (run / name).mkdir(parents=True)
    (run / "pretrain" / "key.json").write_text('{"key": "x"}')
    taken = remove(run, "en-*")
    assert taken.trained == ["pretrain"]
    assert not (run / "encode").exists()
    assert not (run / "superseded" / "encode-1").exists()


def test_what_is_not_there_changes_nothing_but_the_list(run):
    before = json.loads((run / "corpus" / "facts.json").read_text())
    assert remove(run, "nobody").documents == []
    after = json.loads((run / "corpus" / "facts.json").read_text())
    assert after["digest"] == before["digest"]
    assert json.loads((run / "removed.json").read_text())["patterns"] == ["nobody"]


def test_a_recipe_may_name_documents_to_leave_out(build, make, tmp_path):
    make.write_jsonl(tmp_path / "in" / "a.jsonl", [make.record("en", number) for number in range(10)])
    facts = build(tmp_path / "in", remove=["en-[12]"])
    assert facts.dropped["removed"].documents == 2
    assert bool(Removed(())) is False
