"""config.json of `axk2`, both ways, and what an axk2 cannot hold. Checked against transformers 5.23.

It is deepseek_v32 with an output gate on attention, made with the queries, and a gate on the norm before every mixer and before experts, not before
dense feed-forwards. Experts of one group are written without groups, as the smaller of the two published models has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hagane.hosts.base import Host, Json, require
from hagane.hosts.deepseek_v3.config import latent_reason
from hagane.hosts.deepseek_v32 import config as deepseek_v32
from hagane.hosts.sigmoid import sigmoid_reason
from hagane.model.config import ExpertsConfig, ModelConfig

NAME, ARCHITECTURE = "axk2", "AXK2ForCausalLM"
_OTHERS = ("first_k_dense_replace", "moe_layer_freq", "num_nextn_predict_layers")  # of DeepSeek's files; here mlp_layer_types says it


def can_hold(config: ModelConfig) -> str | None:
    reason = latent_reason(config, NAME, index=True, gate=True) or sigmoid_reason(config, NAME, groups=True)
    if reason is not None:
        return reason
    rank = config.layers[0].mixer_norm_rank
    for index, layer in enumerate(config.layers):
        if layer.post_mixer_norm or layer.post_ffn_norm:
            return f"{NAME} has no norm after the mixer or the feed-forward"
        if rank is None or layer.mixer_norm_rank != rank or layer.ffn_norm_rank != (rank if isinstance(layer.ffn, ExpertsConfig) else None):
            return f"{NAME} has gates of one rank on its norms before mixers and experts, and on no others; layer {index} does not"
    return None


def config_to_host(config: ModelConfig, special: Mapping[str, Any]) -> Json:
    written = deepseek_v32.config_to_host(config, special)
    groups = {"n_group": None, "topk_group": None} if written["n_group"] == 1 else {}
    own = {"architectures": [ARCHITECTURE], "model_type": NAME, "gated_norm_rank": config.layers[0].mixer_norm_rank, **groups}
    return {name: value for name, value in (written | own).items() if name not in _OTHERS}


def config_from_host(host: Mapping[str, Any]) -> ModelConfig:
    rank = require(host, "gated_norm_rank")
    plain = deepseek_v32.config_from_host({"first_k_dense_replace": 1, **host})
    gated = {"mixer": plain.layers[0].mixer.model_copy(update={"gate": "sigmoid"}), "mixer_norm_rank": rank}
    layers = (layer.model_copy(update={**gated, "ffn_norm_rank": rank if isinstance(layer.ffn, ExpertsConfig) else None}) for layer in plain.layers)
    return plain.model_copy(update={"layers": tuple(layers), "mtp_layers": ()})


HOST = Host(NAME, ARCHITECTURE, can_hold, config_to_host, config_from_host, gates_norms=True)
