"""Packing loses nothing, duplicates nothing, splits no conversation and overflows no row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.data.pack import Rows, stream_rows, whole_rows
from hagane.errors import DataError


@given(num_tokens=st.integers(0, 500), context=st.integers(1, 40))
def test_stream_rows_make_every_token_but_the_first_a_target_once(num_tokens: int, context: int) -> None:
    rows = stream_rows(num_tokens, context)
    targets = [token for start, end in rows.segments_S2.tolist() for token in range(start + 1, end)]
    assert targets == list(range(1, num_tokens))
    assert all(len(rows.row(index)) == 1 for index in range(rows.num_rows))
    assert all(2 <= end - start <= context + 1 for start, end in rows.segments_S2.tolist())


@given(lengths=st.lists(st.integers(0, 30), max_size=80), context=st.integers(1, 24))
def test_whole_rows_hold_each_document_once_and_whole(lengths: list[int], context: int) -> None:
    documents = np.cumsum([0, *lengths])
    packing = whole_rows(documents, context)
    placed = sorted(map(tuple, packing.rows.segments_S2.tolist()))
    left_out = {*packing.over_long.tolist(), *packing.too_short.tolist()}
    expected = sorted((int(documents[i]), int(documents[i + 1])) for i in range(len(lengths)) if i not in left_out)
    assert placed == expected
    assert {i for i, length in enumerate(lengths) if length < 2} == set(packing.too_short.tolist())
    assert {i for i, length in enumerate(lengths) if length > context + 1} == set(packing.over_long.tolist())
    for index in range(packing.rows.num_rows):
        assert 0 < sum(end - start - 1 for start, end in packing.rows.row(index).tolist()) <= context


def test_whole_rows_waste_little() -> None:
    lengths = np.random.default_rng(0).integers(5, 120, 4000)
    rows = whole_rows(np.concatenate([[0], np.cumsum(lengths)]), 256).rows
    assert rows.num_positions == int((lengths - 1).sum())
    assert rows.num_positions / (rows.num_rows * 256) > 0.99


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(2, 30), min_size=1, max_size=40))
def test_whole_rows_do_not_depend_on_anything_else(lengths: list[int]) -> None:
    documents = np.cumsum([0, *lengths])
    first, second = whole_rows(documents, 32).rows, whole_rows(documents.copy(), 32).rows
    assert np.array_equal(first.segments_S2, second.segments_S2)
    assert np.array_equal(first.starts_R1, second.starts_R1)


def test_rows_survive_their_file(tmp_path) -> None:
    rows = whole_rows(np.array([0, 5, 9, 30]), 24).rows
    rows.save(tmp_path / "a.rows-24.npz")
    again = Rows.load(tmp_path / "a.rows-24.npz")
    assert np.array_equal(again.segments_S2, rows.segments_S2)
    assert again.num_rows == rows.num_rows


def test_a_missing_or_damaged_file_of_rows_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"a\.rows-8\.npz is missing.*encode"):
        Rows.load(tmp_path / "a.rows-8.npz")
    (tmp_path / "b.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="damaged"):
        Rows.load(tmp_path / "b.npz")
