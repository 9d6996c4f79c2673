"""The decoder: embedding, blocks of mixer and feed-forward, final norm, head. It returns hidden states, never logits."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hagane.kernels import delta_step, elementwise, routing
from hagane.model.attention import Attention
from hagane.model.cache import Cache
from hagane.model.clamp import Clamp
from hagane.model.config import AttentionConfig, ExpertsConfig, LayerConfig, MixerConfig, ModelConfig, RopeConfig
from hagane.model.delta import Delta
from hagane.model.dense import Dense
from hagane.model.experts import Experts
from hagane.model.head import Head
from hagane.model.indexer import Indexer, IndexStats
from hagane.model.initial import draw
from hagane.model.layer_cache import LayerCache
from hagane.model.linear import Embedding
from hagane.model.mixer import build_mixer, takes_first
from hagane.model.mtp import MtpModule, later, shifted
from hagane.model.norm import RMSNorm, layer_norm_of
from hagane.model.rope import rotation
from hagane.model.router import Router, RouterStats, Stats
from hagane.model.sequence import PADDING, Sequence, View, document_mask, first_visible
from hagane.recipe.types import IndexMode


@dataclass
class Outputs:
    """Hidden states (B, T, D) after the final norm, and the statistics of every layer's router and indexer.

    `further`: those of the modules for multi-token prediction where they were asked for, whose statistics then follow the layers'.
    """

    hidden_BTD: Tensor
    stats: Stats
    further: list[Tensor] = field(default_factory=list)


class Block(nn.Module):
    """hidden + mixer(norm(hidden)), then hidden + ffn(norm(hidden)). The unit that is compiled, checkpointed and sharded.

    Where the layer asks for it, what the mixer or the feed-forward adds is normed first.
    """

    def __init__(self, config: ModelConfig, layer: LayerConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.mixer_norm = layer_norm_of(config.width, config.norm_epsilon, layer.mixer_norm_rank, device)
        self.mixer = build_mixer(config.width, layer.mixer, config.norm_epsilon, device)
        self.post_mixer_norm = RMSNorm(config.width, config.norm_epsilon, device) if layer.post_mixer_norm else None
        self.ffn_norm = layer_norm_of(config.width, config.norm_epsilon, layer.ffn_norm_rank, device)
        self.post_ffn_norm = RMSNorm(config.width, config.norm_epsilon, device) if layer.post_ffn_norm else None
        self.ffn = Experts(config.width, layer.ffn, device) if isinstance(layer.ffn, ExpertsConfig) else Dense(config.width, layer.ffn, device)

    def forward(self, hidden_BTD: Tensor, view: View, cache: LayerCache | None = None) -> tuple[Tensor, RouterStats | None, IndexStats | None]:
        mixed_BTD, index_stats = self.mixer(self.mixer_norm(hidden_BTD), view, cache)
        if self.post_mixer_norm is not None:
            mixed_BTD = self.post_mixer_norm(mixed_BTD)
        hidden_BTD, normed_BTD = self.ffn_norm.after_adding(hidden_BTD, mixed_BTD)
        stats = None
        if isinstance(self.ffn, Experts):
            output_BTD, stats = self.ffn(normed_BTD, view.real_BT)
        else:
            output_BTD = self.ffn(normed_BTD)
        if self.post_ffn_norm is not None:
            output_BTD = self.post_ffn_norm(output_BTD)
        return hidden_BTD + output_BTD, stats, index_stats


def kernels_serve(layer: LayerConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether kernels of our own do everything between the matrix products of such a layer, so that nothing is left for the compiler."""
    mixer, ffn = layer.mixer, layer.ffn
    plain = isinstance(mixer, AttentionConfig) and mixer.rope is not None and mixer.gate == "none"
    plain = plain and layer.mixer_norm_rank is None and layer.ffn_norm_rank is None
    if isinstance(ffn, ExpertsConfig):
        plain = plain and not ffn.shared_gate and _routing_serves(ffn, device, dtype)
    return plain and takes_first(mixer, device, dtype) and elementwise.serves(device, dtype)


