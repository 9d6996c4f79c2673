"""`.ipynb`: the cells of a Jupyter notebook as one document, its text and its code in their order, without outputs.

Format: nbformat 4 (`cells`), and 3 (`worksheets`), after the schema in the nbformat documentation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hagane.corpus.blocks import Trace, whole
from hagane.corpus.inputs import Input
from hagane.corpus.records import KEEP, Damage, Item, Record, Wanted


def read_notebook(item: Input, trace: Trace, wanted: Wanted, limit: int) -> Iterator[Item]:
    """The document of a notebook: Markdown cells as they are, code cells fenced with the notebook's language; raw cells are for converters and left out."""
    data = whole(item, trace, wanted, limit)
    if not isinstance(data, bytes):
        if data is not None:
            yield data
        return
    try:
        text = notebook_text(json.loads(data))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}" if isinstance(error, ValueError) else "its cells are not where they should be"
        what = f"{item.path} is not a Jupyter notebook ({detail})."
        yield Damage(0, "damaged_record", what, KEEP.format("drop such files"), len(data), data[:200].decode("utf-8", "replace"))
        return
    yield Record(0, text, item.name)


def notebook_text(notebook: dict[str, Any]) -> str:
    """Text of a parsed notebook. Raises KeyError, TypeError or AttributeError where it is none."""
    cells = notebook["cells"] if "cells" in notebook else [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
    metadata = notebook.get("metadata", {})
    language = metadata.get("language_info", {}).get("name") or metadata.get("kernelspec", {}).get("language") or "python"
    parts = []
    for cell in cells:
        kind = cell["cell_type"]
        source = cell.get("source", cell.get("input", ""))  # `input`: code of nbformat 3
        source = (source if isinstance(source, str) else "".join(source)).strip("\n")
        if not source.strip() or kind == "raw":
            continue
        if kind == "code":
            parts.append(f"```{language}\n{source}\n```")
        elif kind == "heading":  # nbformat 3
            parts.append(f"{'#' * int(cell.get('level', 1))} {source}")
        else:
            parts.append(source)
    return "\n\n".join(parts) + "\n" if parts else ""
