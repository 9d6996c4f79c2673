"""Which files a source means."""

import pytest

from hagane.corpus import inputs
from hagane.corpus.blocks import open_input
from hagane.corpus.inputs import Input, fingerprint, list_inputs
from hagane.errors import DataError
from hagane.recipe.schema import Source


def listed(*paths, **more):
    return list_inputs([Source(name="text", path=tuple(map(str, paths)), **more)])


@pytest.fixture
def folder(tmp_path):
    for name in ("sv/b.txt", "sv/a.jsonl.gz", "sv/deep/c.md", "ja/d.parquet", "x.txt", "notes.docx", "sv/e.json", "sv/f.json", ".hidden.txt", "README"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text("x")
    return tmp_path / "root"


def test_a_folder_is_walked_in_order_and_gives_languages(folder):
    found = listed(folder)
    assert [(item.name, item.kind, item.language) for item in found.inputs] == [
        ("ja/d.parquet", "parquet", "ja"),
        ("sv/a.jsonl.gz", "jsonl", "sv"),
        ("sv/b.txt", "text", "sv"),
        ("sv/deep/c.md", "markdown", "sv"),
        ("x.txt", "text", None),
    ]
    assert found.inputs[1].compression == "gzip"


def test_files_of_unknown_type_are_counted_and_listed(folder):
    found = listed(folder)
    assert found.ignored == {".json": 2, ".docx": 1, "hidden": 1, "no suffix": 1}
    assert any(name.endswith("notes.docx") for name in found.ignored_examples)


def test_globs_files_and_folders_overlap_without_doubles(folder):
    found = listed(folder / "sv" / "*", folder / "*" / "b.txt", folder / "sv" / "b.txt")
    assert sorted(item.name for item in found.inputs) == ["a.jsonl.gz", "b.txt", "c.md"]
    assert {item.language for item in found.inputs} == {"sv"}


def test_the_language_of_the_source_wins_over_folders(folder):
    assert {item.language for item in listed(folder, language="se").inputs} == {"se"}


def test_a_missing_path_an_empty_folder_and_one_of_unknown_files_are_told_apart(tmp_path, folder):
    with pytest.raises(DataError, match=r"source text: there is no file or folder .*gone\. Was it moved or deleted"):
        listed(tmp_path / "gone")
    with pytest.raises(DataError, match=r"nothing matches .*\*\.txt"):
        listed(tmp_path / "*.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty is empty\. Put text there: hagane reads \.txt"):
        listed(tmp_path / "empty")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_text("x")
    with pytest.raises(DataError, match=r"holds 1 files, none of a known type \(1 \.jpg\)"):
        listed(tmp_path / "pictures")
    with pytest.raises(DataError, match=r"notes\.docx is of an unknown type"):
        listed(folder / "notes.docx")
    with pytest.raises(DataError, match="not an embedded corpus"):
        listed("embedded:wikipedia")


def test_a_folder_without_permission_is_an_error(folder, monkeypatch):
    def refuse(start, onerror, followlinks):
        error = PermissionError(13, "Permission denied")
        error.filename = str(folder / "sv")
        onerror(error)
        return []

    monkeypatch.setattr(inputs.os, "walk", refuse)  # tests may run as root, who may read everything
    with pytest.raises(DataError, match=r"sv cannot be read: Permission denied\. Give read permission"):
        listed(folder)


def test_a_file_without_permission_or_gone_is_an_error(tmp_path, monkeypatch):
    item = Input("text", "text", str(tmp_path / "a.txt"), "a.txt")
    with pytest.raises(DataError, match=r"a\.txt \(corpus source text\) is gone: it was there when the files were listed"):
        open_input(item)

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match="no permission"):
        open_input(item)


def test_the_fingerprint_changes_with_the_files(folder):
    sources = [Source(name="text", path=str(folder))]
    before = fingerprint(sources)
    assert fingerprint(sources) == before
    (folder / "sv" / "b.txt").write_text("another size")
    assert fingerprint(sources) != before
