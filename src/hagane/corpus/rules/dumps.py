"""JSON and the like in code fences that a page mostly consists of: schemas and answers of programs, not examples that a text explains."""

from __future__ import annotations

import json
import re

SHARE = 0.4  # of a document's characters in such fences: what explains an example is longer than it
_FENCE = re.compile(r"^(?P<mark>```+|~~~+)[ \t]*(?P<name>[\w.+-]*)[^\n]*\n(?P<body>.*?)^(?P=mark)[ \t]*$\n?", re.MULTILINE | re.DOTALL)
_NAMES = frozenset({"json", "jsonc", "json5", "jsonl", "geojson"})


def without_dumps(text: str) -> str:
    """The text without such fences; the same object where they are less than SHARE of it."""
    if ("```" not in text and "~~~" not in text) or ("{" not in text and "[" not in text):
        return text
    found = [fence for fence in _FENCE.finditer(text) if _is_data(fence["name"].lower(), fence["body"])]
    if sum(fence.end() - fence.start() for fence in found) < SHARE * len(text):
        return text
    rest, start = [], 0
    for fence in found:
        rest.append(text[start : fence.start()])
        start = fence.end()
    return "".join([*rest, text[start:]])


def _is_data(name: str, body: str) -> bool:
    if name in _NAMES:
        return True
    if name or body.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
