"""One thread to a processor while a training step uses them all.

Left alone, the scheduler now and then puts two threads that wait for each other on one processor and leaves them there for a
minute, at a quarter of the speed (docs/notebook.md, "Two threads on one core").
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int

from hagane.kernels.build import load


@contextmanager
def pinned(threads: int) -> Iterator[bool]:
    """Pin the threads of torch's operators, where they are as many as the processors this process may use; yields whether they are.

    Fewer threads than processors are left to the scheduler: it has room to step aside for others.
    """
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    library = load("threads") if threads > 1 and threads == len(processors) else None
    if library is None:
        yield False
        return
    listed = (c_int * threads)(*processors)
    library.place_threads(threads, listed, 1)
    try:
        yield True
    finally:
        library.place_threads(threads, listed, 0)
