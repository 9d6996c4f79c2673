"""`.parquet`: one document a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from hagane.corpus import arrow, stores
from hagane.corpus.blocks import Trace, open_input
from hagane.corpus.formats.jsonl import no_text_remedy, record
from hagane.corpus.inputs import Input
from hagane.corpus.records import CorruptError, Damage, Item, Wanted, broken, too_long
from hagane.errors import DataError

_ROWS = 64  # at a time: web documents are about 5 kB, books up to a megabyte
_FIELDS = ("id", "lang", "language", "source", "license", "licence")


def read_parquet(item: Input, trace: Trace, wanted: Wanted, limit: int) -> Iterator[Item]:
    """The rows of a table. A row over the limit is dropped after its batch was read: the format has no smaller piece than a page."""
    with open_input(item) as raw:
        if stores.is_url(item.path):
            trace.digest = None  # a whole table is not fetched for its digest: the store's etag is its identity
        else:
            while chunk := raw.read(1 << 20):  # for the digest; parquet itself is read by seeking
                trace.add(chunk)
            raw.seek(0)
        try:
            file = pq.ParquetFile(raw)
        except (pa.ArrowInvalid, OSError) as error:
            yield broken(item, CorruptError(str(error).splitlines()[0]), 0, "nothing was read")
            return
        names = file.schema_arrow.names
        if item.text_field not in names:
            raise DataError(
                f'{item.path} has no column "{item.text_field}" (it has {", ".join(names[:8])}). '
                "Set text_field of the source to the column that holds the documents, or rename that one to text."
            )
        position = 0
        try:
            for group in range(file.num_row_groups):
                columns = [name for name in (item.text_field, *_FIELDS) if name in names]
                for batch in file.iter_batches(_ROWS, row_groups=[group], columns=columns):
                    yield from _rows(item, batch, position, wanted, limit)
                    position += len(batch)
                _count(trace, raw, file, group)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
            yield broken(item, CorruptError(str(error).splitlines()[0]), position, f"after {position:,} documents")
            return
    trace.at_end = True


def _rows(item: Input, batch: Any, position: int, wanted: Wanted, limit: int) -> Iterator[Item]:
    chosen = [row for row in range(len(batch)) if wanted(position + row)]
    for row, value in zip(chosen, batch.take(arrow.indices(chosen)).to_pylist(), strict=True):
        where, text = f"{item.path}, row {position + row:,}", value[item.text_field]
        if not isinstance(text, str):
            yield Damage(position + row, "no_text", f"{where} has no text.", no_text_remedy("rows", {}))
        elif len(text) * 4 > limit and len(text.encode("utf-8", "surrogatepass")) > limit:
            yield too_long(where, position + row, len(text), limit, text[:200])
        else:
            yield record(item, position + row, value)


def _count(trace: Trace, raw: BinaryIO, file: Any, group: int) -> None:
    """Bytes of a store's table, by its row groups: what its cache fetches is not told."""
    if trace.digest is None:
        columns = file.metadata.row_group(group)
        trace.add_unordered(sum(columns.column(index).total_compressed_size for index in range(columns.num_columns)))
