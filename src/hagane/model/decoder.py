"""The decoder: embedding, blocks of mixer and feed-forward, final norm, head. It returns hidden states, never logits."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hagane.kernels.attention import serves
from hagane.model.attention import Attention
from hagane.model.cache import Cache, LayerCache
from hagane.model.config import AttentionConfig, ExpertsConfig, LayerConfig, ModelConfig
from hagane.model.dense import Dense
from hagane.model.experts import Experts
from hagane.model.head import Head
from hagane.model.initial import draw
from hagane.model.linear import Embedding
from hagane.model.norm import RMSNorm
from hagane.model.rope import rotation
from hagane.model.router import Router, RouterStats, Stats
from hagane.model.sequence import PADDING, Sequence, View, document_mask, first_visible, slot_mask


@dataclass
class Outputs:
    """Hidden states (B, T, D) after the final norm, and the router statistics of every layer."""

    hidden_BTD: Tensor
    stats: Stats


class Block(nn.Module):
    """hidden + mixer(norm(hidden)), then hidden + ffn(norm(hidden)). The unit that is compiled, checkpointed and sharded."""

    def __init__(self, config: ModelConfig, layer: LayerConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(config.width, config.norm_epsilon, device)
        self.mixer = Attention(config.width, layer.mixer, config.norm_epsilon, device)
        self.ffn_norm = RMSNorm(config.width, config.norm_epsilon, device)
        self.ffn = Experts(config.width, layer.ffn, device) if isinstance(layer.ffn, ExpertsConfig) else Dense(config.width, layer.ffn, device)

    def forward(self, hidden_BTD: Tensor, view: View, cache: LayerCache | None = None) -> tuple[Tensor, RouterStats | None]:
        mixed_BTD, _ = self.mixer(self.mixer_norm(hidden_BTD), view, cache)
        hidden_BTD = hidden_BTD + mixed_BTD
        if isinstance(self.ffn, Experts):
            output_BTD, stats = self.ffn(self.ffn_norm(hidden_BTD), view.real_BT)
            return hidden_BTD + output_BTD, stats
        return hidden_BTD + self.ffn(self.ffn_norm(hidden_BTD)), None


class Decoder(nn.Module):
    """A model built from its configuration, on one device. Nothing is initialised until `init_weights`, or `reset_state` and a load.

    Parameter names are canonical: `embedding.weight`, `layers.{i}.mixer_norm.weight`, `layers.{i}.mixer.{qkv,output}.weight`,
    `layers.{i}.mixer.{query,key}_norm.weight`, `layers.{i}.ffn_norm.weight`, `layers.{i}.ffn.{gate_up,down}.weight` (dense) or
    `layers.{i}.ffn.{gate_up,down}` and `layers.{i}.ffn.router.weight` (experts), `norm.weight`, `head.weight` (untied).
    """

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.vocabulary_size, config.width, device)
        self.layers = nn.ModuleList(Block(config, layer, device) for layer in config.layers)
        self.norm = RMSNorm(config.width, config.norm_epsilon, device)
        self.head = Head(config.vocabulary_size, config.width, self.embedding if config.tied else None, device)

    def forward(self, token_BT: Tensor, sequence: Sequence, cache: Cache | None = None) -> Outputs:
        """Hidden states of the tokens; with a cache, of new tokens that continue its rows (and are appended to it)."""
        views, new_length_B = self._views(sequence, cache)
        hidden_BTD = self.embedding(token_BT)
        stats: list[RouterStats | None] = []
        for index, (block, layer) in enumerate(zip(self.layers, self.config.layers, strict=True)):
            hidden_BTD, layer_stats = block(hidden_BTD, views[layer.mixer], cache.layers[index] if cache is not None else None)
            stats.append(layer_stats)
        if cache is not None:
            cache.length_B = new_length_B
        return Outputs(self.norm(hidden_BTD), Stats(stats))

    @torch.no_grad()
    def _views(self, sequence: Sequence, cache: Cache | None) -> tuple[dict[AttentionConfig, View], list[int]]:
        """One view per kind of mixer, and the new lengths of the cache's rows."""
        real_BT = (sequence.document_BT != PADDING).float()
        kinds = dict.fromkeys(layer.mixer for layer in self.config.layers)
        start_B, new_length_B, span = (cache.starts(), *cache.place(sequence)) if cache is not None else (None, [], 0)

        @functools.cache
        def mask(window: int | None) -> Tensor:
            return document_mask(sequence, window) if start_B is None else slot_mask(start_B, real_BT.shape[1], span, window)

        views = {}
        for mixer in kinds:
            cosine, sine = rotation(sequence.position_BT, mixer.head_dim, mixer.rope)
            if cache is None and serves(real_BT.device, self.embedding.weight.dtype, mixer.head_dim):
                views[mixer] = View(cosine, sine, real_BT, first_visible(sequence, mixer.window), None)
            else:
                views[mixer] = View(cosine, sine, real_BT, None, mask(mixer.window))
        return views, new_length_B

    def new_cache(self, rows: int, length: int, dtype: torch.dtype | None = None) -> Cache:
        """An empty cache for `rows` sequences of up to `length` tokens, where the weights are; dtype defaults to theirs."""
        return Cache(self.config, rows, length, dtype or self.embedding.weight.dtype, self.embedding.weight.device)

    def compile_parts(self) -> None:
        """Compile each block on its own, in place (equal blocks share one compilation), and the elementwise part of the head.

        Shapes are static: kernels chosen by the history of shapes would break exact resume.
        """
        for block in self.layers:
            block.compile(dynamic=False, fullgraph=True)
        self.norm.compile(dynamic=False, fullgraph=True)
        self.head.compile_chunks()

    def _routers(self) -> Iterator[tuple[int, Router]]:
        for index, block in enumerate(self.layers):
            if isinstance(block, Block) and isinstance(block.ffn, Experts):
                yield index, block.ffn.router

    def auxiliary_loss_sum(self, stats: Stats) -> Tensor:
        """Balancing and z losses of all routers, summed over layers and tokens: divide by the number of tokens. Zero without routers."""
        total = torch.zeros((), device=self.embedding.weight.device)
        for index, router in self._routers():
            layer = stats.layers[index]
            assert layer is not None
            total = total + router.auxiliary_loss_sum(layer)
        return total

    def router_step(self, stats: Stats) -> None:
        """Once per optimizer step: give every router the statistics summed over the whole batch."""
        for index, router in self._routers():
            layer = stats.layers[index]
            assert layer is not None
            router.step(layer)

    def router_state(self) -> dict[str, Tensor]:
        """What routers carry from step to step, by canonical name: part of a checkpoint, not of the weights. Not copies."""
        return {f"layers.{index}.ffn.router.{name}": tensor for index, router in self._routers() for name, tensor in router.named_buffers()}

    def reset_state(self) -> None:
        """Routers as before the first step: even load, no bias."""
        for _, router in self._routers():
            router.reset()

    def init_weights(self, seed: int) -> None:
        """Draw all weights; the same on every device (see `initial`)."""
        for name, parameter in self.named_parameters():
            draw(name, parameter, self.config, seed)
        self.reset_state()
