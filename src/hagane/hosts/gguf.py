"""What llama.cpp calls a host: its architecture, the metadata it reads, and tensors that it wants laid out otherwise.

No torch here. Tensors go through the Hugging Face names of the host: the `gguf` package has the table from those to llama.cpp's own,
and what differs beyond names is each host's `adapt`. Checked against llama.cpp through xllamacpp 2026.10.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hagane.errors import RunError
from hagane.hosts.base import Host, as_held, attention
from hagane.model.config import AttentionConfig, ExpertsConfig, ModelConfig, RopeConfig

if TYPE_CHECKING:
    from torch import Tensor

Metadata = dict[str, Any]
SIGMOID = 2  # what turns a router's scores into weights (llama-hparams.h, llama_expert_gating_func_type)
UNWRITTEN = {"deepseek_v32"}  # hosts that llama.cpp knows and the gguf package does not yet
_EXPERT = re.compile(r"(?P<before>.*\.experts)\.\d+\.(?P<matrix>\w+)\.weight")


def _fits(config: ModelConfig) -> str | None:
    return None


def _as_it_is(name: str, tensor: Tensor, config: ModelConfig) -> Iterable[tuple[str, Tensor]]:
    return ((name, tensor),)


@dataclass(frozen=True)
class Gguf:
    """A host as llama.cpp reads it.

    `architecture` is llama.cpp's name for it, `metadata(config)` the keys under `architecture.` (int, float, bool, str or a list of
    them). `reason(config)` says in words, with the field, why llama.cpp cannot hold what the host can; None where it can.
    `adapt(name, tensor, config)` turns one tensor under its Hugging Face name into those to be written, under Hugging Face names too
    (what the converter of llama.cpp calls `modify_tensors`). `float32` names tensors, by an ending of the part after the layer, that are
    used in float32 although they are matrices. `any_yarn`: it can be told DeepSeek's scales of YaRN too.
    """

    architecture: str
    metadata: Callable[[ModelConfig], Metadata]
    reason: Callable[[ModelConfig], str | None] = _fits
    adapt: Callable[[str, Tensor, ModelConfig], Iterable[tuple[str, Tensor]]] = _as_it_is
    float32: tuple[str, ...] = ("ffn_gate_inp.weight",)
    any_yarn: bool = False

    def tensors(self, host_tensors: Iterable[tuple[str, Tensor]], config: ModelConfig) -> Iterator[tuple[str, list[Tensor]]]:
        """(llama.cpp's name, parts): one tensor, or those of all experts, to be stacked. Needs the `gguf` package.

        Raises RunError for a tensor that llama.cpp has no name for in this architecture.
        """
        names = _name_table(self.architecture, config.num_layers)
        parts: dict[str, list[Tensor]] = {}
        for name, tensor in host_tensors:
            for adapted, part in self.adapt(name, tensor, config):
                expert = _EXPERT.fullmatch(adapted)
                parts.setdefault(f"{expert['before']}.{expert['matrix']}.weight" if expert else adapted, []).append(part)
        for name, tensors in parts.items():
            target = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if target is None:
                raise RunError(f"llama.cpp's {self.architecture} has no tensor for {name}: this model cannot be written as GGUF.")
            yield target, tensors


def _name_table(architecture: str, num_layers: int) -> Any:
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in kinds:
        raise RunError(f"the installed gguf package does not know {architecture}. Update it: `pip install -U 'hagane[edge]'`.")
    return gguf.get_tensor_name_map(kinds[architecture], num_layers)


def llama_like(config: ModelConfig, feed_forward: int, mixer: AttentionConfig | None = None) -> Metadata:
    """The keys that every llama-like architecture reads. `feed_forward`: hidden width of a dense layer; `mixer`: the attention of all layers
    that have one, where layer 0 has none."""
    mixer = mixer or attention(config)
    assert mixer.rope is not None, "the hosts of such architectures turn heads"
    return {
        **outer_metadata(config, feed_forward),
        "attention.head_count": mixer.num_heads,
        "attention.head_count_kv": mixer.num_kv_heads,
        "attention.key_length": mixer.head_dim,
        "attention.value_length": mixer.head_dim,
        **rope_metadata(mixer.rope, mixer.rotary_dim),
    }


def outer_metadata(config: ModelConfig, feed_forward: int) -> Metadata:
    """The same without heads, for hosts whose mixers are of another kind."""
    return {
        "vocab_size": config.vocabulary_size,
        "context_length": config.context,
        "embedding_length": config.width,
        "block_count": config.num_layers,
        "feed_forward_length": feed_forward,
        "attention.layer_norm_rms_epsilon": config.norm_epsilon,
    }


def rope_metadata(rope: RopeConfig, rotary_dim: int) -> Metadata:
    """The keys of rotary positions; `rotary_dim` dimensions of a head turn."""
    return {"rope.dimension_count": rotary_dim, "rope.freq_base": rope.theta, **_scaling(rope)}


def _scaling(rope: RopeConfig) -> Metadata:
    """Interpolated positions; scores of YaRN are made sharper by llama.cpp as they are here, without being told."""
    if rope.linear is not None:
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope.linear)}
    if rope.yarn is None:
        return {}
    return {
        "rope.scaling.type": "yarn", "rope.scaling.factor": float(rope.yarn.factor), "rope.scaling.original_context_length": rope.yarn.original_context,
        "rope.scaling.yarn_beta_fast": float(rope.yarn.beta_fast), "rope.scaling.yarn_beta_slow": float(rope.yarn.beta_slow),
    }  # fmt: skip


def experts_metadata(ffn: ExpertsConfig) -> Metadata:
    """The keys of routed experts."""
    return {"expert_count": ffn.num_experts, "expert_used_count": ffn.top_k, "expert_feed_forward_length": ffn.hidden}


def sigmoid_metadata(ffn: ExpertsConfig, num_dense: int) -> Metadata:
    """The keys of sigmoid experts behind `num_dense` dense layers. Groups are named where they leave experts out: llama.cpp takes no others."""
    groups = {"expert_group_count": ffn.num_groups, "expert_group_used_count": ffn.top_groups} if ffn.top_groups < ffn.num_groups else {}
    return {
        **experts_metadata(ffn), **groups, "expert_shared_count": ffn.shared_hidden // ffn.hidden, "leading_dense_block_count": num_dense,
        "expert_gating_func": SIGMOID, "expert_weights_norm": ffn.normalise, "expert_weights_scale": float(ffn.scaling),
    }  # fmt: skip


def biased(name: str, tensor: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Selection biases under the name that the table knows them by."""
    yield name.replace("e_score_correction_bias", "e_score_correction.bias").replace("mlp.expert_bias", "mlp.expert_bias.bias"), tensor


def interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """Rows of a query or key matrix (heads * head_dim, D), in the order of rotary positions that pair neighbours instead of halves.

    llama.cpp's `llama` keeps the order of the original checkpoints; Hugging Face's pairs the halves of a head (its converter's `permute`).
    """
    half = weight.shape[0] // num_heads // 2
    return weight.reshape(num_heads, 2, half, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def metadata_of(gguf: Gguf, config: ModelConfig) -> Mapping[str, Any]:
    """The keys with their full names."""
    return {f"{gguf.architecture}.{key}": value for key, value in gguf.metadata(config).items()}


def missing_tools() -> str | None:
    """What must be installed before a GGUF can be written and proven; None where all is there. Imports nothing heavy."""
    missing = [name for name in ("gguf", "xllamacpp") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: `pip install 'hagane[edge]'`" if missing else None


def unfit(host: Host, config: ModelConfig) -> str | None:
    """Why llama.cpp cannot hold a model that its host can; None where it can."""
    if host.gguf is None:
        if host.name in UNWRITTEN:
            return f"llama.cpp knows {host.name}, but the gguf package, which writes its files, does not yet"
        return f"llama.cpp does not know {host.name}"
    odd = next((index for index, layer in enumerate(config.layers) if _odd_yarn(getattr(layer.mixer, "rope", None))), None)
    if odd is not None and not host.gguf.any_yarn:
        return f"llama.cpp's {host.gguf.architecture} has no scales of YaRN; layer {odd} has mixer.rope.yarn.mscale"
    return host.gguf.reason(as_held(config))


def _odd_yarn(rope: RopeConfig | None) -> bool:
    return rope is not None and rope.yarn is not None and bool(rope.yarn.mscale or rope.yarn.mscale_all_dim)
