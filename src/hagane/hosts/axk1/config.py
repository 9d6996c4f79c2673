"""config.json of `axk1`, both ways, and what an axk1 cannot hold. Checked against transformers 5.23.

It is deepseek_v3 whose queries always have a latent vector, and whose routed layers, not the dense ones, norm what the experts add.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from hagane.hosts.base import Host, Json, model_fields, outer_fields, require
from hagane.hosts.deepseek_v3.config import ffn_fields, ffns_from_host, latent_fields, latent_from_host, latent_reason, num_dense_from_host
from hagane.hosts.mtp import names_of_modules
from hagane.hosts.sigmoid import sigmoid_reason
from hagane.model.config import ExpertsConfig, LatentConfig, LayerConfig, ModelConfig

NAME, ARCHITECTURE = "axk1", "AXK1ForCausalLM"


def can_hold(config: ModelConfig) -> str | None:
    reason = latent_reason(config, NAME) or sigmoid_reason(config, NAME, groups=True)
    if reason is not None:
        return reason
    mixer = config.layers[0].mixer
    if isinstance(mixer, LatentConfig) and mixer.query_rank is None:
        return f"{NAME} makes queries from a latent vector; this model has none (query_rank)"
    for index, layer in enumerate(config.layers):
        if layer.post_mixer_norm or layer.post_ffn_norm != isinstance(layer.ffn, ExpertsConfig):
            return f"{NAME} has a norm after the experts and nowhere else after a mixer or feed-forward; layer {index} does not"
    return None


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    return {**outer_fields(config, ARCHITECTURE, NAME, special), **latent_fields(config), **ffn_fields(config)}


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    require(host, "q_lora_rank")
    mixer = latent_from_host(host)
    ffns = ffns_from_host(host, num_dense_from_host(host, default=1))
    layers = tuple(LayerConfig(mixer=mixer, ffn=ffn, post_ffn_norm=isinstance(ffn, ExpertsConfig)) for ffn in ffns)
    return ModelConfig(layers=layers, **model_fields(host))


def unused(names: Set[str], config: ModelConfig) -> set[str]:
    """Norms that published files hold of dense layers too, which no engine computes with, and modules for multi-token prediction."""
    dense = [index for index, layer in enumerate(config.layers) if not layer.post_ffn_norm]
    norms = {f"model.layers.{index}.{part}post_mlp_layernorm.weight" for index in dense for part in ("", "mlp.")}  # published, in transformers' memory
    return norms | names_of_modules(names, config)


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host, unused=unused)
