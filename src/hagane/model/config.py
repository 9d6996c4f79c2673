"""What a model is: a list of layers, each a (mixer, ffn) pair with its own settings, plus embedding, norm and head.

No torch here: the plan, the recipe and the config side of the hosts read these types. Counts are in `count`.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hagane.recipe.types import Frozen

MOST_LAYERS = 2_000
BIAS_RATE = 1e-3  # of selection biases, an optimizer step (Wang et al. 2024; DeepSeek-V3, 2024)
"""More is a slip of the pen that would cost minutes and memory before anything is said; the deepest published models have a few hundred."""


class YarnConfig(Frozen):
    """Positions beyond those a model was trained on (Peng et al. 2023, YaRN): slow rotations are interpolated, fast ones kept.

    `mscale` and `mscale_all_dim` are DeepSeek's: with both, cosines and sines are scaled by their ratio instead of 0.1 ln(factor) + 1,
    and latent attention scales its scores by the square of the latter's. 0 is "not given".
    """

    factor: float = Field(gt=1, description="new context over the original one")
    original_context: int = Field(gt=0, description="tokens the model was trained on before")
    beta_fast: float = Field(default=32.0, gt=0, description="rotations over the original context from which a dimension is kept as it is")
    beta_slow: float = Field(default=1.0, gt=0, description="rotations up to which it is interpolated whole")
    mscale: float = Field(default=0.0, ge=0)
    mscale_all_dim: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> YarnConfig:
        if self.beta_fast <= self.beta_slow:
            raise ValueError(f"beta_fast {self.beta_fast:g} must be more than beta_slow {self.beta_slow:g}")
        return self

    def _temperature(self, mscale: float) -> float:
        return 0.1 * mscale * math.log(self.factor) + 1.0

    @property
    def rotation_factor(self) -> float:
        """What cosines and sines are multiplied by."""
        if self.mscale and self.mscale_all_dim:
            return self._temperature(self.mscale) / self._temperature(self.mscale_all_dim)
        return self._temperature(1.0)

    @property
    def score_factor(self) -> float:
        """What latent attention multiplies its scores by."""
        return self._temperature(self.mscale_all_dim) ** 2


class RopeConfig(Frozen):
    """Rotary positions (Su et al. 2021), rotating the two halves of a head against each other as Hugging Face does."""

    theta: float = Field(default=10000.0, gt=0)
    yarn: YarnConfig | None = None
    linear: float | None = Field(default=None, gt=1, description="positions are divided by this (Chen et al. 2023)")

    @property
    def scaling(self) -> str | None:
        """How positions are interpolated; None where they are not."""
        return "yarn" if self.yarn is not None else "linear" if self.linear is not None else None

    @model_validator(mode="after")
    def _check(self) -> RopeConfig:
        if self.yarn is not None and self.linear is not None:
            raise ValueError("rope has yarn and linear: positions are interpolated in one way")
        return self


class AttentionConfig(Frozen):
    """Grouped-query attention (Ainslie et al. 2023), causal within a document.

    `gate`: the mixed values are multiplied, element by element, with the sigmoid of a projection of the layer's input before
    the output matrix (Qiu et al. 2025, "Gated Attention for Large Language Models").
    """

    kind: Literal["attention"] = "attention"
    num_heads: int = Field(gt=0)
    num_kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    qk_norm: bool = Field(default=False, description="RMSNorm over each head's queries and keys before the rotation, as in Qwen3")
    window: int | None = Field(default=None, gt=0, description="tokens a query sees, itself included; None is the whole document")
    rope: RopeConfig | None = Field(default=RopeConfig(), description="None: the layer knows no positions but their order")
    partial_rotary: int | None = Field(default=None, gt=0, description="leading dimensions of a head that turn; None is all of them")
    gate: Literal["none", "sigmoid"] = Field(default="none", description="what the mixed values are multiplied with")

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that turn with the position; 0 for none."""
        return 0 if self.rope is None else self.partial_rotary or self.head_dim

    @property
    def key(self) -> str:
        """What decides its speed, as part of the name under which a machine's profile keeps a measured step."""
        return f"h{self.num_heads}-{self.num_kv_heads}x{self.head_dim}{f'w{self.window}' if self.window else ''}{'g' if self.gate != 'none' else ''}"

    @model_validator(mode="after")
    def _check(self) -> AttentionConfig:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even: rotary positions pair its halves")
        if self.partial_rotary is not None and (self.rope is None or self.partial_rotary % 2 or self.partial_rotary > self.head_dim):
            raise ValueError(f"partial_rotary {self.partial_rotary} must be even and at most head_dim {self.head_dim}, and needs rope")
        return self


