"""Data goes from pages that are little else, and stays where a page explains it."""

import json

import pytest

from hagane.corpus.rules.dumps import without_dumps

SCHEMA = json.dumps({f"column{number}": {"dtype": "string", "id": None} for number in range(9)}, indent=4)
TEXT = "Ett språk med få talare behöver mer text än det finns.\n" * 4


@pytest.mark.parametrize("fence", ["```json", "```", "~~~ JSON"])
def test_a_page_of_schemas_loses_them(fence):
    end = fence[:3]
    page = f"# Namn\n\n{TEXT}\n{fence}\n{SCHEMA}\n{end}\n\nSlut.\n\n{fence}\n{SCHEMA}\n{end}\n"
    assert without_dumps(page) == f"# Namn\n\n{TEXT}\n\nSlut.\n\n"


@pytest.mark.parametrize(
    "page",
    [
        f"{TEXT * 9}\n```json\n{SCHEMA}\n```\n",  # an example
        f"Kod:\n```python\n{SCHEMA}\n```\n",
        f"Kod:\n```\n{SCHEMA[:-1]}; x = 1\n```\n",  # no JSON
        f"{TEXT}\n```json\n{SCHEMA}\n",  # never closed
        TEXT,
    ],
)
def test_what_is_an_example_or_code_stays(page):
    assert without_dumps(page) is page
