"""A trained model from disk: the decoder and its tokenizer, as evaluation and chat need them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from hagane.errors import RunError
from hagane.model.config import ModelConfig
from hagane.model.decoder import Decoder
from hagane.model.initial import to_working

WEIGHTS, MODEL = "weights.safetensors", "model.json"


def load_config(folder: Path) -> ModelConfig:
    """Read `folder/model.json`. Raises RunError where it is missing or damaged."""
    path = folder / MODEL
    try:
        return ModelConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}): training has not finished here. `hagane resume` goes on with it.") from None
    except ValidationError as error:
        raise RunError(f"{path} is not a model description of this version of hagane: {error.errors()[0]['msg']}.") from None


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Read `folder/weights.safetensors`: float32 masters by canonical name. Raises RunError where it is missing or damaged."""
    path = folder / WEIGHTS
    if not path.exists():
        raise RunError(f"{path} is missing: training has not finished here. `hagane resume` goes on with it.")
    return _read(path, "Delete it and run `hagane resume`: training ends again from its last checkpoint.")


def _read(path: Path, remedy: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}). {remedy}") from None
    return tensors


def build_decoder(config: ModelConfig, state: Mapping[str, Tensor], device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Decoder:
    """A decoder with these weights, to compute in `dtype` (norms and routers stay float32). Raises RunError when they do not fit."""
    decoder = Decoder(config, device="meta").to_empty(device=device)
    decoder.reset_state()
    own: dict[str, Tensor] = {**dict(decoder.named_parameters()), **decoder.selection_biases()}
    wrong = sorted(own.keys() ^ state.keys()) or sorted(name for name, tensor in state.items() if tensor.shape != own[name].shape)
    if wrong:
        raise RunError(f"the weights do not belong to this model: {wrong[0]} is missing, unknown or of another shape.")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])
    to_working(decoder, dtype)
    decoder.eval().requires_grad_(False)
    decoder.fuse()
    return decoder


def load_decoder(folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Decoder, ModelConfig]:
    """The model that a training stage left in `folder` (`weights.safetensors`, `model.json`)."""
    config = load_config(folder)
    return build_decoder(config, load_weights(folder), device, dtype), config


def load_huggingface(folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Decoder, ModelConfig]:
    """A checkpoint in a published form (`config.json`, `*.safetensors`): a release of ours, or one of a host's own. Needs no transformers."""
    from hagane.hosts.checkpoint import read_published

    published = read_published(folder)
    return build_decoder(published.config, published.state, device, dtype), published.config


def load_starting(folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Decoder, Tokenizer]:
    """A checkpoint as a run starts from it, before anything is learned: its own tokens, and those special ones of ours that it lacked."""
    from hagane.hosts.checkpoint import read_published
    from hagane.hosts.vocabulary import starting_published, starting_tokenizer

    start = starting_tokenizer(folder)
    published = starting_published(read_published(folder), start)
    return build_decoder(published.config, published.state, device, dtype), start.tokenizer
