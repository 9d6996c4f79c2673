"""Documents of a file as they stand, streaming: which module reads which kind.

A reader yields a `Record` for a document, a `Damage` for one that could not be read, a `Drop` for one that a limit leaves out.
What damage means is for the caller to say: it ends the run, or is counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from hagane.corpus.blocks import Trace
from hagane.corpus.formats.html import read_html
from hagane.corpus.formats.jsonl import read_jsonl
from hagane.corpus.formats.notebook import read_notebook
from hagane.corpus.formats.parquet import read_parquet
from hagane.corpus.formats.text import read_text
from hagane.corpus.formats.warc import read_warc
from hagane.corpus.inputs import Input
from hagane.corpus.records import Item, Wanted

MAX_RECORD_BYTES = 1 << 27  # as corpus.max_record_bytes where not given

_READERS = {
    "text": read_text,
    "markdown": read_text,
    "html": read_html,
    "notebook": read_notebook,
    "warc": read_warc,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}


def read(item: Input, trace: Trace, wanted: Wanted = lambda position: True, max_record_bytes: int = MAX_RECORD_BYTES) -> Iterator[Item]:
    """The documents of a file for which `wanted(position)` holds. Raises DataError where the file cannot be opened at all."""
    return _READERS[item.kind](item, trace, wanted, max_record_bytes)
