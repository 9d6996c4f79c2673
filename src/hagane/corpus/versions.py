"""Of all that decides what text becomes: which versions are here."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import platform
from functools import cache
from pathlib import Path

_PACKAGES = ("hagane", "ftfy", "numpy", "phonenumbers", "py3langid", "pyarrow", "python-stdnum", "scipy", "trafilatura", "warcio")


@cache
def versions() -> dict[str, str]:
    """Name -> version; `code` is a digest of this package's own files."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return found | {"code": digest.hexdigest()}
