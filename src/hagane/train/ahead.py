"""What training needs that takes seconds and no decision, done in a thread while the corpus is read by other processes.

Importing the compiler takes two to three seconds, and building the C++ kernels three where they are not kept (docs/notebook.md, "Where the minutes go").
"""

from __future__ import annotations

import contextlib
import threading

from hagane.kernels.build import load
from hagane.model.config import ModelConfig

KERNELS = ("attention", "elementwise", "routing", "threads", "updates")


def begin(config: ModelConfig | None, *, device: str, dtype: str) -> threading.Thread:
    """Start getting ready to train a model like `config` compiled (None: not to compile). Who imports more of torch must wait for it."""
    thread = threading.Thread(target=_get_ready, args=(config, device, dtype), name="ahead")
    thread.start()
    return thread


def _get_ready(config: ModelConfig | None, device: str, dtype: str) -> None:
    with contextlib.suppress(Exception):  # whatever is wrong is said where it is needed
        if device == "cpu":
            for name in KERNELS:
                load(name)
        import torch._dynamo  # torch's switch to deterministic kernels does, compiled or not

        from hagane.train.stepper import compiles

        if config is not None and compiles(config, device=device, dtype=dtype):
            import torch._inductor.compile_fx  # noqa: F401
