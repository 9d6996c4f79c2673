"""Modules for multi-token prediction as DeepSeek's checkpoints store them: layers behind the last one, `num_nextn_predict_layers` of them.

Beside their block's tensors such layers have `enorm`, `hnorm`, `eh_proj` and `shared_head.norm`, and the model's embedding and head once
more, which they share. transformers passes them over when it loads the model and reads them for `generate(use_mtp=True)`, vLLM for
speculative decoding. Both build each as a routed layer like the last one. No torch at import.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any

from hagane.errors import DataError
from hagane.model.config import ExpertsConfig, LayerConfig, ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

FIELD = "num_nextn_predict_layers"
_JOINTS = {"embedding_norm": "enorm", "hidden_norm": "hnorm", "projection": "eh_proj", "norm": "shared_head.norm"}
_SHARED = {"embed_tokens": "model.embed_tokens.weight", "shared_head.head": "lm_head.weight"}


def modules_reason(config: ModelConfig, host: str) -> str | None:
    """Why the modules of a model do not fit a host of this form; None when they do."""
    last = config.layers[-1]
    if not isinstance(last.ffn, ExpertsConfig) or any(layer != last for layer in config.mtp_layers):
        return f"{host} has routed layers like its last one as modules for multi-token prediction"
    return None


def modules_from_host(host: Mapping[str, Any], layers: tuple[LayerConfig, ...]) -> tuple[LayerConfig, ...]:
    """The blocks of the modules that a config.json speaks of."""
    return layers[-1:] * (host.get(FIELD) or 0) if isinstance(layers[-1].ffn, ExpertsConfig) else ()


def modules_there(names: Iterable[str], config: ModelConfig) -> bool:
    """Whether any of these tensors is of a module: models written anew by transformers keep the number and lose the weights."""
    return any(name.startswith(f"model.layers.{config.num_layers}.") for name in names)


def names_of_modules(names: Set[str], config: ModelConfig) -> set[str]:
    """Those of these tensors that are of modules. A layer too many, which lacks what joins a module to the model, is none."""
    found, index = set[str](), config.num_layers
    while f"model.layers.{index}.{_JOINTS['projection']}.weight" in names:
        found |= {name for name in names if name.startswith(f"model.layers.{index}.")}
        index += 1
    return found


def unrolled(config: ModelConfig) -> ModelConfig:
    """The blocks of the modules as further layers."""
    return config.model_copy(update={"layers": config.layers + config.mtp_layers, "mtp_layers": ()})


def unrolled_state(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The same in a model's weights."""
    return {_renamed(name, {f"mtp.{k}.block.": f"layers.{config.num_layers + k}." for k in range(len(config.mtp_layers))}): x for name, x in state.items()}


def held_state(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The weights of a model without those of modules that `config`, what a host holds of it, has not."""
    return {name: tensor for name, tensor in state.items() if config.mtp_layers or not name.startswith("mtp.")}


def rolled(weights: Iterable[tuple[str, Tensor]], config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Weights of the unrolled model under the names of ours."""
    names = {f"layers.{config.num_layers + k}.": f"mtp.{k}.block." for k in range(len(config.mtp_layers))}
    for name, tensor in weights:
        yield _renamed(name, names), tensor


def _renamed(name: str, beginnings: Mapping[str, str]) -> str:
    return next((new + name.removeprefix(old) for old, new in beginnings.items() if name.startswith(old)), name)


def joints_to_host(state: Mapping[str, Tensor], config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """What the modules have beside their blocks, and what they share with the model."""
    shared = {"embed_tokens": state["embedding.weight"], "shared_head.head": state["embedding.weight" if config.tied else "head.weight"]}
    for k in range(len(config.mtp_layers)):
        theirs = f"model.layers.{config.num_layers + k}."
        for ours, name in _JOINTS.items():
            yield f"{theirs}{name}.weight", state[f"mtp.{k}.{ours}.weight"]
        for name, tensor in shared.items():
            yield f"{theirs}{name}.weight", tensor


def joints_from_host(tensors: Mapping[str, Tensor], config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """The way back. Raises DataError for modules with an embedding or head of their own, which ours have not."""
    from hagane.hosts.blocks import take

    for k in range(len(config.mtp_layers)):
        theirs = f"model.layers.{config.num_layers + k}."
        for ours, name in _JOINTS.items():
            yield f"mtp.{k}.{ours}.weight", take(tensors, f"{theirs}{name}.weight")
        for name, model in _SHARED.items():
            own = f"{theirs}{name}.weight"
            whole = "model.embed_tokens.weight" if config.tied else model
            if own in tensors and not bool((tensors[own] == take(tensors, whole)).all()):
                raise DataError(f"{own} is not the same as {whole}: a module for multi-token prediction with one of its own is not supported.")
