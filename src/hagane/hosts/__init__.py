"""The only room that knows other people's names: which published architecture can hold a model, and the way there and back.

`HOSTS` and the config side import no torch; `HOSTS[name].weights` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.errors import RecipeError
from hagane.hosts.axk1.config import HOST as AXK1
from hagane.hosts.base import Host
from hagane.hosts.deepseek_v3.config import HOST as DEEPSEEK_V3
from hagane.hosts.llama.config import HOST as LLAMA
from hagane.hosts.qwen3.config import HOST as QWEN3
from hagane.hosts.qwen3_moe.config import HOST as QWEN3_MOE
from hagane.hosts.qwen3_next.config import HOST as QWEN3_NEXT
from hagane.model.config import ModelConfig

HOSTS: dict[str, Host] = {host.name: host for host in (LLAMA, QWEN3, QWEN3_MOE, DEEPSEEK_V3, QWEN3_NEXT, AXK1)}


def host_for(config: ModelConfig) -> str:
    """The name of the first host that can hold this model. Raises RecipeError with every host's reason when none can."""
    reasons = {}
    for name, host in HOSTS.items():
        reason = host.can_hold(config)
        if reason is None:
            return name
        reasons[name] = reason
    raise RecipeError(f"No published architecture can hold this model, so no engine but hagane would load it: {'; '.join(reasons.values())}.")


def host_of(config_json: Mapping[str, Any]) -> Host:
    """The host that a config.json names. Raises RecipeError when it is not one of ours."""
    model_type = config_json.get("model_type")
    if model_type not in HOSTS:
        raise RecipeError(f"config.json: model_type {model_type!r} is not supported. hagane reads {', '.join(HOSTS)}.")
    return HOSTS[model_type]
