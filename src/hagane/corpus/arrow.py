"""Arrow arrays from Python values without `pa.array`, which imports pandas where that is installed: a second of every process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def strings(values: Sequence[str]) -> pa.StringArray:
    """An array of strings (below 2 GiB together, the limit of its offsets)."""
    encoded = [value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def mask(values: NDArray[np.bool_]) -> pa.BooleanArray:
    """A Boolean array for `RecordBatch.filter`."""
    return pa.BooleanArray.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(np.packbits(values, bitorder="little"))])


def indices(values: Sequence[int]) -> pa.Int64Array:
    """Row numbers for `RecordBatch.take`."""
    return pa.Int64Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.array(values, np.int64))])
