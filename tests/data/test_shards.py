"""What a row holds: tokens and targets one apart, positions and documents that restart, padding that counts nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.data.batch import collate
from hagane.data.pack import stream_rows, whole_rows
from hagane.data.shards import Collection
from hagane.data.source import BatchSource
from hagane.errors import DataError
from hagane.recipe.types import Phase


def write(folder: Path, documents: list[list[int]], context: int, *, tune: bool = False, weights: list[int] | None = None, name: str = "a.en") -> Collection:
    folder.mkdir(parents=True, exist_ok=True)
    stream = np.array([token for document in documents for token in document] + ([] if tune else [0]), "<u2")
    starts = np.cumsum([0, *map(len, documents)])
    stream.tofile(folder / f"{name}.bin")
    np.save(folder / f"{name}.documents.npy", starts)
    if weights is not None:
        np.array(weights, np.uint8).tofile(folder / f"{name}.weight.bin")
    (whole_rows(starts, context).rows if tune else stream_rows(len(stream), context)).save(folder / f"{name}.rows-{context}.npz")
    shards = {name: {"language": "en", "source": "a", "tokens": len(stream), "documents": len(documents), "bytes": 1}}
    path = folder / "index.json"
    if path.exists():
        shards |= json.loads(path.read_text())["shards"]
    path.write_text(json.dumps({"format": 1, "dtype": "uint16", "vocabulary_size": 100, "end_token": 0, "shards": shards}))
    return Collection(folder)


def test_a_row_of_running_text(tmp_path: Path) -> None:
    shard = write(tmp_path, [[0, 11, 12], [0, 21, 22, 23, 24], [0, 31]], context=4).shard("a.en")
    assert shard.rows(4).num_rows == 3
    first, second, third = (shard.row(4, index) for index in range(3))
    assert first.tokens_T.tolist() == [0, 11, 12, 0]
    assert first.targets_T.tolist() == [11, 12, 0, 21]  # the end of a document is predicted
    assert first.position_T.tolist() == [0, 1, 2, 0]
    assert first.document_T.tolist() == [0, 0, 0, 1]
    assert first.weight_T.tolist() == [1, 1, 1, 1]
    assert second.tokens_T.tolist() == [21, 22, 23, 24]
    assert second.targets_T.tolist() == [22, 23, 24, 0]
    assert second.position_T.tolist() == [0, 1, 2, 3]  # restarts at the row
    assert second.document_T.tolist() == [0, 0, 0, 0]
    assert third.tokens_T.tolist() == [0, 31, 0, 0]  # two real tokens, two of padding
    assert third.targets_T.tolist() == [31, 0, 0, 0]
    assert third.weight_T.tolist() == [1, 1, 0, 0]
    assert third.document_T.tolist() == [0, 0, -1, -1]
    assert third.num_tokens == 2


def test_a_row_of_whole_conversations(tmp_path: Path) -> None:
    weights = [0, 0, 1, 1, 0, 1, 1]
    shard = write(tmp_path, [[5, 6, 7, 8], [15, 16, 17]], context=8, tune=True, weights=weights).shard("a.en")
    row = shard.row(8, 0)
    assert row.tokens_T.tolist() == [5, 6, 7, 15, 16, 0, 0, 0]
    assert row.targets_T.tolist() == [6, 7, 8, 16, 17, 0, 0, 0]
    assert row.weight_T.tolist() == [0, 1, 1, 1, 1, 0, 0, 0]  # of the target, not of the input
    assert row.position_T.tolist() == [0, 1, 2, 0, 1, 0, 0, 0]
    assert row.document_T.tolist() == [0, 0, 0, 1, 1, -1, -1, -1]


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=15), context=st.integers(1, 10))
def test_rows_of_text_join_to_the_stream(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], context: int) -> None:
    documents = [[0, *range(1, length)] for length in lengths]
    shard = write(tmp_path_factory.mktemp("text"), documents, context).shard("a.en")
    stream = [token for document in documents for token in document] + [0]
    rows = [shard.row(context, index) for index in range(shard.rows(context).num_rows)]
    assert [token for row in rows for token in row.tokens_T[: row.num_tokens].tolist()] == stream[:-1]
    assert [token for row in rows for token in row.targets_T[: row.num_tokens].tolist()] == stream[1:]
    for row in rows:  # a position is 0 exactly where the document number changes
        real = slice(0, row.num_tokens)
        assert (np.diff(row.document_T[real], prepend=-1) > 0).tolist() == (row.position_T[real] == 0).tolist()
        assert (row.weight_T[row.num_tokens :] == 0).all()


def test_a_batch_has_the_types_of_the_contract(tmp_path: Path) -> None:
    shard = write(tmp_path, [[0, 1, 2, 3, 4, 5]], context=4).shard("a.en")
    batch = collate([shard.row(4, 0), shard.row(4, 1)], sources=[0, 0], names=("a.en",), counters=[7, 8], numbers=[0, 1])
    assert batch.tokens_BT.dtype == batch.targets_BT.dtype == batch.position_BT.dtype == torch.int64
    assert batch.weight_BT.dtype == torch.float32
    assert batch.document_BT.dtype == batch.source_B.dtype == torch.int32
    assert batch.tokens_BT.shape == (2, 4)
    assert batch.weight_sum == 6.0 and batch.num_tokens == 6
    assert batch.describe() == "a.en rows 0, 1 (samples 7, 8)"
    assert batch.to("cpu") is batch


def phase(**changes: object) -> Phase:
    values: dict[str, object] = {
        "name": "p", "collection": "text", "context": 4, "rows": 2, "accumulation": 2, "num_steps": 3, "mixture": {"a.en": 1.0, "b.sv": 1.0},
        "learning_rate": 1,
    }  # fmt: skip
    return Phase.model_validate({**values, **changes})


def test_a_step_is_the_same_read_ahead_or_alone(tmp_path: Path) -> None:
    for name in ("a.en", "b.sv"):
        write(tmp_path / "text", [[0, *range(1, 9)] for _ in range(9)], context=4, name=name)
    source, other = BatchSource([tmp_path], phase(), seed=0), BatchSource([tmp_path], phase(), seed=0)
    for step in range(6):
        ahead, alone = source.step(4 * step), other.read(4 * step)
        assert len(ahead.batches) == 2
        assert ahead.weight_sum == alone.weight_sum == sum(float(batch.weight_BT.sum()) for batch in alone.batches)
        for left, right in zip(ahead.batches, alone.batches):
            assert torch.equal(left.tokens_BT, right.tokens_BT) and left.rows == right.rows
    source.close()
    other.close()


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.json is missing.*Run the encode stage"):
        Collection(tmp_path)
    collection = write(tmp_path, [[0, 1, 2, 3, 4, 5]], context=4)
    with pytest.raises(DataError, match=r"names b\.en, but .* holds only a\.en"):
        collection.shard("b.en")
    with pytest.raises(DataError, match=r"rows-9\.npz is missing"):
        collection.shard("a.en").rows(9)
    (tmp_path / "a.en.bin").write_bytes(b"123")
    with pytest.raises(DataError, match=r"3 bytes where index\.json says 7 tokens"):
        collection.shard("a.en").row(4, 0)
    (tmp_path / "a.en.bin").unlink()
    with pytest.raises(DataError, match=r"a\.en\.bin is missing"):
        Collection(tmp_path).shard("a.en").row(4, 0)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        Collection(tmp_path)
    (tmp_path / "index.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match="format 2"):
        Collection(tmp_path)
