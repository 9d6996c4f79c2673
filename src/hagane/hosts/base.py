"""What hosts have in common: the `Host` type, reasons for refusing, and the fields that llama-like config.json files share.

No torch here. Written for transformers 5 and for what still reads the form before it (vLLM, llama.cpp): rope settings are given
both ways.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from hagane.errors import RecipeError
from hagane.model.config import AttentionConfig, DenseConfig, ExpertsConfig, LayerConfig, ModelConfig, RopeConfig, YarnConfig

if TYPE_CHECKING:
    from hagane.hosts.gguf import Gguf

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """A published architecture that other engines run, and the way there and back.

    `can_hold(config)` is None, or the reason why not in words. `config_to_host(config, special)` is the config.json;
    `special` holds bos_token_id, eos_token_id and pad_token_id where there are any. `config_from_host` reads one and raises
    RecipeError when it asks for what the decoder lacks. `unused(names, config)` are those of a checkpoint's tensors that are known and not
    read; every other that is left over is an error.
    """

    name: str
    architecture: str
    can_hold: Callable[[ModelConfig], str | None]
    config_to_host: Callable[[ModelConfig, Mapping[str, Any]], Json]
    config_from_host: Callable[[Mapping[str, Any]], ModelConfig]
    scales_embedding: bool = False  # `can_hold` judges a scale of embeddings itself
    gates_norms: bool = False  # likewise gated norms
    holds_modules: Callable[[ModelConfig], str | None] | None = None  # why not those for multi-token prediction; None where it never does
    unused: Callable[[Set[str], ModelConfig], set[str]] = lambda names, config: set()

    def reason(self, config: ModelConfig) -> str | None:
        """Why it cannot hold a model; None when it can. `can_hold`, after what nearly all hosts lack."""
        if config.embedding_scale != 1.0 and not self.scales_embedding:
            return f"{self.name} does not scale embeddings"
        if not self.gates_norms and any(layer.mixer_norm_rank or layer.ffn_norm_rank for layer in config.layers):
            return f"{self.name} has no gates on its norms"
        return self.can_hold(as_held(config))

    def modules_reason(self, config: ModelConfig) -> str | None:
        """Why the modules for multi-token prediction must be left out, whatever becomes of the rest; None where they stay or there are none."""
        if not config.mtp_layers:
            return None
        return f"{self.name} has no place for modules for multi-token prediction" if self.holds_modules is None else self.holds_modules(config)

    def held(self, config: ModelConfig) -> ModelConfig:
        """What it holds of a model: all, or all but these modules. To be given to everything that writes."""
        return config if self.modules_reason(config) is None else config.without_mtp

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


def as_held(config: ModelConfig) -> ModelConfig:
    """The model as a host holds it: null experts as experts of zeros, which give the same and are computed. Its weights: `null.as_held`."""

    def plain(layer: LayerConfig) -> LayerConfig:
        if not isinstance(layer.ffn, ExpertsConfig) or not layer.ffn.null_experts:
            return layer
        held = {"num_experts": layer.ffn.num_outputs, "null_experts": 0, "mean_experts": None}
        return layer.model_copy(update={"ffn": layer.ffn.model_copy(update=held)})

    return config.model_copy(update={"layers": tuple(map(plain, config.layers)), "mtp_layers": tuple(map(plain, config.mtp_layers))})


def differing(values: list[T]) -> int | None:
    """The first layer that is not like layer 0; None when all are alike."""
    return next((index for index, value in enumerate(values) if value != values[0]), None)


def routed_of(config: ModelConfig) -> list[ExpertsConfig]:
    return [layer.ffn for layer in config.layers if isinstance(layer.ffn, ExpertsConfig)]


def dense_of(config: ModelConfig) -> list[DenseConfig]:
    return [layer.ffn for layer in config.layers if isinstance(layer.ffn, DenseConfig)]


def attention(config: ModelConfig, index: int = 0) -> AttentionConfig:
    """The mixer of a layer of a model that a host with grouped-query attention holds."""
    mixer = config.layers[index].mixer
    assert isinstance(mixer, AttentionConfig), "can_hold is asked first"
    return mixer


def foreign_mixer(config: ModelConfig, host: str) -> str | None:
    """Why a host with grouped-query attention alone cannot hold the mixers: some are of another kind. None when none is."""
    odd = next((index for index, layer in enumerate(config.layers) if not isinstance(layer.mixer, AttentionConfig)), None)
    return None if odd is None else f"{host} has grouped-query attention only; layer {odd} has a mixer of kind {config.layers[odd].mixer.kind}"


def plain_reason(config: ModelConfig, host: str) -> str | None:
    """Why a model does not fit a host of plain blocks: two norms, whole heads turned, values as they were mixed. None when it does."""
    if any(layer.post_mixer_norm or layer.post_ffn_norm for layer in config.layers):
        return f"{host} has no norm after the mixer or the feed-forward"
    mixers = [attention(config, index) for index in range(config.num_layers)]
    if any(mixer.gate != "none" for mixer in mixers):
        return f"{host} has no output gate on attention"
    if any(mixer.rotary_dim != mixer.head_dim for mixer in mixers):
        return f"{host} turns whole heads by their positions, in every layer"
    return None


def mixer_reason(config: ModelConfig, host: str, *, qk_norm: bool, windows: bool) -> str | None:
    """Why blocks and mixers do not fit a host of plain blocks that are all alike but for windows; None when they do."""
    reason = foreign_mixer(config, host) or plain_reason(config, host)
    if reason is not None:
        return reason
    mixers = [attention(config, index) for index in range(config.num_layers)]
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
    mixer = attention(config)
    heads = {"num_attention_heads": mixer.num_heads, "num_key_value_heads": mixer.num_kv_heads, "head_dim": mixer.head_dim}
    return {**outer_fields(config, architecture, model_type, special), **heads}


def outer_fields(config: ModelConfig, architecture: str, model_type: str, special: Mapping[str, Any]) -> Json:
    """The same without heads, for hosts whose mixers are of another kind."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rms_norm_eps": config.norm_epsilon,
        "initializer_range": config.init_std,
        "max_position_embeddings": config.context,
        **rope_fields(rope_of(config)),
        "tie_word_embeddings": config.tied,
        "use_cache": True,
        "bos_token_id": special.get("bos_token_id"),
        "eos_token_id": special.get("eos_token_id"),
        "pad_token_id": special.get("pad_token_id"),
    }


