"""Of the hosts that cannot hold a model the nearest: the one that could if the fewest settings of its pattern were others. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from hagane.hosts.base import Host
from hagane.model.config import ExpertsConfig, LayerConfig, ModelConfig

MOST_CHANGES = 4  # half a second of trying them out
Change = Callable[[LayerConfig], LayerConfig]


def _mixer(**values: object) -> Change:
    """Of every mixer that has such a field."""

    def changed(layer: LayerConfig) -> LayerConfig:
        own = {name: value for name, value in values.items() if name in type(layer.mixer).model_fields}
        return layer.model_copy(update={"mixer": layer.mixer.model_copy(update=own)})

    return changed


def _experts(values: Callable[[ExpertsConfig], dict[str, object]]) -> Change:
    def changed(layer: LayerConfig) -> LayerConfig:
        return layer.model_copy(update={"ffn": layer.ffn.model_copy(update=values(layer.ffn))}) if isinstance(layer.ffn, ExpertsConfig) else layer

    return changed


def _norms(mixer: bool, ffn: bool, where: Callable[[LayerConfig], bool]) -> Change:
    return lambda layer: layer.model_copy(update={"post_mixer_norm": mixer, "post_ffn_norm": ffn}) if where(layer) else layer


CHANGES: dict[str, Change] = {
    "balance = 'loss'": _experts(lambda ffn: {"balance": "loss"}),
    "score = 'softmax'": _experts(lambda ffn: {"score": "softmax"}),
    "score = 'sigmoid'": _experts(lambda ffn: {"score": "sigmoid"}),
    "scaling = 1": _experts(lambda ffn: {"scaling": 1.0}),
    "normalise = true": _experts(lambda ffn: {"normalise": True}),
    "num_groups = 1": _experts(lambda ffn: {"num_groups": 1, "top_groups": 1}),
    "shared_gate = false": _experts(lambda ffn: {"shared_gate": False}),
    "shared_experts = 0": _experts(lambda ffn: {} if ffn.shared_gate else {"shared_hidden": 0}),
    "shared_experts = 1": _experts(lambda ffn: {"shared_hidden": ffn.shared_hidden or ffn.hidden}),
    "shared_gate = true": _experts(lambda ffn: {"shared_gate": True}),
    "qk_norm = true": _mixer(qk_norm=True),
    "qk_norm = false": _mixer(qk_norm=False),
    "rotary_share = 1": _mixer(partial_rotary=None),
    "window = 0": _mixer(window=None),
    "index_top_k = 0": _mixer(index=None),
    "attention_gate = 'none'": _mixer(gate="none"),
    "attention_gate = 'sigmoid'": _mixer(gate="sigmoid"),
    "sandwich_norms = false": _norms(False, False, lambda layer: layer.post_mixer_norm),
    "post_experts_norm = false": _norms(False, False, lambda layer: not layer.post_mixer_norm),
    "post_experts_norm = true": _norms(False, True, lambda layer: isinstance(layer.ffn, ExpertsConfig)),
    "sandwich_norms = true": _norms(True, True, lambda layer: not layer.post_ffn_norm),
    "gated_norm_rank = 0": lambda layer: layer.model_copy(update={"mixer_norm_rank": None, "ffn_norm_rank": None}),
}
"""By setting of `model.pattern`: what it does to a layer. Those that others need to be off come after what turns these off."""
UNSCALED = "scaled_embedding = false"


def nearest(config: ModelConfig, hosts: Iterable[Host]) -> tuple[Host, tuple[str, ...]] | None:
    """The host and the settings with which it would hold the model; without settings the host that holds most of the layers, each by itself; or None."""
    hosts = tuple(hosts)
    names = [*(name for name in CHANGES if _changed(config, (name,)) != config), *([UNSCALED] if config.embedding_scale != 1.0 else [])]
    for count in range(1, MOST_CHANGES + 1):
        tried = [(chosen, _changed(config, chosen)) for chosen in itertools.combinations(names, count)]
        for host in hosts:
            for chosen, changed in tried:
                if host.reason(changed) is None:
                    return host, chosen
    alone = [config.model_copy(update={"layers": (layer,), "mtp_layers": ()}) for layer in config.layers]
    held = {host: sum(host.reason(one) is None for one in alone) for host in hosts}
    return (max(hosts, key=held.__getitem__), ()) if any(held.values()) else None


def _changed(config: ModelConfig, names: tuple[str, ...]) -> ModelConfig:
    layers = config.layers
    for name in names:
        layers = layers if name == UNSCALED else tuple(map(CHANGES[name], layers))
    return config.model_copy(update={"layers": layers, "embedding_scale": 1.0 if UNSCALED in names else config.embedding_scale})
