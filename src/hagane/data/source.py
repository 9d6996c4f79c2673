"""The batch source of one phase: all micro-batches of an optimizer step, read one step ahead in a thread.

Reading ahead does not touch the order: what a step reads is a function of its sample counter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hagane.data.batch import Batch, collate
from hagane.data.sampler import Sampler
from hagane.data.shards import Collection, Shard
from hagane.recipe.types import Phase


@dataclass(frozen=True)
class StepData:
    """What one optimizer step reads. The sums are over all its micro-batches (and, later, all ranks): losses are divided by them."""

    counter: int
    batches: tuple[Batch, ...]
    weight_sum: float
    num_tokens: int

    def describe(self) -> str:
        """Shards, rows and samples of the step, for messages."""
        return "; ".join(batch.describe() for batch in self.batches)

    @property
    def num_targets(self) -> int:
        """Tokens that count in the loss."""
        return sum(int(batch.weight_BT.count_nonzero()) for batch in self.batches)

    def num_seen(self, window: int | None) -> int:
        """Pairs of a token and one that it sees: itself and those before it in its document, at most `window`."""
        seen = [(batch.position_BT + 1)[batch.document_BT >= 0] for batch in self.batches]
        return sum(int((pairs if window is None else pairs.clamp(max=window)).sum()) for pairs in seen)


class BatchSource:
    """Batches of one phase by sample counter.

    `data`: folders of collections; the first that holds one is read. `span`: the longest context of the stage's phases on this collection,
    a multiple of the phase's own; its rows are the blocks that `read` counts.
    """

    def __init__(
        self, data: Sequence[Path], phase: Phase, seed: int, *, read: Mapping[str, int] | None = None, span: int | None = None, pin: bool = False
    ) -> None:
        self.phase = phase
        span = span or phase.context
        self.collection = Collection(_folder(data, phase.collection))
        self._shards = {name: self._shard(data, name) for name in phase.mixture}
        num_rows = {name: shard.rows(phase.context).num_rows for name, shard in self._shards.items() if phase.mixture[name] > 0}
        # rows of another context are other rows: the context is part of the seed of their order
        self.sampler = Sampler(phase.mixture, num_rows, f"{seed}/{phase.collection}/{span}", read, span // phase.context)
        self._pin = pin
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hagane-data")
        self._ahead: tuple[int, Future[StepData]] | None = None

    def _shard(self, data: Sequence[Path], name: str) -> Shard:
        """A shard of the phase's collection; `COLLECTION/SHARD` names one of another (text replayed while tuning)."""
        collection, slash, shard = name.partition("/")
        return Collection(_folder(data, collection)).shard(shard) if slash else self.collection.shard(name)

    @property
    def rows_per_step(self) -> int:
        return self.phase.rows * self.phase.accumulation

    def read(self, counter: int) -> StepData:
        """Read the step that begins at sample `counter`, here and now."""
        rows, context = self.phase.rows, self.phase.context
        names = self.sampler.names
        chosen = self.sampler.rows(counter, self.rows_per_step)
        batches = []
        for first in range(0, self.rows_per_step, rows):
            part = chosen[first : first + rows]
            batches.append(
                collate(
                    [self._shards[names[shard]].row(context, row) for shard, row in part],
                    sources=[shard for shard, _ in part],
                    names=names,
                    counters=list(range(counter + first, counter + first + rows)),
                    numbers=[row for _, row in part],
                    pin=self._pin,
                )
            )
        return StepData(counter, tuple(batches), sum(batch.weight_sum for batch in batches), sum(batch.num_tokens for batch in batches))

    def step(self, counter: int) -> StepData:
        """The step at `counter`; the one after it is read meanwhile."""
        ahead = self._ahead
        data = ahead[1].result() if ahead is not None and ahead[0] == counter else self.read(counter)
        following = counter + self.rows_per_step
        self._ahead = (following, self._thread.submit(self.read, following))
        return data

    def close(self) -> None:
        """Stop reading ahead."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _folder(data: Sequence[Path], collection: str) -> Path:
    """Where a collection is; in the first folder if it is in none, whose reader says so."""
    return next((folder / collection for folder in data if (folder / collection).is_dir()), data[0] / collection)
