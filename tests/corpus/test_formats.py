"""Notebooks, Markdown and reStructuredText, and records whose text has another name."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hagane.corpus.blocks import Trace
from hagane.corpus.inputs import Input, kind_of
from hagane.corpus.readers import read
from hagane.corpus.records import Damage, Record
from hagane.errors import DataError
from hagane.recipe.schema import Source


def items(path, **more):
    kind, compression = kind_of(path)
    return list(read(Input("text", kind, str(path), path.name, path.stat().st_size, compression, **more), Trace()))


def cell(kind, source, **more):
    return {"cell_type": kind, "source": source, "metadata": {}, **more}


def test_a_notebook_is_its_text_and_code_without_outputs(tmp_path):
    cells = [
        cell("markdown", ["# Täljare\n", "Räkna."]),
        cell("code", "x = 1\nprint(x)", outputs=[{"output_type": "stream", "text": "OUTPUT"}], execution_count=1),
        cell("raw", "RAW"),
        cell("code", []),
        cell("markdown", "Slut."),
    ]
    notebook = {"cells": cells, "metadata": {"language_info": {"name": "julia"}}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook))
    assert items(tmp_path / "a.ipynb") == [Record(0, "# Täljare\nRäkna.\n\n```julia\nx = 1\nprint(x)\n```\n\nSlut.\n", "a.ipynb")]


def test_a_notebook_of_the_older_format(tmp_path):
    cells = [{"cell_type": "heading", "level": 2, "source": "Head"}, {"cell_type": "code", "input": ["y = 2"], "outputs": []}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"worksheets": [{"cells": cells}], "nbformat": 3, "metadata": {}}))
    assert items(tmp_path / "a.ipynb")[0].text == "## Head\n\n```python\ny = 2\n```\n"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cells": 3}', '{"cells": [{"source": "x"}]}', '{"cells": [], "metadata": []}'])
def test_a_file_that_is_no_notebook_is_named(tmp_path, text):
    (tmp_path / "a.ipynb").write_text(text)
    (damage,) = items(tmp_path / "a.ipynb")
    assert isinstance(damage, Damage) and damage.reason == "damaged_record"
    assert "a.ipynb is not a Jupyter notebook" in damage.what


def test_the_head_of_a_markdown_file_is_left_out_and_nothing_else(tmp_path):
    body = "# Rubrik\n\nText med {{makro}} och `kod`.\n\n---\n\nmer: text\n---\n"
    (tmp_path / "a.md").write_text(f"---\ntitle: 'Rubrik'\nms.date: 2026-01-01\n---\n{body}")
    (tmp_path / "b.md").write_text(body)
    (tmp_path / "c.md").write_text(f"---\n\nEn linje, inget huvud.\n\n---\n{body}")
    (tmp_path / "d.txt").write_text(f"---\ntitle: x\n---\n{body}")
    assert [items(tmp_path / name)[0].text for name in ("a.md", "b.md")] == [body, body]
    assert items(tmp_path / "c.md")[0].text.startswith("---\n\nEn linje")
    assert items(tmp_path / "d.txt")[0].text.startswith("---\ntitle: x")


def test_restructured_text_stays_as_it_is(tmp_path):
    text = "Rubrik\n======\n\n.. note:: Se :func:`open`.\n"
    (tmp_path / "a.rst").write_text(text)
    assert items(tmp_path / "a.rst") == [Record(0, text, "a.rst")]


def test_a_source_may_name_the_field_of_the_text(build, make, tmp_path):
    rows = [{"raw_content": make.record("sv", number)["text"], "title": "x"} for number in range(9)]
    make.write_jsonl(tmp_path / "sv" / "a.jsonl", rows)
    pq.write_table(pa.table({"raw_content": [make.record("sv", number)["text"] for number in range(10, 19)]}), tmp_path / "sv" / "b.parquet")
    with pytest.raises(DataError, match=r'a\.jsonl, line 1 has no "text".* set text_field = "raw_content" for the source'):
        build(tmp_path / "sv", out="without")
    facts = build(sources=[Source(name="text", path=str(tmp_path / "sv"), text_field="raw_content")], sample_bytes=10_000_000)
    assert facts.documents_kept == 18
