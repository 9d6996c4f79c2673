"""What hosts have in common: the `Host` type, reasons for refusing, and the fields that llama-like config.json files share.

No torch here. Written for transformers 5 and for what still reads the form before it (vLLM, llama.cpp): rope settings are given
both ways.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from hagane.errors import RecipeError
from hagane.model.config import AttentionConfig, ModelConfig, RopeConfig

if TYPE_CHECKING:
    from hagane.hosts.gguf import Gguf

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """A published architecture that other engines run, and the way there and back.

    `can_hold(config)` is None, or the reason why not in words. `config_to_host(config, special)` is the config.json;
    `special` holds bos_token_id, eos_token_id and pad_token_id where there are any. `config_from_host` reads one and raises
    RecipeError when it asks for what the decoder lacks.
    """

    name: str
    architecture: str
    can_hold: Callable[[ModelConfig], str | None]
    config_to_host: Callable[[ModelConfig, Mapping[str, Any]], Json]
    config_from_host: Callable[[Mapping[str, Any]], ModelConfig]

    @property
    def weights(self) -> ModuleType:
        """The side that needs torch: `weights_to_host(state, config)` and `weights_from_host(tensors, config)`, (name, tensor) pairs."""
        return importlib.import_module(f"hagane.hosts.{self.name}.weights")

    @property
    def gguf(self) -> Gguf | None:
        """How llama.cpp holds it (`GGUF` of `hosts/NAME/gguf.py`; no torch); None where there is no such file: llama.cpp does not know this host."""
        if importlib.util.find_spec(f"hagane.hosts.{self.name}.gguf") is None:
            return None
        found: Gguf = importlib.import_module(f"hagane.hosts.{self.name}.gguf").GGUF
        return found


def differing(values: list[T]) -> int | None:
    """The first layer that is not like layer 0; None when all are alike."""
    return next((index for index, value in enumerate(values) if value != values[0]), None)


def mixer_reason(config: ModelConfig, host: str, *, qk_norm: bool, windows: bool) -> str | None:
    """Why the mixers do not fit a host whose layers are all alike but for windows; None when they do."""
    mixers = [layer.mixer for layer in config.layers]
    odd = differing([mixer.model_copy(update={"window": None}) for mixer in mixers])
    if odd is not None:
        return f"{host} needs the same attention in every layer; layer {odd} differs from layer 0"
    if mixers[0].qk_norm != qk_norm:
        return f"{host} {'always has' if qk_norm else 'has no'} QK-norm"
    distinct = {mixer.window for mixer in mixers if mixer.window is not None}
    if distinct and not windows:
        return f"{host} has no sliding window in every engine that loads it"
    if len(distinct) > 1:
        return f"{host} has one width of sliding window; the layers have {sorted(distinct)}"
    return None


def common_fields(config: ModelConfig, architecture: str, model_type: str, special: Mapping[str, Any]) -> Json:
    """What every llama-like config.json says. Absent special ids are written as null: the readers' defaults are other models' ids."""
    mixer = config.layers[0].mixer
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": mixer.num_heads,
        "num_key_value_heads": mixer.num_kv_heads,
        "head_dim": mixer.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rms_norm_eps": config.norm_epsilon,
        "initializer_range": config.init_std,
        "max_position_embeddings": config.context,
        "rope_theta": mixer.rope.theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": mixer.rope.theta},
        "tie_word_embeddings": config.tied,
        "use_cache": True,
        "bos_token_id": special.get("bos_token_id"),
        "eos_token_id": special.get("eos_token_id"),
        "pad_token_id": special.get("pad_token_id"),
    }


def require(host: Mapping[str, Any], field: str) -> Any:
    """A field without which there is no model."""
    if host.get(field) is None:
        raise RecipeError(f"config.json has no {field}: it does not describe a {host.get('model_type')} model.")
    return host[field]


def refuse(host: Mapping[str, Any], **allowed: Any) -> None:
    """Raise RecipeError when a field that changes the mathematics has another value than the one the decoder computes."""
    for field, value in allowed.items():
        if host.get(field, value) not in (value, None):
            raise RecipeError(f"config.json: {field} = {host[field]!r} is not supported; hagane has {value!r} only.")


def attention_from_host(host: Mapping[str, Any], *, qk_norm: bool, default_head_dim: int | None = None) -> AttentionConfig:
    """The attention of a llama-like config.json. Raises RecipeError for biases, scaled positions and other activations."""
    refuse(host, hidden_act="silu", attention_bias=False, mlp_bias=False, partial_rotary_factor=1.0)
    rope = host.get("rope_parameters") or host.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise RecipeError(f"config.json: rotary positions of kind {kind!r} are not supported; hagane has 'default' only.")
    num_heads = require(host, "num_attention_heads")
    return AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=host.get("num_key_value_heads") or num_heads,
        head_dim=host.get("head_dim") or default_head_dim or require(host, "hidden_size") // num_heads,
        qk_norm=qk_norm,
        rope=RopeConfig(theta=rope.get("rope_theta") or host.get("rope_theta") or 10000.0),
    )


def model_fields(host: Mapping[str, Any]) -> Json:
    """Everything of a ModelConfig but its layers."""
    return {
        "vocabulary_size": require(host, "vocab_size"),
        "width": require(host, "hidden_size"),
        "tied": bool(host.get("tie_word_embeddings", False)),
        "norm_epsilon": host.get("rms_norm_eps", 1e-6),
        "init_std": host.get("initializer_range") or 0.02,
        "context": require(host, "max_position_embeddings"),
    }