class IndexConfig(Frozen):
    """Lightning indexer (DeepSeek-V3.2-Exp, 2025, "DeepSeek Sparse Attention"): small heads that score keys, so that a query reads the best `top_k` only.

    With `share` a query reads the fewest keys that hold this share of the softmax of its scores, at most `top_k`. No host knows that: an
    export reads `top_k` keys.
    """

    num_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0, description="width of an indexer head; one key of it is kept per token")
    top_k: int = Field(gt=0, description="keys a query reads at most")
    share: float | None = Field(default=None, gt=0, lt=1, description="of the indexer's probability that the keys read must hold; None: always top_k keys")


class LatentConfig(Frozen):
    """Multi-head latent attention (DeepSeek-V2, 2024, section 2.1), causal within a document.

    Keys and values of all heads are made from one latent vector per token, beside which one rotated key is shared by all heads:
    the cache holds kv_rank + rope_dim values per token, and the key of an indexer where there is one. `gate`: as in grouped-query attention,
    made as in A.X K2 (SK Telecom 2026).
    """

    kind: Literal["latent"] = "latent"
    num_heads: int = Field(gt=0)
    query_rank: int | None = Field(default=None, gt=0, description="queries are made from a latent vector of this width; None: from the hidden state")
    kv_rank: int = Field(gt=0, description="width of the latent vector that keys and values are made from")
    nope_dim: int = Field(gt=0, description="part of a head's query and key that is not rotated")
    rope_dim: int = Field(gt=0, description="part that is")
    value_dim: int = Field(gt=0, description="width of a head's value")
    rope: RopeConfig = RopeConfig()
    index: IndexConfig | None = Field(default=None, description="what chooses the keys that a query reads; None: it reads all it sees")
    gate: Literal["none", "sigmoid"] = Field(
        default="none", description="what the mixed values are multiplied with; it and the queries are then made from their latent vector normed and as it is"
    )

    @property
    def qk_dim(self) -> int:
        """Width of a head's query and key."""
        return self.nope_dim + self.rope_dim

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that turn with the position."""
        return self.rope_dim

    @property
    def window(self) -> None:
        """The whole document."""
        return None

    @property
    def key(self) -> str:
        """What decides its speed, as part of the name under which a machine's profile keeps a measured step."""
        index = f"i{self.index.num_heads}x{self.index.head_dim}k{self.index.top_k}{'a' if self.index.share else ''}" if self.index else ""
        gate = "g" if self.gate != "none" else ""
        return f"m{self.num_heads}q{self.query_rank or 0}c{self.kv_rank}x{self.nope_dim}-{self.rope_dim}-{self.value_dim}{index}{gate}"

    @model_validator(mode="after")
    def _check(self) -> LatentConfig:
        if self.rope_dim % 2:
            raise ValueError(f"rope_dim {self.rope_dim} must be even: rotary positions pair its halves")
        if self.index is not None and self.query_rank is None:
            raise ValueError("index needs query_rank: an indexer makes its queries from the latent vector of the queries")
        if self.gate != "none" and self.query_rank is None:
            raise ValueError("gate needs query_rank: the gate of latent attention is made from the latent vector of the queries")
        if self.index is not None and self.index.head_dim < self.rope_dim:
            raise ValueError(f"index.head_dim {self.index.head_dim} must be at least rope_dim {self.rope_dim}: that many of its dimensions turn")
        return self


