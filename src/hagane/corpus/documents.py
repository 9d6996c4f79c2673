"""Reading a finished corpus: documents of a shard in order, or a mixture-balanced sample for the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from hagane.corpus.build import CorpusFacts
from hagane.corpus.mixture import Shard, mixture
from hagane.errors import DataError

Split = Literal["train", "held_out"]


def shard_path(corpus: Path, split: Split, shard: str) -> Path:
    return corpus / split / f"{shard}.parquet"


def open_shard(path: Path) -> pq.ParquetFile:
    """The file of a shard, or DataError where it is gone or damaged."""
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(f"{path} is gone: the corpus was complete when it was made. Make it again with `hagane corpus`.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is damaged ({str(error).splitlines()[0]}). Delete the corpus folder and run again.") from None


def read_documents(corpus: Path, split: Split, shard: str) -> Iterator[dict[str, Any]]:
    """Records {id, text, lang, source, license} of a shard in order; nothing where the shard holds none of this split."""
    path = shard_path(corpus, split, shard)
    if split == "held_out" and not path.exists():
        return
    with open_shard(path) as file:
        for batch in file.iter_batches(256):
            yield from batch.to_pylist()


def held_out_texts(corpus: Path, facts: CorpusFacts, max_bytes: int) -> dict[str, list[str]]:
    """Held-out texts per language, at most `max_bytes` of each (the last one cut)."""
    texts: dict[str, list[str]] = {}
    room: dict[str, int] = {}
    for name, shard in facts.shards.items():
        own = texts.setdefault(shard.language, [])
        for record in read_documents(corpus, "held_out", name):
            left = room.get(shard.language, max_bytes)
            if left <= 0:
                break
            text = record["text"].encode()[:left].decode("utf-8", "ignore")
            room[shard.language] = left - len(text.encode())
            own.append(text)
    return {language: own for language, own in texts.items() if own}


def balanced_sample(corpus: Path, facts: CorpusFacts, sample_bytes: int, max_repeats: float = 4.0, shares: Mapping[str, float] | None = None) -> Iterator[str]:
    """Training texts, about `sample_bytes` in the rates of the mixture, so that a small language is not starved (its text may come several times).

    Of a large shard every n-th document is taken, from row groups spread evenly over it.
    """
    shards = {name: Shard(shard.source, shard.language, shard.bytes, shard.repeats) for name, shard in facts.shards.items()}
    for name, rate in mixture(shards, sample_bytes, max_repeats, shares).items():
        size = shards[name].size
        repeats = min(rate * sample_bytes / size, max_repeats) if size else 0.0
        for _ in range(int(repeats)):
            yield from _spread(corpus, name, 1.0)
        yield from _spread(corpus, name, repeats - int(repeats))


def _spread(corpus: Path, name: str, share: float) -> Iterator[str]:
    if share <= 0:
        return
    with open_shard(shard_path(corpus, "train", name)) as file:
        groups = file.num_row_groups
        needed = min(groups, max(1, round(2 * share * groups + 0.5)))  # twice as many groups as the text needs, half of their documents
        chosen = sorted({index * groups // needed for index in range(needed)})
        total = sum(file.metadata.row_group(index).total_byte_size for index in range(groups))
        rate = share * total / max(1, sum(file.metadata.row_group(index).total_byte_size for index in chosen))
        # by bytes: a shard's documents may be of very unlike length
        wanted = taken = 0.0
        for index in chosen:
            for text in file.read_row_group(index, ["text"])["text"].to_pylist():
                wanted += rate * len(text)
                if taken + len(text) / 2 <= wanted:
                    taken += len(text)
                    yield text
