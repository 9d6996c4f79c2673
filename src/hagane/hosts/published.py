"""What a published checkpoint says it is: its `config.json`. No torch here; weights and tokenizer are read in `checkpoint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hagane.errors import RecipeError, RunError
from hagane.hosts import host_of
from hagane.hosts.base import Host
from hagane.hosts.mtp import modules_there
from hagane.model.config import ModelConfig

CONFIG = "config.json"
QUANTISED = "quantization_config"


def _tensor_names(folder: Path) -> set[str]:
    """Names of the tensors in a folder, from the heads of its files: 8 bytes of length, then JSON (safetensors). What cannot be read has none here."""
    names: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                names |= json.loads(file.read(int.from_bytes(file.read(8), "little"))).keys()
        except (OSError, ValueError, OverflowError, MemoryError, AttributeError):
            continue  # said by name when the weights are read
    return names


def read_config(folder: Path) -> tuple[Host, ModelConfig, dict[str, Any]]:
    """Host, model and `config.json` as it stands. Raises RunError where the file cannot be read, RecipeError by field where it cannot be computed."""
    path = folder / CONFIG
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): this is not a complete Hugging Face folder.") from None
    if description.get(QUANTISED) is not None:
        raise RecipeError(f"{path}: {QUANTISED} says that the weights are quantised, which hagane does not read. Take the checkpoint that is not quantised.")
    try:
        host = host_of(description)
        config = host.config_from_host(description)
        if config.mtp_layers and not modules_there(_tensor_names(folder), config):
            config = config.without_mtp
        return host, config, description
    except ValidationError as error:  # fields that contradict each other
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{path} does not describe a model: {reason}.") from None
