"""What `[!INCLUDE [prod_short](includes/prod_short.md)]` (DocFX) stands for: the text of the file it names, where that lies beside the page.

Without that file its label is all there is to say, and `prod_short` is no word of any language.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from hagane.corpus.formats.text import FRONT_MATTER
from hagane.corpus.inputs import Input
from hagane.corpus.stores import is_url

_INCLUDE = re.compile(r"\[!INCLUDE\s*\[[^\]\n]*\]\(([^)\s]+)\)\]", re.IGNORECASE)
_MOST_BYTES = 1 << 12  # of a file that is a name or a sentence; longer ones are pages of their own


def resolved(text: str, item: Input) -> str:
    """The text with names and sentences of included files in place; the same object where there are none. `item` is the file that it is from."""
    if item.kind != "markdown" or is_url(item.path) or "[!" not in text:
        return text
    page, root = Path(item.path), Path(item.path.removesuffix(item.name) or ".").resolve()
    return _INCLUDE.sub(_fragment_of(page.parent, root), text)


def _fragment_of(folder: Path, root: Path) -> Callable[[re.Match[str]], str]:
    def fragment(include: re.Match[str]) -> str:
        return _read(folder / include[1], root) or include[0]

    return fragment


@lru_cache(maxsize=4096)
def _read(path: Path, root: Path) -> str:
    """One paragraph of text; empty where the file is not there, is outside of the source's folder, or holds more than that."""
    try:
        if not path.resolve().is_relative_to(root) or path.stat().st_size > _MOST_BYTES:
            return ""
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError):
        return ""
    head = FRONT_MATTER.match(text)
    text = (text[head.end() :] if head else text).strip()
    return "" if "\n" in text else text
