"""The only room that knows other people's names: which published architecture can hold a model, and the way there and back.

`HOSTS` and the config side import no torch; `HOSTS[name].weights` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.errors import RecipeError
from hagane.hosts.afmoe.config import HOST as AFMOE
from hagane.hosts.axk1.config import HOST as AXK1
from hagane.hosts.axk2.config import HOST as AXK2
from hagane.hosts.base import Host
from hagane.hosts.deepseek_v3.config import HOST as DEEPSEEK_V3
from hagane.hosts.deepseek_v32.config import HOST as DEEPSEEK_V32
from hagane.hosts.glm4_moe.config import HOST as GLM4_MOE
from hagane.hosts.llama.config import HOST as LLAMA
from hagane.hosts.nearest import nearest
from hagane.hosts.qwen3.config import HOST as QWEN3
from hagane.hosts.qwen3_moe.config import HOST as QWEN3_MOE
from hagane.hosts.qwen3_next.config import HOST as QWEN3_NEXT
from hagane.model.config import LatentConfig, LayerConfig, ModelConfig

HOSTS: dict[str, Host] = {host.name: host for host in (LLAMA, QWEN3, QWEN3_MOE, DEEPSEEK_V3, QWEN3_NEXT, GLM4_MOE, AFMOE, AXK1, DEEPSEEK_V32, AXK2)}


def host_for(config: ModelConfig) -> str:
    """The name of the first host that can hold this model. Raises RecipeError with the nearest one's reason when none can; its notes have every host's."""
    reasons = {}
    for name, host in HOSTS.items():
        reason = host.reason(config)
        if reason is None:
            return name
        reasons[name] = reason
    found, advice = nearest(config, HOSTS.values()), "None is near; begin with a shipped recipe (`hagane recipe list`)."
    if found is not None:
        host, changes = found
        remedy = f" It could with {' and '.join(f'model.pattern.{change}' for change in changes)}." if changes else ""
        advice = f"Nearest: {reasons[host.name]}.{remedy}"
    error = RecipeError(f"No published architecture can hold this model, so no engine but hagane would load it. {advice}")
    for reason in reasons.values():
        error.add_note(reason)  # of a traceback, as --debug shows it
    raise error


def exported_form(config: ModelConfig) -> ModelConfig:
    """What a host computes of a model: itself, but that queries read as many keys as an indexer allows, where ours read fewer when those suffice."""

    def fixed(layer: LayerConfig) -> LayerConfig:
        if not isinstance(layer.mixer, LatentConfig) or layer.mixer.index is None:
            return layer
        return layer.model_copy(update={"mixer": layer.mixer.model_copy(update={"index": layer.mixer.index.model_copy(update={"share": None})})})

    return config.model_copy(update={"layers": tuple(map(fixed, config.layers)), "mtp_layers": tuple(map(fixed, config.mtp_layers))})


def host_of(config_json: Mapping[str, Any]) -> Host:
    """The host that a config.json names. Raises RecipeError when it is not one of ours."""
    model_type = config_json.get("model_type")
    if not isinstance(model_type, str) or model_type not in HOSTS:
        raise RecipeError(f"config.json: model_type {model_type!r} is not supported. hagane reads {', '.join(HOSTS)}.")
    return HOSTS[model_type]
