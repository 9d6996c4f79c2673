"""What is kept for the user between runs, outside any run folder: machine profiles, compiled code."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$HAGANE_CACHE or ~/.cache/hagane. Not made here."""
    return Path(os.environ.get("HAGANE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hagane")
