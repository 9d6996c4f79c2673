"""What is counted of a document, against counting by hand; and that neighbours and blocks do not matter."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus.rules import measure as module
from hagane.corpus.rules.measure import MIN_LINE, RAW, measure


def counts(text):
    return dict(zip(RAW, measure(pa.array([text], pa.string()))[0][0].tolist(), strict=True))


def test_counts_of_a_small_text():
    found = counts("- En å ab2c wOrd\n\n  1. Två {x}...\n- En å ab2c wOrd\n")
    assert found["lines"] == 3
    assert found["list_lines"] == 3
    assert found["digits"] == 3
    assert found["signs"] == 2  # the braces; marks of prose are none
    assert found["mixed"] == 4  # b2c and wO, twice
    assert found["repeated"] == len("- En å ab2c wOrd".encode())


def test_a_line_that_ends_in_an_ellipsis_is_cut():
    line = "en rad som är lång nog att räknas"
    assert counts(f"{line}...\n{line}…\n{line}.\n")["cut_lines"] == 2


@given(st.lists(st.text(alphabet="aåÄ 文{}-1\n\t", max_size=60), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_each_text_is_counted_as_if_it_were_alone(texts):
    together, lines = measure(pa.array(texts, pa.string()))
    for row, text in enumerate(texts):
        alone, own = measure(pa.array([text], pa.string()))
        assert together[row].tolist() == alone[0].tolist()
        assert lines.hash_L[lines.row_L == row].tolist() == own.hash_L.tolist()
        assert lines.start_L[lines.row_L == row].tolist() == own.start_L.tolist()


def test_blocks_do_not_matter(monkeypatch):
    texts = pa.array([f"Rad nummer {number} är en rad bland andra rader.\n" * (number % 5) for number in range(300)], pa.string())
    whole = measure(texts)
    monkeypatch.setattr(module, "BLOCK", 100)
    parts = measure(texts)
    assert whole[0].tolist() == parts[0].tolist()
    assert all(one.tolist() == other.tolist() for one, other in zip(whole[1], parts[1], strict=True))


@pytest.mark.parametrize("other", ["  Ändrad den  3 maj 2021 av redaktionen", "Ändrad den 4 maj 1999 av redaktionen\r"])
def test_lines_that_differ_in_digits_or_white_space_around_have_one_hash(other):
    hashes = measure(pa.array([f"Ändrad den 3 maj 2021 av redaktionen\n{other.replace('den  3', 'den 3')}\n"], pa.string()))[1].hash_L
    assert len(hashes) == 2
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "text",
    ["```\n{}\n```\n", "    {}\n", "# {}\n", "| {} |\n", "12. {}\n", "{}:\n", "{}\n==========================\n",
     "text\n~~~python\n{}\n"],
)
def test_code_headings_tables_steps_and_openings_are_no_running_lines(text):
    line = "import numpy as np, and a few more words"
    assert len(line) >= MIN_LINE
    assert len(measure(pa.array([text.format(line)], pa.string()))[1].hash_L) == 0
    assert len(measure(pa.array([f"{line}\n"], pa.string()))[1].hash_L) == 1
