"""What the libraries under torch read from the environment, once, when they are loaded: to be set before torch is. No setting here changes a result."""

from __future__ import annotations

import os

ENVIRONMENT = {
    # Threads that soon stop spinning at a barrier lose nothing on a quiet machine and a third less where another process takes a core
    # (docs/notebook.md, "A stolen core").
    "GOMP_SPINCOUNT": "10000",
    # Matrix products are built for their shapes, and routed experts meet new numbers of rows at every step: of 1,024 kept ones most are gone when they are
    # needed again, which is a tenth of a step (docs/notebook.md, "Products of many shapes").
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16384",
    "TOKENIZERS_PARALLELISM": "true",
}


def prepare() -> None:
    """Set what the user has not."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
