"""Memory that a training step frees stays with the process: the next step takes the same again.

The C library gives large blocks back to the system at once, and every step then pays for thousands of page faults: 3,000 to 8,000 of them
in a step of 60 milliseconds, which took 90 to 140 (docs/notebook.md, "Page faults").
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names in malloc.h


@cache
def keep_freed_memory() -> bool:
    """Tell the C library so, once per process; False where it is not the GNU one, which alone can be told."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # above the first, blocks are mapped and unmapped one by one: older libraries allow no more than 32 MiB
    large = bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) or bool(mallopt(_MMAP_THRESHOLD, 1 << 25))
    return large and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