def rope_of(config: ModelConfig) -> RopeConfig:
    """The rotary positions of the first layer that has them; the default where none does."""
    return next((layer.mixer.rope for layer in config.layers if layer.mixer.rope is not None), RopeConfig())


def rope_fields(rope: RopeConfig) -> Json:
    """Rotary positions as transformers 5 reads them, and as what came before it does.

    Positions extended by a larger base (NTK-aware) are plain ones with that base. `dynamic` is never written: its base goes with the
    length of each text, so that it equals no model of ours, and its own cache holds keys that were turned with another base.
    """
    if rope.linear is not None:
        linear = {"rope_type": "linear", "factor": rope.linear}
        return {"rope_theta": rope.theta, "rope_parameters": {**linear, "rope_theta": rope.theta}, "rope_scaling": {**linear, "type": "linear"}}
    if rope.yarn is None:
        return {"rope_theta": rope.theta, "rope_parameters": {"rope_type": "default", "rope_theta": rope.theta}}
    yarn = rope.yarn
    settings: Json = {
        "rope_type": "yarn", "factor": yarn.factor, "original_max_position_embeddings": yarn.original_context,
        "beta_fast": yarn.beta_fast, "beta_slow": yarn.beta_slow,
    }  # fmt: skip
    settings |= {name: value for name, value in (("mscale", yarn.mscale), ("mscale_all_dim", yarn.mscale_all_dim)) if value}
    return {"rope_theta": rope.theta, "rope_parameters": {**settings, "rope_theta": rope.theta}, "rope_scaling": {**settings, "type": "yarn"}}


def rope_from_host(host: Mapping[str, Any]) -> RopeConfig:
    """Rotary positions of a config.json in either form. Raises RecipeError where they are scaled in a way the decoder lacks."""
    settings = host.get("rope_parameters") or host.get("rope_scaling") or {}
    kind = settings.get("rope_type", settings.get("type", "default"))
    theta = settings.get("rope_theta") or host.get("rope_theta") or 10000.0
    if kind == "default":
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig(theta=theta, linear=require(settings, "factor"))
    if kind != "yarn":
        raise RecipeError(f"config.json: rotary positions of kind {kind!r} are not supported; hagane has 'default', 'linear' and 'yarn' only.")
    refuse(settings, attention_factor=None, truncate=True)
    original = settings.get("original_max_position_embeddings") or require(host, "max_position_embeddings")
    given = {ours: settings[ours] for ours in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim") if settings.get(ours)}
    return RopeConfig(theta=theta, yarn=YarnConfig(factor=require(settings, "factor"), original_context=original, **given))


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


def rotary_share(mixer: AttentionConfig) -> float:
    """The share of a head from which transformers gets the number of dimensions that turn, rounding down."""
    share = mixer.rotary_dim / mixer.head_dim
    return share if int(mixer.head_dim * share) == mixer.rotary_dim else math.nextafter(share, 1.0)


def rotary_from_host(host: Mapping[str, Any], default: float) -> tuple[float, Json]:
    """The share of a head that turns, and the same file without it."""
    plain = dict(host)
    share = plain.pop("partial_rotary_factor", None)
    for field in ("rope_parameters", "rope_scaling"):
        if host.get(field):
            plain[field] = dict(host[field])
            share = plain[field].pop("partial_rotary_factor", None) or share
    return default if share is None else share, plain


def attention_from_host(
    host: Mapping[str, Any], *, qk_norm: bool, default_head_dim: int | None = None, rotary_share: float | None = None
) -> AttentionConfig:
    """The attention of a llama-like config.json. Raises RecipeError for biases, scaled positions and other activations."""
    refuse(host, hidden_act="silu", attention_bias=False, mlp_bias=False, partial_rotary_factor=1.0)
    refuse(host.get("rope_parameters") or host.get("rope_scaling") or {}, partial_rotary_factor=1.0)
    num_heads = require(host, "num_attention_heads")
    head_dim = host.get("head_dim") or default_head_dim or require(host, "hidden_size") // num_heads
    rotary_dim = head_dim if rotary_share is None else int(head_dim * rotary_share)
    return AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=host.get("num_key_value_heads") or num_heads,
        head_dim=head_dim,
        partial_rotary=None if rotary_dim == head_dim else rotary_dim,
        qk_norm=qk_norm,
        rope=rope_from_host(host),
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
