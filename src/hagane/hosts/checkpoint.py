"""A published checkpoint from disk: `config.json`, `*.safetensors`, `tokenizer.json`, read whole or refused by the field or tensor at fault.

Nothing is written here, and no tensor is passed over in silence: what the host's adapter did not ask for is an error as well, unless it is listed
there as unused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from hagane.errors import DataError, RunError
from hagane.hosts.base import Host
from hagane.hosts.published import CONFIG, read_config
from hagane.model.config import ModelConfig
from hagane.model.decoder import Decoder
from hagane.tokenizer.bpe import not_byte_level

PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # safetensors' names of types whose numbers are the weights, without a scale elsewhere
INDEX, TOKENIZER, TOKENIZER_CONFIG, TEMPLATE = "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"


@dataclass(frozen=True)
class Published:
    """A checkpoint of a host: `state` holds float32 tensors by our canonical names; `left` names those of the files that the model has no place for."""

    host: Host
    config: ModelConfig
    state: dict[str, Tensor]
    left: tuple[str, ...] = ()


class _Asked(Mapping[str, Tensor]):
    """Tensors by name that remembers which were asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors, self.names = tensors, set[str]()

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        self.names.add(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors


def read_published(folder: Path) -> Published:
    """Read everything. Raises RunError or DataError that names the file or tensor: damaged, missing, left over, of another type or shape, not a number."""
    host, config, _ = read_config(folder)
    tensors = _Asked(_tensors(folder))
    try:
        state = {name: tensor.float() for name, tensor in host.weights.weights_from_host(tensors, config)}
    except DataError as error:  # of an adapter, which does not know the folder
        raise DataError(f"{folder}: {error}") from None
    except (RuntimeError, IndexError) as error:  # parts that cannot be joined, or have too few dimensions
        raise DataError(f"{folder}: the tensors do not have the shapes that {CONFIG} says ({str(error).splitlines()[0]}).") from None
    # a tied head is written by some engines although it is the embedding
    unused = host.unused(set(tensors), config)
    left = sorted(set(tensors) - tensors.names - unused - ({"lm_head.weight"} if config.tied else set()))
    if left:
        many = f"{len(left)} such in all. Fetch {CONFIG} and the weights again, of one model."
        raise DataError(f"{folder}: tensor {left[0]} is not part of a {host.name} as {CONFIG} describes it; {many}")
    with torch.device("meta"):
        decoder = Decoder(config)
    wanted = {name: tensor.shape for name, tensor in [*decoder.named_parameters(), *decoder.selection_biases().items()]}
    assert wanted.keys() == state.keys(), "an adapter gives every tensor of the model"
    for name, tensor in state.items():
        if tensor.shape != wanted[name]:
            raise DataError(f"{folder}: {name} has shape {tuple(tensor.shape)}, and {CONFIG} says {tuple(wanted[name])}. Fetch both again, of one model.")
        if not bool(tensor.isfinite().all()):
            raise DataError(
                f"{folder}: {name} holds values that are not finite numbers: the file is damaged, or training failed. Fetch it again, or take an earlier one."
            )
    return Published(host, config, state, tuple(sorted(unused - tensors.names)))


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer beside the weights. Raises RunError where it is missing, damaged or that of another model."""
    path = folder / TOKENIZER
    if not path.exists():
        raise RunError(f"{path} is missing: the text must be cut as it was when these weights were trained.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise RunError(f"{path} is damaged ({error}).") from None
    reason = not_byte_level(tokenizer)
    if reason is not None:
        raise RunError(f"{path}: {reason}. Only byte-level BPE, which every text comes back from as it was, can be gone on with.")
    _refuse_another_models(path, tokenizer)
    return tokenizer


def _refuse_another_models(path: Path, tokenizer: Tokenizer) -> None:
    """Compare with `config.json` and `tokenizer_config.json` beside it: ids that no row has, ends that are none, far too few ids."""
    _, config, description = read_config(path.parent)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= config.vocabulary_size:
        raise RunError(f"{path} has an id {largest:,}, and {CONFIG} says vocab_size = {config.vocabulary_size:,}: it is the tokenizer of another model.")
    if 2 * (largest + 1) <= config.vocabulary_size:  # padding is a few hundred rows
        raise RunError(f"{path} ends at id {largest:,}, and {CONFIG} says vocab_size = {config.vocabulary_size:,}: it is the tokenizer of another model.")
    ends = description.get("eos_token_id")
    ends = [number for number in (ends if isinstance(ends, list) else [ends]) if number is not None]
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    for number in ends:
        if number not in special:
            raise RunError(f"{path} has no special token {number}, which {CONFIG} gives as eos_token_id: it is the tokenizer of another model.")
    named = read_tokenizer_config(path.parent).get("eos_token")
    token = named.get("content") if isinstance(named, dict) else named
    if token is not None and ends and tokenizer.token_to_id(token) is None:
        raise RunError(f"{path} has no token {token}, which {TOKENIZER_CONFIG} gives as eos_token: it is the tokenizer of another model.")


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json` as it stands; empty where there is none. Raises RunError where it is damaged."""
    path = folder / TOKENIZER_CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): fetch it again.") from None
    if not isinstance(values, dict):
        raise RunError(f"{path} is not a table of settings: fetch it again.")
    return values


def read_chat_template(folder: Path) -> str | None:
    """The chat template that is published with a checkpoint, in a file of its own or among the tokenizer's settings; None where there is none.

    Raises RunError where it is damaged.
    """
    path = folder / TEMPLATE
    if path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}): fetch it again.") from None
    template = read_tokenizer_config(folder).get("chat_template")
    return template if isinstance(template, str) else None


def _tensors(folder: Path) -> dict[str, Tensor]:
    paths = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    if index.exists():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise RunError(f"{index} cannot be read ({error}): fetch it again.") from None
        missing = sorted(named - {path.name for path in paths})
        if missing:
            raise RunError(f"{folder / missing[0]} is missing, and {INDEX} names it: fetch it again.")
        paths = [path for path in paths if path.name in named]
    if not paths:
        raise RunError(
            f"{folder} has no *.safetensors file: this is not a complete Hugging Face folder. Fetch the weights in that format; others, such as "
            "pytorch_model.bin, are not read."
        )
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (it is no mapping)
                    if name in tensors:
                        raise DataError(f"{path}: tensor {name} is in another file of the folder as well; only one can be meant.")
                    if (dtype := file.get_slice(name).get_dtype()) not in PLAIN:
                        raise DataError(f"{path}: tensor {name} is of type {dtype}; hagane reads {', '.join(PLAIN.values())}: take one of these.")
                    tensors[name] = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise RunError(f"{path} is damaged or ends too early ({error}): fetch it again.") from None
    return tensors