class DeltaConfig(Frozen):
    """Gated DeltaNet (Yang et al. 2024) as in Qwen3-Next: a state per value head in the place of keys and values per token.

    Queries and keys have `num_key_heads` heads of `key_dim`; each serves as many of the `num_value_heads` of `value_dim` in turn.
    """

    kind: Literal["delta"] = "delta"
    num_key_heads: int = Field(gt=0)
    num_value_heads: int = Field(gt=0)
    key_dim: int = Field(gt=0)
    value_dim: int = Field(gt=0)
    taps: int = Field(default=4, ge=2, description="tokens the short convolution reaches, its own included")
    # what every mixer says: no positions, the whole document
    rope: ClassVar[None] = None
    window: ClassVar[None] = None

    @property
    def rotary_dim(self) -> int:
        """No dimension turns."""
        return 0

    @property
    def channels(self) -> int:
        """Of the short convolution: queries, keys and values."""
        return 2 * self.num_key_heads * self.key_dim + self.num_value_heads * self.value_dim

    @property
    def chunk(self) -> int:
        """Tokens that the gated delta rule takes at a time while training (`kernels.delta_rule`), counted in its FLOPs: 64 for heads of 128 as in the
        published kernels, fewer for narrow ones, whose state is less work than the pairs of a chunk (docs/notebook.md, "Chunks of narrow heads")."""
        return min(64, max(16, self.key_dim // 2))

    @property
    def key(self) -> str:
        """What decides its speed."""
        return f"d{self.num_key_heads}x{self.key_dim}-{self.num_value_heads}x{self.value_dim}"

    @model_validator(mode="after")
    def _check(self) -> DeltaConfig:
        if self.num_value_heads % self.num_key_heads:
            raise ValueError(f"num_value_heads {self.num_value_heads} must be a multiple of num_key_heads {self.num_key_heads}")
        return self


class DenseConfig(Frozen):
    """SwiGLU feed-forward (Shazeer 2020): down(silu(gate(x)) * up(x))."""

    kind: Literal["dense"] = "dense"
    hidden: int = Field(gt=0)


class EntropyClamp(Frozen):
    """Bands that the entropies of a router are kept in (`model.clamp`). Entropies are over the log of the number of outcomes: 0 to 1.

    Outside its band a term pulls back with a multiplier that grows by dual ascent in log space (as the temperature of soft
    actor-critic, Haarnoja et al. 2018, section 5) and shrinks again inside, where the term has no gradient at all.
    """

    marginal_low: float = Field(default=0.98, ge=0, le=1, description="least entropy of how experts are used, by probability and by choice")
    conditional_low: float = Field(default=0.05, ge=0, le=1, description="least mean entropy of a token's routing distribution")
    conditional_high: float = Field(default=0.95, ge=0, le=1, description="most of it: above, tokens are hardly told apart")
    rate: float = Field(default=0.1, gt=0, description="how far the log of a multiplier moves per optimizer step and unit of violation")
    start: float = Field(default=1e-2, gt=0, description="multipliers before the first step")
    lowest: float = Field(default=1e-3, gt=0)
    highest: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> EntropyClamp:
        if self.conditional_low >= self.conditional_high:
            raise ValueError(f"conditional_low {self.conditional_low:g} must be below conditional_high {self.conditional_high:g}")
        if not self.lowest <= self.start <= self.highest:
            raise ValueError(f"start {self.start:g} must be between lowest {self.lowest:g} and highest {self.highest:g}")
        return self


class ExpertsConfig(Frozen):
    """Routed SwiGLU experts: every expert is scored, the top k are computed, no token is dropped; shared experts serve every token.

    `score`: softmax over all experts, or the sigmoid of each logit (DeepSeek-V3, 2024, section 2.1.2). `num_groups`, `top_groups`:
    experts are chosen from the groups whose two best selection scores have the largest sum (ibid.). `null_experts` are chosen like
    the others but add nothing and cost nothing (zero-computation experts: LongCat-Flash, 2025, section 2.1, with zero for the identity):
    how much is computed for a token depends on the token.
    """

    kind: Literal["experts"] = "experts"
    num_experts: int = Field(gt=0)
    top_k: int = Field(gt=0)
    hidden: int = Field(gt=0, description="hidden width of one expert")
    score: Literal["softmax", "sigmoid"] = Field(default="softmax", description="what turns a router's logits into weights")
    normalise: bool = Field(default=True, description="the chosen weights are divided by their sum")
    scaling: float = Field(default=1.0, gt=0, description="the weights, normalised or not, are multiplied with this (routed_scaling_factor)")
    num_groups: int = Field(default=1, gt=0, description="groups the experts are divided into, side by side")
    top_groups: int = Field(default=1, gt=0, description="groups a token may choose from")
    shared_hidden: int = Field(default=0, ge=0, description="hidden width of all shared experts together, which every token passes; 0 for none")
    shared_gate: bool = Field(default=False, description="the shared experts' output is multiplied with the sigmoid of a projection of the token")
    balance: Literal["loss", "bias"] = Field(
        default="loss", description="what keeps the load even: the auxiliary loss, or a selection bias moved once per step (Wang et al. 2024)"
    )
    aux_coefficient: float = Field(default=1e-2, ge=0, description="weight of the load-balancing loss; it counts with either way of balancing")
    z_coefficient: float = Field(default=1e-3, ge=0, description="weight of the router z-loss (Zoph et al. 2022)")
    bias_rate: float = Field(default=BIAS_RATE, ge=0, description="how far the selection bias moves per optimizer step")
    null_experts: int = Field(default=0, ge=0, description="outputs of the router, beside those of num_experts, that stand for computing nothing")
    mean_experts: float | None = Field(
        default=None, gt=0, description="experts that are not null per token that balancing holds on average; None: the share that they are of all outputs"
    )
    entropy_clamp: EntropyClamp | None = Field(default=None, description="bands for the router's entropies, beside balancing; None for none")

    @property
    def num_outputs(self) -> int:
        """Outputs of the router: experts, then null ones."""
        return self.num_experts + self.null_experts

    @property
    def mean_used(self) -> float:
        """Experts a token uses on average: what is counted as active."""
        return self.mean_experts or self.top_k * self.num_experts / self.num_outputs

    @model_validator(mode="after")
    def _check(self) -> ExpertsConfig:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        if self.null_experts and self.num_groups > 1:
            raise ValueError(f"null_experts {self.null_experts} are of no group; leave num_groups at 1")
        if self.mean_experts is not None and not self.null_experts:
            raise ValueError(f"mean_experts {self.mean_experts:g} is held by null experts, but null_experts is 0")
        least = max(0, self.top_k - self.null_experts)
        if self.null_experts and not least < self.mean_used < self.top_k:
            raise ValueError(f"mean_experts {self.mean_used:g} must be above {least} and below top_k {self.top_k}")
        if self.num_groups > 1:
            self._check_groups()
        elif self.top_groups > 1:
            raise ValueError(f"top_groups {self.top_groups} is more than num_groups {self.num_groups}")
        if self.shared_gate and not self.shared_hidden:
            raise ValueError("shared_gate gates shared experts, but shared_hidden is 0")
        return self

    def _check_groups(self) -> None:
        each, rest = divmod(self.num_experts, self.num_groups)
        if rest or each < 2:
            raise ValueError(f"num_experts {self.num_experts} must be a multiple of num_groups {self.num_groups}, at least twice it: a group is judged by two")
        if self.top_groups > self.num_groups:
            raise ValueError(f"top_groups {self.top_groups} is more than num_groups {self.num_groups}")
        if self.top_k > self.top_groups * each:
            raise ValueError(f"top_k {self.top_k} is more than the {self.top_groups * each} experts of top_groups {self.top_groups}")


MixerConfig = Annotated[AttentionConfig | LatentConfig | DeltaConfig, Field(discriminator="kind")]
"""What a layer mixes with: a union of frozen classes, told apart by `kind`.

Every kind has, as fields or properties, what the decoder makes its view from: `rotary_dim` (dimensions that turn, 0 for none), `rope`
(None where that is 0) and `window` (None for the whole document); and `key`, what decides its speed, in a few letters. It is counted in
`count`, built in `mixer`.
"""


class LayerConfig(Frozen):
    """One block: hidden + mixer(norm(hidden)), then hidden + ffn(norm(hidden)); what each adds may be normed once more before.

    A norm before mixer or feed-forward with a rank is a gated norm (A.X K2, SK Telecom 2026): its output is multiplied, element by element, with the sigmoid of
    a SiLU bottleneck of that width over it.
    """

    mixer: MixerConfig
    ffn: DenseConfig | ExpertsConfig = Field(discriminator="kind")
    post_mixer_norm: bool = Field(default=False, description="RMSNorm of what the mixer adds to the stream")
    post_ffn_norm: bool = Field(default=False, description="RMSNorm of what the feed-forward adds to the stream, as in A.X K1")
    mixer_norm_rank: int | None = Field(default=None, gt=0, description="of the gate on the norm before the mixer; None: no gate")
    ffn_norm_rank: int | None = Field(default=None, gt=0, description="likewise before the feed-forward")


class ModelConfig(Frozen):
    """A whole decoder."""

    vocabulary_size: int = Field(gt=0)
    width: int = Field(gt=0)
    layers: tuple[LayerConfig, ...] = Field(min_length=1)
    mtp_layers: tuple[LayerConfig, ...] = Field(default=(), description="blocks of the modules that predict further tokens while training (`mtp`)")
    tied: bool = Field(default=False, description="the head shares the embedding matrix")
    embedding_scale: float = Field(default=1.0, gt=0, description="embeddings are multiplied with this on their way into the first layer")
    norm_epsilon: float = Field(default=1e-6, gt=0)
    init_std: float = Field(default=0.02, gt=0)
    embedding_std: float | None = Field(
        default=None, gt=0, description="of embeddings as they enter the first layer; None: init_std for the rows of the table, as always where it is tied"
    )
    context: int = Field(gt=0, description="tokens the model is made for; recorded in what is released, not a limit of the code")

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def without_mtp(self) -> ModelConfig:
        """The same model without the modules that predict further tokens: what most hosts hold."""
        return self.model_copy(update={"mtp_layers": ()})

    @property
    def mtp_blocks(self) -> ModelConfig:
        """The blocks of those modules as a model of their own: what they are counted by."""
        return self.model_copy(update={"layers": self.mtp_layers, "mtp_layers": ()})

    @property
    def draft_block(self) -> ModelConfig:
        """The first of them alone: what the cache of drafts is made for."""
        return self.model_copy(update={"layers": self.mtp_layers[:1], "mtp_layers": ()})
