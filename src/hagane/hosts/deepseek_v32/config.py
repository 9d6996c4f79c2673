"""config.json of `deepseek_v32`, both ways, and what a deepseek_v32 cannot hold. Checked against transformers 5.23.

It is deepseek_v3 whose queries always have a latent vector, and whose layers all have an indexer that chooses a fixed number of keys. The
share of the indexer's probability, which makes that number adapt, has no field: an export reads the most keys it allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hagane.errors import RecipeError
from hagane.hosts.base import Host, Json, model_fields, outer_fields, require
from hagane.hosts.deepseek_v3.config import ffn_fields, ffns_from_host, latent_fields, latent_from_host, latent_reason, num_dense_from_host
from hagane.hosts.mtp import modules_from_host, modules_reason
from hagane.hosts.sigmoid import sigmoid_reason
from hagane.model.config import ExpertsConfig, IndexConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.recipe.types import first_reason

NAME, ARCHITECTURE = "deepseek_v32", "DeepseekV32ForCausalLM"


def can_hold(config: ModelConfig) -> str | None:
    if any(layer.post_mixer_norm or layer.post_ffn_norm for layer in config.layers):
        return f"{NAME} has no norm after the mixer or the feed-forward"
    return latent_reason(config, NAME, index=True) or sigmoid_reason(config, NAME, groups=True)


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    mixer = config.layers[0].mixer
    assert isinstance(mixer, LatentConfig) and mixer.index is not None, "can_hold is asked first"
    index = {"index_n_heads": mixer.index.num_heads, "index_head_dim": mixer.index.head_dim, "index_topk": mixer.index.top_k}
    kinds = ["sparse" if isinstance(layer.ffn, ExpertsConfig) else "dense" for layer in config.layers]
    return {**outer_fields(config, ARCHITECTURE, NAME, special), **latent_fields(config), **index, **ffn_fields(config), "mlp_layer_types": kinds}


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    require(host, "q_lora_rank")
    kinds = set(host.get("layer_types") or ()) - {"indexed_attention"}
    if kinds:
        raise RecipeError(f"config.json: layer_types has {sorted(kinds)[0]!r}, which is not supported; a {NAME} has 'indexed_attention' only.")
    index = IndexConfig(num_heads=require(host, "index_n_heads"), head_dim=require(host, "index_head_dim"), top_k=require(host, "index_topk"))
    try:
        mixer = LatentConfig.model_validate({**dict(latent_from_host(host)), "index": index})
    except ValidationError as error:
        raise RecipeError(f"config.json: {first_reason(error)}.") from None
    layers = tuple(LayerConfig(mixer=mixer, ffn=ffn) for ffn in ffns_from_host(host, num_dense_from_host(host, default=3)))
    return ModelConfig(layers=layers, mtp_layers=modules_from_host(host, layers), **model_fields(host))


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host, holds_modules=lambda config: modules_reason(config, NAME))
