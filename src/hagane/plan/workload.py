"""What a model asks of a machine, whatever its architecture: parameters by part, FLOPs, bytes kept and bytes moved per token.

Everything is per token and for the whole model where a name does not say otherwise; a multiply-add is two FLOPs; activations take
two bytes. The tensors of a block are listed once, in `_Block`, and the totals for memory and for traffic are sums over that list, so
that a test can count them by hand. `workload` reads our own configuration; `from_shape` takes the numbers of any other decoder.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from hagane.model.config import AttentionConfig, DenseConfig, ExpertsConfig, ModelConfig
from hagane.model.count import cache_bytes_per_token, mean_seen, mtp_parts, pairs_flops, parts, trained_kinds
from hagane.recipe.types import Frozen

Checkpointing = Literal["none", "selective", "full"]


class Workload(Frozen):
    """A model at one context length, as a machine sees it."""

    num_layers: int
    width: int
    context: int
    vocabulary_size: int
    num_heads: int = Field(description="upper limit of tensor parallelism")
    dense_parameters: float = Field(description="all layers without the routed experts: mixers, dense and shared feed-forwards, routers, norms")
    expert_parameters: float = Field(0.0, description="all routed experts of all layers")
    embedding_parameters: float
    head_parameters: float = Field(description="0 where the embedding serves as the head")
    active_expert_parameters: float = Field(0.0, description="of the routed experts, those one token uses")
    matrix_flops: float = Field(description="forward, per token: matrices of the layers without the routed experts")
    expert_flops: float = Field(0.0, description="forward, per token: routed experts")
    head_flops: float = Field(description="forward, per token")
    attention_flops: float = Field(description="forward, per token: scores and mixing over the tokens a causal query sees")
    scores: float = Field(description="forward, per token: query-key pairs of all heads and layers, each one exponential")
    num_experts: int = 0
    top_k: int = 0
    routed_layers: int = 0
    kv_elements: float = Field(description="values a layer's keys and values take per token, what context parallelism sends around")
    kept_bytes: dict[Checkpointing, float] = Field(description="activations kept for the backward pass, per token and layer (mean over layers)")
    moved_bytes: float = Field(description="forward: bytes that kernels other than matrix products read and write, per token and layer (mean)")
    cache_bytes: float = Field(0.0, description="cache of decoding, per token of context")

    @property
    def num_parameters(self) -> float:
        return self.dense_parameters + self.expert_parameters + self.embedding_parameters + self.head_parameters

    @property
    def num_active_parameters(self) -> float:
        return self.num_parameters - self.expert_parameters + self.active_expert_parameters

    @property
    def forward_flops(self) -> float:
        """FLOPs of a forward pass per token; training takes three times this, and once more where everything is recomputed."""
        return self.matrix_flops + self.expert_flops + self.head_flops + self.attention_flops


@dataclass(frozen=True)
class _Block:
    """Widths of one block, in values per token."""

    width: int
    query: int
    key_value: int  # keys and values together
    hidden: int  # dense or shared feed-forward, 0 where there is none
    gated: bool
    qk_norm: bool = False
    top_k: int = 0
    expert_hidden: int = 0
    num_experts: int = 0
    latent: int = 0  # of MLA: what queries, keys and values are made from
    mixed: int | None = None  # what comes out of attention; None: as much as the queries
    exchanged: int | None = None  # what context parallelism sends; None: keys and values
    kept_by_mixer: int = 0  # of a recurrent mixer, besides: the parts of its form in chunks
    stored_scores: int = 0  # scores per token that pass through memory: none with fused attention

    def kept(self, checkpointing: Checkpointing) -> float:
        """Bytes kept per token for the backward pass: Korthikanti et al. 2022, section 4, for SwiGLU, GQA and flash attention.

        none: inputs and outputs of both norms 4d; q, k, v after the rotation; the attention's output and its log-sum-exp (4 bytes a
        head of 128); gate, up and their product. With routed experts: a copy of the input per chosen expert, its gate, up and
        product (the router's weight is folded into the product, so no output is kept), and the router's scores in float32.
        selective: norm outputs, products and what MLA makes from its latents are made again from what is kept. full: the block's
        input alone.
        """
        if checkpointing == "full":
            return 2.0 * self.width
        matrices = 3 if self.gated else 2
        whole = checkpointing == "none"
        norms = (4 if whole else 2) * self.width
        mixed = self.query if self.mixed is None else self.mixed
        projected = self.latent if self.latent and not whole else self.query + self.key_value
        attention = mixed + projected + 2 * mixed / 128 + (self.query + self.key_value / 2) * self.qk_norm * whole
        inner = matrices if whole else matrices - 1
        experts = self.top_k * (self.width + inner * self.expert_hidden) + 2 * self.num_experts
        scores = 2.5 * self.stored_scores * whole  # softmax, its mask and what dropout leaves: 5 bytes (Korthikanti et al., equation 1)
        return 2.0 * (norms + attention + self.kept_by_mixer + inner * self.hidden + (experts if self.top_k else 0) + scores)

    def moved(self) -> float:
        """Bytes read and written per token by the forward kernels around the matrix products, each kernel once.

        Two norms (read, write), two residual additions (two reads, one write), rotation and attention (q, k, v in and out), the
        activation (reads its inputs, writes the product); routed experts add the copy to and from expert order and the weighted sum.
        """
        rotation = 2 * (self.query + self.key_value / 2) + (2 * (self.query + self.key_value / 2) if self.qk_norm else 0)
        attention = self.query + (self.query if self.mixed is None else self.mixed) + self.key_value
        activation = (3 if self.gated else 2) * self.hidden
        values = 10 * self.width + rotation + attention + activation
        if self.top_k:
            copies = 2 * (1 + self.top_k) * self.width  # into expert order and back
            values += copies + (3 if self.gated else 2) * self.top_k * self.expert_hidden + 2 * self.num_experts + self.width
        values += 6.5 * self.stored_scores  # written; read and written by softmax and by dropout with its mask; read
        return 2.0 * values


def workload(config: ModelConfig, context: int) -> Workload:
    """Of our own configuration at `context` tokens a row, as it is trained: the modules for multi-token prediction count as further layers."""
    own = trained_kinds(config)
    blocks = []
    for layer, mixer, count in own:
        routed = layer.ffn if isinstance(layer.ffn, ExpertsConfig) else None
        block = _Block(
            width=config.width, query=mixer.query, key_value=mixer.key_value, latent=mixer.latent, mixed=mixer.mixed, exchanged=mixer.cached,
            kept_by_mixer=mixer.kept,
            hidden=layer.ffn.hidden if isinstance(layer.ffn, DenseConfig) else layer.ffn.shared_hidden, gated=True,
            qk_norm=isinstance(layer.mixer, AttentionConfig) and layer.mixer.qk_norm,
            top_k=routed.top_k if routed else 0, expert_hidden=routed.hidden if routed else 0, num_experts=routed.num_outputs if routed else 0,
        )  # fmt: skip
        blocks.append((block, count))
    all_parts, used = (Counter(parts(config, active=active)) + Counter(mtp_parts(config, active=active)) for active in (False, True))
    routed_layers = [(layer.ffn, count) for layer, _, count in own if isinstance(layer.ffn, ExpertsConfig)]
    experts = routed_layers[0][0] if routed_layers else None
    return Workload(
        num_layers=len(config.layers) + len(config.mtp_layers), width=config.width, context=context, vocabulary_size=config.vocabulary_size,
        num_heads=min(mixer.num_heads for _, mixer, _ in own),
        dense_parameters=all_parts["mixers"] + all_parts["dense"] + all_parts["routers"] + all_parts["norms"] + all_parts["projections"],
        expert_parameters=all_parts["experts"], embedding_parameters=all_parts["embedding"], head_parameters=all_parts["head"],
        active_expert_parameters=used["experts"], expert_flops=2 * used["experts"],
        matrix_flops=2 * (used["mixers"] + used["dense"] + used["routers"] + used["projections"]),
        head_flops=2 * config.vocabulary_size * config.width * (1 + len(config.mtp_layers)),
        attention_flops=sum(count * (pairs_flops(mixer, lambda limit: mean_seen(context, limit)) + mixer.token_flops) for _, mixer, count in own),
        scores=sum(count * mixer.num_heads * mean_seen(context, mixer.reads) for _, mixer, count in own if mixer.pair_flops),
        num_experts=experts.num_experts if experts else 0, top_k=experts.top_k if experts else 0,
        routed_layers=sum(count for _, count in routed_layers), cache_bytes=cache_bytes_per_token(config, context), **_means(blocks),
    )  # fmt: skip


def _means(blocks: list[tuple[_Block, int]]) -> dict[str, Any]:
    """Over all layers, of blocks and how many there are of each."""
    total = sum(count for _, count in blocks)
    modes: tuple[Checkpointing, ...] = ("none", "selective", "full")
    return {
        "kv_elements": sum(count * (block.key_value if block.exchanged is None else block.exchanged) for block, count in blocks) / total,
        "kept_bytes": {mode: sum(count * block.kept(mode) for block, count in blocks) / total for mode in modes},
        "moved_bytes": sum(count * block.moved() for block, count in blocks) / total,
    }


def from_shape(
    *,
    num_layers: int,
    width: int,
    context: int,
    vocabulary_size: int,
    num_heads: int,
    head_dim: int,
    num_kv_heads: int | None = None,
    hidden: int = 0,
    gated: bool = True,
    num_experts: int = 0,
    top_k: int = 0,
    expert_hidden: int = 0,
    shared_hidden: int = 0,
    routed_layers: int = 0,
    attention_layers: int | None = None,
    mixer_parameters: float | None = None,
    query_head_dim: int | None = None,
    latent: int = 0,
    window: int | None = None,
    windowed_layers: int = 0,
    fused_attention: bool = True,
    tied: bool = False,
    parameters: float | None = None,
) -> Workload:
    """Of any decoder, from its published numbers.

    `hidden` is the feed-forward of the layers that are not routed, `shared_hidden` that of the shared experts of those that are.
    `mixer_parameters` per layer replaces the count of plain attention (MLA, recurrent mixers); `query_head_dim` is the width of
    scores where it differs from that of values (MLA: nope + rope) and `latent` the values MLA keeps for
    queries, keys and values. `attention_layers` of the layers attend, the others are recurrent
    and cost their matrices only; `windowed_layers` of them see `window` tokens. Without
    `fused_attention`, as before FlashAttention (Dao et al. 2022), scores pass through memory and masked ones are computed too.
    `parameters`, the published total, replaces the count of the layers where a part is not described (for example biases): what is
    missing goes to the dense part.
    """
    num_kv_heads = num_kv_heads or num_heads
    attending = num_layers if attention_layers is None else attention_layers
    matrices = 3 if gated else 2
    mixer = mixer_parameters if mixer_parameters is not None else width * head_dim * (2 * num_heads + 2 * num_kv_heads)
    feed_forward = matrices * ((num_layers - routed_layers) * hidden + routed_layers * shared_hidden)
    dense = num_layers * mixer + width * (feed_forward + routed_layers * num_experts)
    experts, active = (routed_layers * matrices * width * expert_hidden * count for count in (num_experts, top_k))
    embedding = vocabulary_size * width
    head = 0 if tied else embedding
    if parameters is not None:
        dense = max(dense, parameters - experts - embedding - head)
    seen = ((attending - windowed_layers) * mean_seen(context, None) + windowed_layers * mean_seen(context, window)) * num_heads
    stored = 0 if fused_attention else num_heads * context
    if not fused_attention:
        seen = attending * context * num_heads
    attention = 2 * seen * (head_dim + (query_head_dim or head_dim))
    plain = _Block(width, num_heads * head_dim, 2 * num_kv_heads * head_dim, hidden, gated, latent=latent, stored_scores=stored)
    routed = _Block(
        width, num_heads * head_dim, 2 * num_kv_heads * head_dim, shared_hidden, gated,
        top_k=top_k, expert_hidden=expert_hidden, num_experts=num_experts, latent=latent, stored_scores=stored,
    )  # fmt: skip
    return Workload(
        num_layers=num_layers, width=width, context=context, vocabulary_size=vocabulary_size, num_heads=num_heads, dense_parameters=dense,
        expert_parameters=experts, embedding_parameters=embedding, head_parameters=head, active_expert_parameters=active, matrix_flops=2 * dense,
        expert_flops=2 * active, head_flops=2 * embedding, attention_flops=attention, scores=seen,
        num_experts=num_experts, top_k=top_k, routed_layers=routed_layers,
        cache_bytes=2 * attending * 2 * num_kv_heads * head_dim, **_means([(plain, num_layers - routed_layers), (routed, routed_layers)]),
    )  # fmt: skip
