"""A phase reads its own collection, and text of another where its mixture says so."""

import sys
from pathlib import Path

import numpy as np

from hagane.data.source import BatchSource
from hagane.recipe.types import Phase

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from toy_training import CONTEXT, write_collection


def test_text_is_replayed_while_tuning(tmp_path):
    write_collection(tmp_path / "text", {"corpus.sv": 200})
    write_collection(tmp_path / "tune", {"answers.thinking": 200}, tune=True)
    mixture = {"answers.thinking": 0.75, "text/corpus.sv": 0.25}
    phase = Phase(name="answers", collection="tune", context=CONTEXT, rows=8, num_steps=4, mixture=mixture, learning_rate=1e-3)
    source = BatchSource(tmp_path, phase, seed=0)
    try:
        batches = [batch for step in range(4) for batch in source.step(step * 8).batches]
    finally:
        source.close()
    replayed = np.concatenate([batch.source_B.numpy() for batch in batches]) == list(mixture).index("text/corpus.sv")
    assert 7 <= replayed.sum() <= 9  # a quarter of 32 rows
    for batch in batches:
        for row, source_index in enumerate(batch.source_B.tolist()):
            learned = batch.weight_BT[row][batch.document_BT[row] >= 0]
            assert bool((learned == 1).all()) == (batch.names[source_index] == "text/corpus.sv")
