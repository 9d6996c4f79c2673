"""A phase reads its own collection, and text of another where its mixture says so."""

import sys
from pathlib import Path

import numpy as np

from hagane.data.source import BatchSource, StepData
from hagane.recipe.types import Phase

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from toy_training import CONTEXT, write_collection


def steps(folder: Path, mixture: dict[str, float]) -> list[StepData]:
    """Four steps of eight rows of tuning with text replayed."""
    write_collection(folder / "text", {"corpus.sv": 200})
    write_collection(folder / "tune", {"answers.thinking": 200}, tune=True)
    phase = Phase(name="answers", collection="tune", context=CONTEXT, rows=8, num_steps=4, mixture=mixture, learning_rate=1e-3)
    source = BatchSource([folder], phase, seed=0)
    try:
        return [source.step(step * 8) for step in range(4)]
    finally:
        source.close()


def test_text_is_replayed_while_tuning(tmp_path):
    mixture = {"answers.thinking": 0.75, "text/corpus.sv": 0.25}
    batches = [batch for data in steps(tmp_path, mixture) for batch in data.batches]
    replayed = np.concatenate([batch.source_B.numpy() for batch in batches]) == list(mixture).index("text/corpus.sv")
    assert 7 <= replayed.sum() <= 9  # a quarter of 32 rows
    for batch in batches:
        for row, source_index in enumerate(batch.source_B.tolist()):
            learned = batch.weight_BT[row][batch.document_BT[row] >= 0]
            assert bool((learned == 1).all()) == (batch.names[source_index] == "text/corpus.sv")


def test_what_a_step_needs_is_counted_as_the_model_sees_it(tmp_path):
    for data in steps(tmp_path, {"answers.thinking": 0.5, "text/corpus.sv": 0.5}):
        for window in (None, 3):
            pairs = 0
            for batch in data.batches:
                for document_T in batch.document_BT.tolist():
                    for query, document in enumerate(document_T):
                        start = 0 if window is None else max(0, query - window + 1)
                        pairs += sum(document >= 0 and document_T[key] == document for key in range(start, query + 1))
            assert data.num_seen(window) == pairs
        assert data.num_targets == sum(float(weight) != 0 for batch in data.batches for weight in batch.weight_BT.flatten())
        assert 0 < data.num_targets < data.num_tokens
