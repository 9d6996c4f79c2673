"""config.json of `glm4_moe`, both ways, and what a glm4_moe cannot hold. Checked against transformers 5.23."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.hosts.base import Host, Json, attention, attention_from_host, common_fields, mixer_reason, model_fields, require, rotary_from_host, rotary_share
from hagane.hosts.fields import given
from hagane.hosts.mtp import FIELD, modules_from_host, modules_reason
from hagane.hosts.sigmoid import deepseek_fields, deepseek_from_host, layers_from_host, routed_reason, sigmoid_reason
from hagane.model.config import AttentionConfig, LayerConfig, MixerConfig, ModelConfig

NAME, ARCHITECTURE = "glm4_moe", "Glm4MoeForCausalLM"
ROTARY_SHARE = 0.5  # of a head, where the file does not say


def _whole(layer: LayerConfig) -> LayerConfig:
    """The same layer with whole heads turned: how much of a head turns is free here."""
    rotates = isinstance(layer.mixer, AttentionConfig) and layer.mixer.rope is not None
    return layer.model_copy(update={"mixer": layer.mixer.model_copy(update={"partial_rotary": None})}) if rotates else layer


def can_hold(config: ModelConfig) -> str | None:
    whole = config.model_copy(update={"layers": tuple(_whole(layer) for layer in config.layers)})
    qk_norm = isinstance(config.layers[0].mixer, AttentionConfig) and config.layers[0].mixer.qk_norm
    if len({layer.mixer.rotary_dim for layer in config.layers}) > 1:
        return f"{NAME} turns the same part of each head in every layer"
    ffns = routed_reason(config, NAME) or sigmoid_reason(config, NAME, groups=True)
    return ffns or mixer_reason(whole, NAME, qk_norm=qk_norm, windows=False)


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    mixer = attention(config)
    fields = common_fields(config, ARCHITECTURE, NAME, special)
    return {
        **fields,
        **deepseek_fields(config),
        "use_qk_norm": mixer.qk_norm,
        "partial_rotary_factor": rotary_share(mixer),
        "rope_parameters": {**fields["rope_parameters"], "partial_rotary_factor": rotary_share(mixer)},
        FIELD: len(config.mtp_layers),
        "output_router_logits": False,
    }


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    share, plain = rotary_from_host(host, ROTARY_SHARE)
    mixer: MixerConfig = attention_from_host(plain, qk_norm=bool(host.get("use_qk_norm", False)), rotary_share=share)
    mixers = [mixer] * require(host, "num_hidden_layers")
    num_dense = given(host, "first_k_dense_replace", 1)
    layers = layers_from_host(host, mixers, deepseek_from_host(host), num_dense)
    return ModelConfig(layers=layers, mtp_layers=modules_from_host(host, layers), **model_fields(host))


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host, holds_modules=lambda config: modules_reason(config, NAME))
