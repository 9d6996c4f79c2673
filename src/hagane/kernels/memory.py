"""Memory that a training step frees stays with the process: the next step takes the same again.

The C library gives large blocks back to the system at once, and every step then pays for thousands of page faults: 3,000 to 8,000 of them
in a step of 60 milliseconds, which took 90 to 140 (docs/notebook.md, "Page faults"). What a process freed before it trains is given back.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names in malloc.h


def _gnu() -> ctypes.CDLL:
    """The C library. Raises OSError where it cannot be the GNU one."""
    if sys.platform != "linux":
        raise OSError(f"no GNU C library on {sys.platform}")
    return ctypes.CDLL(None)


@cache
def keep_freed_memory() -> bool:
    """Tell the C library so, once per process; False where it is not the GNU one, which alone can be told."""
    try:
        mallopt = _gnu().mallopt
    except (OSError, AttributeError):
        return False
    # above the first, blocks are mapped and unmapped one by one: older libraries allow no more than 32 MiB
    large = bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) or bool(mallopt(_MMAP_THRESHOLD, 1 << 25))
    return large and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))


def give_back_freed_memory() -> None:
    """Give the system what was freed so far: what is kept from here on is then what comes from here on."""
    with contextlib.suppress(OSError, AttributeError):
        _gnu().malloc_trim(0)
