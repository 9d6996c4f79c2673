"""The role of a setting: it changes what comes out, and is part of the key of the stages that read it, or only how the work is done."""

from __future__ import annotations

from typing import Any

from pydantic import Field


def execution(default: Any = ..., **kwargs: Any) -> Any:
    """A field that never changes the result: left out of every stage key."""
    return Field(default, json_schema_extra={"role": "execution"}, **kwargs)
