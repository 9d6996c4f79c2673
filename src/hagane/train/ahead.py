"""What training needs that takes seconds and no decision, done in a thread while the corpus is read by other processes.

Importing the compiler takes two to three seconds, and building the C++ kernels three where they are not kept (docs/notebook.md, "Where the minutes go").
"""

from __future__ import annotations

import contextlib
import threading

from hagane.kernels.build import load

KERNELS = ("attention", "threads")


def begin(*, compiled: bool, device: str) -> threading.Thread:
    """Start getting ready; nobody needs to wait for it. The interpreter does, for its last seconds, where it ends before."""
    thread = threading.Thread(target=_get_ready, args=(compiled, device), name="ahead")
    thread.start()
    return thread


def _get_ready(compiled: bool, device: str) -> None:
    with contextlib.suppress(Exception):  # whatever is wrong is said where it is needed
        if device == "cpu":
            for name in KERNELS:
                load(name)
        if compiled:
            import torch._dynamo
            import torch._inductor.compile_fx  # noqa: F401
