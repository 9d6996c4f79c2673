"""What a published checkpoint says it is: its `config.json`. No torch here; weights and tokenizer are read in `checkpoint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hagane.errors import RecipeError, RunError
from hagane.hosts import host_of
from hagane.hosts.base import Host
from hagane.hosts.fields import wrong_field
from hagane.hosts.mtp import modules_there
from hagane.model.config import ModelConfig
from hagane.recipe.types import first_reason

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
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}): this is not a complete Hugging Face folder.") from None
    if not isinstance(description, dict):
        raise RecipeError(f"{path} is not a table of fields: this is not a complete Hugging Face folder.")
    if description.get(QUANTISED) is not None:
        raise RecipeError(f"{path}: {QUANTISED} says that the weights are quantised, which hagane does not read. Take the checkpoint that is not quantised.")
    try:
        host = host_of(description)
        if (wrong := wrong_field(description)) is not None:
            raise RecipeError(f"{path}: {wrong}. Correct it, or fetch the file again.")
        config = host.config_from_host(description)
    except RecipeError as error:  # of an adapter, which does not know the folder
        raise RecipeError(f"{path}{str(error).removeprefix(CONFIG)}" if str(error).startswith(CONFIG) else str(error)) from None
    except ValidationError as error:  # fields that contradict each other
        raise RecipeError(f"{path} does not describe a model: {first_reason(error)}. Correct it, or fetch the file again.") from None
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise RecipeError(f"{path} does not describe a {description['model_type']} model ({error}): correct it, or fetch the file again.") from None
    for field in ("bos_token_id", "eos_token_id"):
        ids = description.get(field)
        largest = max(ids, default=0) if isinstance(ids, list) else ids or 0
        if largest >= config.vocabulary_size:
            raise RecipeError(f"{path}: {field} = {largest} is beyond vocab_size = {config.vocabulary_size}. Correct it, or fetch the file again.")
    if config.mtp_layers and not modules_there(_tensor_names(folder), config):
        config = config.without_mtp
    return host, config, description
