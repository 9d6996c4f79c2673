"""A qwen3_next as llama.cpp reads it: experts in every layer, and a state of Gated DeltaNet that is as wide as it is high.

Its norms hold what values are multiplied with, not what is added to one; its mixer's queries, keys and values stand by part, apart from z.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hagane.hosts.gguf import Gguf, Metadata, experts_metadata, llama_like
from hagane.model.config import AttentionConfig, DeltaConfig, ExpertsConfig, ModelConfig

if TYPE_CHECKING:
    from torch import Tensor


def _deltas(config: ModelConfig) -> list[DeltaConfig]:
    return [layer.mixer for layer in config.layers if isinstance(layer.mixer, DeltaConfig)]


def reason(config: ModelConfig) -> str | None:
    for index, layer in enumerate(config.layers):
        if not isinstance(layer.ffn, ExpertsConfig):
            return f"llama.cpp's qwen3next has experts in every layer; layer {index} has ffn.kind = 'dense'"
        if not layer.ffn.normalise:
            return "llama.cpp's qwen3next divides the weights of the chosen experts by their sum; this model has ffn.normalise = false"
        if isinstance(layer.mixer, DeltaConfig) and layer.mixer.key_dim != layer.mixer.value_dim:
            return f"llama.cpp's qwen3next needs mixer.key_dim = mixer.value_dim; layer {index} has {layer.mixer.key_dim} and {layer.mixer.value_dim}"
    return None if _deltas(config) else "llama.cpp's qwen3next has layers of Gated DeltaNet; this model has none (mixer.kind = 'delta')"


def metadata(config: ModelConfig) -> Metadata:
    attention = next(layer.mixer for layer in config.layers if isinstance(layer.mixer, AttentionConfig))
    ffn, delta = config.layers[0].ffn, _deltas(config)[0]
    assert isinstance(ffn, ExpertsConfig)  # `reason` was asked
    return {
        **llama_like(config, ffn.hidden * ffn.top_k, attention),
        **experts_metadata(ffn),
        "expert_shared_feed_forward_length": ffn.shared_hidden,
        "ssm.conv_kernel": delta.taps,
        "ssm.state_size": delta.key_dim,
        "ssm.group_count": delta.num_key_heads,
        "ssm.time_step_rank": delta.num_value_heads,
        "ssm.inner_size": delta.num_value_heads * delta.value_dim,
        **_order(config),
    }


def _order(config: ModelConfig) -> Metadata:
    """Which layers are of which kind: by the interval that every llama.cpp knows where the order is regular, else one by one."""
    recurrent = [isinstance(layer.mixer, DeltaConfig) for layer in config.layers]
    interval = recurrent.index(False) + 1
    if recurrent == [(index + 1) % interval != 0 for index in range(len(recurrent))]:
        return {"full_attention_interval": interval}
    return {"attention.recurrent_layers": recurrent}


def adapt(name: str, tensor: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    import torch

    from hagane.hosts.qwen3_next.delta import by_part
    from hagane.hosts.qwen3_next.weights import around_zero

    delta = _deltas(config)[0]
    if name.endswith("in_proj_qkvz.weight"):
        mixed, gate = torch.split(by_part(tensor, delta, "qkvz"), [delta.channels, delta.num_value_heads * delta.value_dim])
        yield name.replace("qkvz", "qkv"), mixed
        yield name.replace("qkvz", "z"), gate
    elif name.endswith("A_log"):
        yield name, -tensor.exp()
    elif name.endswith("dt_bias"):
        yield name.replace("dt_bias", "dt_proj.bias"), tensor
    elif name.endswith("conv1d.weight"):
        yield name, tensor[:, 0]
    else:
        yield name, tensor + 1 if around_zero(name) else tensor


GGUF = Gguf("qwen3next", metadata, reason, adapt, float32=("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "ssm_conv1d.weight"))