def _routing_serves(ffn: ExpertsConfig, device: torch.device, dtype: torch.dtype) -> bool:
    return ffn.num_groups == 1 and not ffn.null_experts and ffn.entropy_clamp is None and routing.serves(device, dtype)


def needs_compiler(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `Decoder.compile_parts` leaves anything to the compiler."""
    return not elementwise.serves(device, dtype) or not all(kernels_serve(layer, device, dtype) for layer in (*config.layers, *config.mtp_layers))


def _fuse(part: nn.Module, layer: LayerConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Let kernels do what stands between the matrix products, where they serve."""
    for module in part.modules():
        if isinstance(module, Experts):
            if isinstance(layer.ffn, ExpertsConfig) and _routing_serves(layer.ffn, device, dtype):
                module.fuse()
        elif isinstance(module, Attention):
            module.fused = takes_first(layer.mixer, device, dtype)
        elif isinstance(module, Delta):
            module.fused = delta_step.serves(device, dtype)
        elif isinstance(module, Dense | RMSNorm):
            module.fused = True


class Decoder(nn.Module):
    """A model built from its configuration, on one device. Nothing is initialised until `init_weights`, or `reset_state` and a load.

    Parameter names are canonical: `embedding.weight`, `layers.{i}.mixer_norm.weight`, `layers.{i}.mixer.{qkv,output}.weight`,
    `layers.{i}.mixer.{query,key}_norm.weight`, `layers.{i}.mixer.gate.weight`, `layers.{i}.ffn_norm.weight`,
    `layers.{i}.post_{mixer,ffn}_norm.weight`, `layers.{i}.ffn.{gate_up,down}.weight` (dense) or
    `layers.{i}.ffn.{gate_up,down}`, `layers.{i}.ffn.router.weight`, `layers.{i}.ffn.shared.{gate_up,down}.weight` and
    `layers.{i}.ffn.shared_gate.weight` (experts), `norm.weight`, `head.weight` (untied). A gated norm has
    `layers.{i}.{mixer,ffn}_norm.{norm,down,up}.weight`.
    A mixer of another kind names its own parameters below `layers.{i}.mixer`. A module for multi-token prediction has
    `mtp.{k}.{embedding_norm,hidden_norm,projection,norm}.weight` and under `mtp.{k}.block` what a layer has.
    """

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.vocabulary_size, config.width, device)
        self.layers = nn.ModuleList(Block(config, layer, device) for layer in config.layers)
        self.norm = RMSNorm(config.width, config.norm_epsilon, device)
        self.head = Head(config.vocabulary_size, config.width, self.embedding if config.tied else None, device)
        self.mtp = nn.ModuleList(MtpModule(config, Block(config, layer, device), device) for layer in config.mtp_layers)

    def forward(self, token_BT: Tensor, sequence: Sequence, cache: Cache | None = None, *, further: bool = False) -> Outputs:
        """Hidden states of the tokens; with a cache, of new tokens that continue its rows (and are appended to it).

        `further`: the modules for multi-token prediction run as well. They see whole rows: not together with a cache.
        """
        views, new_length_B = self._views(sequence, cache, self.config.layers + (self.config.mtp_layers if further else ()))
        embedded_BTD = self.embedding(token_BT)
        hidden_BTD = embedded_BTD if self.config.embedding_scale == 1.0 else embedded_BTD * self.config.embedding_scale
        stats = Stats([])
        for index, (block, layer) in enumerate(zip(self.layers, self.config.layers, strict=True)):
            hidden_BTD, router_stats, index_stats = block(hidden_BTD, views[layer.mixer], cache.layers[index] if cache is not None else None)
            stats.layers.append(router_stats)
            stats.indexers.append(index_stats)
        if cache is not None:
            cache.length_B = new_length_B
        outputs = Outputs(self.norm(hidden_BTD), stats)
        if further:
            assert cache is None, "with a cache, drafts are made by `draft`"
            self._predict_further(outputs, embedded_BTD, sequence.document_BT, views)
        return outputs

    def _predict_further(self, outputs: Outputs, embedded_BTD: Tensor, document_BT: Tensor, views: dict[MixerConfig, View]) -> None:
        """Run the modules one after another. The last tokens of a document, which nothing follows, count in no statistics and no loss.

        What they get instead of an embedding, that of another document, is therefore seen by nobody: tokens after them see nothing of theirs.
        """
        hidden_BTD = outputs.hidden_BTD
        for offset, (module, layer) in enumerate(zip(self.mtp, self.config.mtp_layers, strict=True), start=1):
            _, there_BT = later(document_BT, document_BT, offset)
            view = views[layer.mixer]._replace(real_BT=there_BT.float())
            hidden_BTD, router_stats, index_stats = module(hidden_BTD, shifted(embedded_BTD, offset), view)
            outputs.further.append(hidden_BTD)
            outputs.stats.layers.append(router_stats)
            outputs.stats.indexers.append(index_stats)

    def draft(self, hidden_BTD: Tensor, token_BT: Tensor, sequence: Sequence, cache: Cache) -> Tensor:
        """Hidden states (B, T, D) from which the head predicts the token after `token_BT`, each the token after those of `hidden_BTD`.

        By the first module for multi-token prediction; `cache` is its own (`new_draft_cache`).
        """
        layer = self.config.mtp_layers[0]
        views, new_length_B = self._views(sequence, cache, (layer,))
        drafted_BTD: Tensor = self.mtp[0](hidden_BTD, self.embedding(token_BT), views[layer.mixer], cache.layers[0])[0]
        cache.length_B = new_length_B
        return drafted_BTD

    @torch.no_grad()
    def _views(self, sequence: Sequence, cache: Cache | None, layers: tuple[LayerConfig, ...]) -> tuple[dict[MixerConfig, View], list[int]]:
        """One view per kind of mixer in these layers, and the new lengths of the cache's rows."""
        real_BT = (sequence.document_BT != PADDING).float()
        new_length_B = cache.place(sequence) if cache is not None else []
        weight = self.embedding.weight

        @functools.cache
        def turned(rotary_dim: int, rope: RopeConfig) -> tuple[Tensor, Tensor]:
            return rotation(sequence.position_BT, rotary_dim, rope)

        views: dict[MixerConfig, View] = {}
        for index, mixer in enumerate(layer.mixer for layer in layers):
            if mixer in views:
                continue
            cosine, sine = turned(mixer.rotary_dim, mixer.rope) if mixer.rope is not None else (None, None)
            if cache is not None:
                views[mixer] = View(cosine, sine, real_BT, None, cache.layers[index].mask(real_BT, mixer.window))
            elif takes_first(mixer, weight.device, weight.dtype):
                views[mixer] = View(cosine, sine, real_BT, first_visible(sequence, mixer.window), None)
            else:
                views[mixer] = View(cosine, sine, real_BT, None, document_mask(sequence, mixer.window))
        return views, new_length_B

    def new_cache(self, rows: int, length: int, dtype: torch.dtype | None = None, *, ahead: int = 0) -> Cache:
        """An empty cache for `rows` sequences of up to `length` tokens, where the weights are; dtype defaults to theirs.

        `ahead`: how many tokens of a forward pass may be taken back.
        """
        return Cache(self.config, rows, length, dtype or self.embedding.weight.dtype, self.embedding.weight.device, ahead=ahead)

    def new_draft_cache(self, rows: int, length: int) -> Cache:
        """The same for `draft`, which adds only tokens that stay."""
        return Cache(self.config.draft_block, rows, length, self.embedding.weight.dtype, self.embedding.weight.device)

    def fuse(self) -> None:
        """Decode faster on a CPU: by kernels of our own, where they serve. Nothing is compiled but they, once per machine."""
        device, dtype = self.embedding.weight.device, self.embedding.weight.dtype
        if elementwise.serves(device, dtype):
            for block, layer in self._blocks():
                _fuse(block, layer, device, dtype)
            self.norm.fused = True

    def build_products(self, num_tokens: int) -> None:
        """Once for all equal experts: `Experts.build_products`."""
        known = {module.gate_up.shape: module for module in self.modules() if isinstance(module, Experts)}
        for experts in known.values():
            experts.build_products(num_tokens)

    def compile_parts(self) -> None:
        """Make what is trained fast: each block on its own, the final norm, and the elementwise part of the head.

        By kernels of our own where they serve all of a block, else by the compiler, in place (equal blocks share one compilation). There shapes
        are static: kernels chosen by the history of shapes would break exact resume.
        """
        device, dtype = self.embedding.weight.device, self.embedding.weight.dtype
        for block, layer in self._blocks():
            if kernels_serve(layer, device, dtype):
                _fuse(block, layer, device, dtype)
            else:
                block.compile(dynamic=False, fullgraph=True)
        fused = elementwise.serves(device, dtype)
        if fused:
            self.norm.fused = True
        else:
            self.norm.compile(dynamic=False, fullgraph=True)
        self.head.compile_chunks(fused)

    def _blocks(self) -> Iterator[tuple[nn.Module, LayerConfig]]:
        return zip((*self.layers, *self.mtp), (*self.config.layers, *self.config.mtp_layers), strict=True)

    def _routers(self) -> Iterator[tuple[str, int, Router]]:
        """Name, place in the statistics, and router of every block that has one."""
        named = [*((f"layers.{index}", block) for index, block in enumerate(self.layers)), *((f"mtp.{k}.block", one.block) for k, one in enumerate(self.mtp))]
        for index, (name, block) in enumerate(named):
            if isinstance(block, Block) and isinstance(block.ffn, Experts):
                yield f"{name}.ffn.router", index, block.ffn.router

    def _counted(self, stats: Stats) -> Iterator[tuple[Router, RouterStats]]:
        """Every router that ran, with its statistics: the modules for multi-token prediction do not always run."""
        for _, index, router in self._routers():
            if index < len(stats.layers):
                layer = stats.layers[index]
                assert layer is not None
                yield router, layer

    def index_mode(self, mode: IndexMode) -> None:
        """What all indexers do from here on; a new decoder's choose. No effect on a model without."""
        for indexer in self.indexers():
            indexer.mode = mode

    def indexers(self) -> Iterator[Indexer]:
        """Of all layers that have one."""
        return (module for module in self.modules() if isinstance(module, Indexer))

    def auxiliary_loss_sum(self, stats: Stats) -> Tensor:
        """Balancing, z and clamping losses of all routers and the divergence of all indexers, summed over layers and tokens.

        Divide by the number of tokens. Zero without routers and indexers.
        """
        total = torch.zeros((), device=self.embedding.weight.device)
        for router, layer in self._counted(stats):
            total = total + router.auxiliary_loss_sum(layer)
        for index_stats in stats.indexers:
            if index_stats is not None:
                total = total + index_stats.divergence_sum
        return total

    def router_step(self, stats: Stats) -> None:
        """Once per optimizer step: give every router the statistics summed over the whole batch."""
        for router, layer in self._counted(stats):
            router.step(layer)

    def router_state(self) -> dict[str, Tensor]:
        """What routers carry from step to step, by canonical name: part of a checkpoint, not of the weights. Not copies."""
        return {f"{name}.{buffer}": tensor for name, _, router in self._routers() for buffer, tensor in router.named_buffers()}

    def selection_biases(self) -> dict[str, Tensor]:
        """The biases that choose experts where they balance the load, by canonical name: the model's choices need them. Not copies."""
        return {f"{name}.bias_E": router.bias_E for name, _, router in self._routers() if router.config.balance == "bias"}

    def clamps(self) -> list[Clamp]:
        """The entropy clamps of the routers that have one."""
        return [router.clamp for _, _, router in self._routers() if router.clamp is not None]

    def reset_state(self) -> None:
        """Routers as before the first step: even load, no bias."""
        for _, _, router in self._routers():
            router.reset()

    def init_weights(self, seed: int) -> None:
        """Draw all weights; the same on every device (see `initial`)."""
        for name, parameter in self.named_parameters():
            draw(name, parameter, self.config, seed)
        self.reset_state()
