"""The recipe: one file that says what to build. What it leaves out, the plan derives.

Every field is a *result* setting (it changes what comes out, so it is part of the key of the stages that read it) or an
*execution* setting (it changes only how the work is done). `execution(...)` marks the latter.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from hagane.errors import RecipeError
from hagane.model.config import MOST_LAYERS, ExpertsConfig
from hagane.recipe.cluster import LayoutSettings, PublishedSettings
from hagane.recipe.role import execution
from hagane.recipe.types import Budget, Frozen, first_reason

USUAL_TOP_K = 2  # where a recipe leaves it open and nothing is chosen
# Shares of pretraining with indexers, dense and warm-up, where a recipe leaves them open (docs/notebook.md, "Sparse attention at equal tokens").
INDEX_SHARES = {"together": (0.35, 0.4), "alone": (0.6, 0.1)}
PROBLEMS = "embedded:problems"  # path of the generator of problems in nine languages

_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*\Z")


class Source(Frozen):
    """Where text comes from: files, folders or globs, or one of the generators inside hagane."""

    name: str = Field(pattern=r"[a-z0-9_-]+$", description="short name: part of every shard's name")
    path: tuple[str, ...] = Field(description="files, folders, globs, URLs of a store such as s3://bucket/folder, or embedded:python, embedded:problems")
    language: str | None = Field(None, description="BCP-47 tag for documents that carry none; else the folder's name is tried")
    license: str | None = Field(None, description="licence for documents that carry none")
    text_field: str = Field("text", min_length=1, description="field or column of a record that holds its text")
    share: float | None = Field(None, gt=0, le=1, description="fixed share of the training rows; the rest is divided by UniMax")

    @field_validator("path", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("language")
    @classmethod
    def _bcp47(cls, value: str | None) -> str | None:
        if value is not None and not _TAG.match(value):
            raise ValueError(f"{value!r} is not a BCP-47 tag such as sv, zh-Hant or smj")
        return value


class RuleSettings(Frozen):
    """Which rules mend documents or leave them out, and how far from a language's own text a document may be."""

    markup: bool = Field(True, description="mend: pages, notebooks and XML inside records become text; tags, macros and entities go")
    contents: bool = Field(True, description="mend: machine-made tables of contents are cut out")
    dumps: bool = Field(True, description="mend: JSON in code fences that a page mostly consists of is cut out")
    twice: bool = Field(True, description="mend: of text that a page holds twice one copy stays")
    boilerplate: bool = Field(True, description="mend: lines that many documents of one origin share are cut out; drop what is little else")
    repetition: bool = Field(True, description="drop: repeats itself far more than its language does")
    lists: bool = Field(True, description="drop: nearly nothing but list items, numbers or very short lines, for its language")
    signs: bool = Field(True, description="drop: far more signs such as braces and slashes than its language has")
    broken_text: bool = Field(True, description="drop: words taken apart, run together or mixed with digits, as a bad scan gives")
    cut_lines: bool = Field(True, description="drop: most lines are cut off with an ellipsis")
    width: float = Field(6.0, gt=0, description="spreads (median to ninth decile of a language) beyond which a document is dropped; fewer are stricter")


class LicenseSettings(Frozen):
    """Which licences may be learned from: globs on identifiers such as those of SPDX, whatever the case."""

    allow: tuple[str, ...] = Field((), description="where given, a document under any other licence is dropped (license)")
    deny: tuple[str, ...] = Field((), description="a document under such a licence is dropped (license); comes before allow")
    attribution: tuple[str, ...] = Field(("CC-BY*",), description="licences that ask for their authors to be named: the manifest and the data card list them")
    unknown: Literal["keep", "drop"] = Field("keep", description="what happens to a document that no licence is stated for")


class QualitySettings(Frozen):
    """Text that is most like sources you call good is read more often."""

    good: tuple[str, ...] = Field((), description="names of sources whose text is good, an encyclopaedia for example; off where empty")
    by: Literal["both", "classifier", "perplexity"] = Field(
        "both", description="what makes text good: its words are those of good sources rather than of the others, good sources foretell it, or both"
    )
    repeats: tuple[float, ...] = Field((2.0, 1.0, 0.5), description="how often equal parts of a language's text are read against each other, the best first")

    @field_validator("repeats")
    @classmethod
    def _buckets(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not 2 <= len(value) <= 9 or not all(0 <= often < float("inf") for often in value) or value[0] <= 0:
            raise ValueError("two to nine numbers of 0 or more are needed, and the first must be more than 0")
        return value


class CorpusSettings(Frozen):
    """Which documents are read, kept and held out."""

    sources: tuple[Source, ...] = Field((), description="what to read; --corpus PATH replaces those that are not embedded")
    min_characters: int = Field(32, ge=1, description="shorter documents are dropped (too_short)")
    max_characters: int = Field(200_000, ge=1000, description="longer documents are cut at paragraph ends")
    max_record_bytes: int = Field(1 << 27, ge=1000, description="a line, page, notebook or row with more bytes is dropped without being held (too_long)")
    max_damage: float = Field(0.001, ge=0, le=1, description="share of replacement or control characters above which a document is dropped")
    repair_encoding: bool = Field(True, description="characters misread from another encoding are put right (ftfy) before documents are judged")
    rules: RuleSettings = RuleSettings()
    quality: QualitySettings = QualitySettings()
    licenses: LicenseSettings = LicenseSettings()
    remove: tuple[str, ...] = Field((), description="ids of documents to leave out (removed), globs allowed; a run keeps a list of its own, too")
    personal_data: Literal["mask", "keep"] = Field(
        "mask", description="e-mail addresses, telephone, card, account and national numbers and secrets become placeholders such as <EMAIL>, or stay"
    )
    near_duplicates: float = Field(
        0.75, ge=0, le=1, description="of documents that share this much of their runs of five words (Jaccard) or more, one is kept; 0 keeps all"
    )
    held_out_overlap: float = Field(
        0.5,
        ge=0,
        le=1,
        description="what shares this much of its runs of five words with a held-out document, or of the other's, loses its paragraphs; 0: nothing does",
    )
    exclude: tuple[str, ...] = Field((), description="evaluation files: paragraphs that share a run of 13 words with one are cut out (evaluation_overlap)")
    held_out_share: float = Field(0.01, gt=0, lt=0.5, description="share of documents held out for evaluation, by document hash")
    held_out_bytes: int = Field(400_000, ge=1, description="at most this much text is held out per language")
    max_repeats: float = Field(
        4.0, ge=1, description="how often text by people is read at most: other languages get the rest (UniMax), and a budget of time, energy or money "
        "ends early where there are none"
    )  # fmt: skip
    sample_bytes: int | None = Field(None, description="language-stratified sample; derived from the budget where not given")
    stretch_bytes: int | None = Field(None, ge=1000, description="a sample takes at least this much of a long document; two longest rows where not given")
    on_damage: Literal["stop", "keep"] = Field("stop", description="a damaged file stops the run, or is read as far as it goes")
    identify: Literal["off", "unlabelled", "check"] = Field(
        "unlabelled", description="find the language of documents without a label; `check` also drops what is certainly not in its label's (wrong_language)"
    )
    workers: int | None = execution(None, description="processes; all cores where not given")

    @model_validator(mode="after")
    def _unique_names(self) -> CorpusSettings:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"two sources have the same name: {sorted(name for name in names if names.count(name) > 1)[0]}")
        if unknown := [name for name in self.quality.good if name not in names]:
            raise ValueError(f"quality.good names {unknown[0]}, which is none of the sources ({', '.join(names) or 'there are none'})")
        if sum(source.share or 0 for source in self.sources) > 1 + 1e-9:
            raise ValueError("the shares of the sources sum to more than 1")
        if 0 < self.near_duplicates < 0.6:
            raise ValueError(f"near_duplicates = {self.near_duplicates:g} is less than 0.6, below which pairs are no longer found reliably; 0 turns it off")
        return self


class MixSettings(Frozen):
    """How much of each language is read against the others."""

    rule: Literal["found", "unimax"] = Field("found", description="what `hagane mix` found for this text where it found a gain, else UniMax; or always UniMax")
    weights: dict[str, float] = Field(
        default_factory=dict, description="language -> how much of it is read against the others, in place of the rule; 1 where not named"
    )
    objective: Literal["mean", "worst", "weighted"] = Field(
        "mean", description="what `hagane mix` makes least: bits per byte as the mean over languages, of the worst language, or weighted by importance"
    )
    importance: dict[str, float] = Field(default_factory=dict, description="objective weighted: language -> importance; 0 where not named")
    reason: str = execution("", description="where weights are from, as the plan tells it; filled in by hagane")

    @model_validator(mode="after")
    def _positive(self) -> MixSettings:
        for language, weight in self.weights.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"weights: {language} = {weight:g} is not a positive number; give its source no documents to leave a language out")
        if any(not 0 <= value < float("inf") for value in self.importance.values()):
            raise ValueError("importance must be 0 or more for every language")
        if self.objective == "weighted" and sum(self.importance.values()) <= 0:
            raise ValueError("objective = 'weighted' needs importance, for example importance = { sv = 2, smj = 1 }")
        if self.objective != "weighted" and self.importance:
            raise ValueError(f"importance is of objective = 'weighted', but objective = '{self.objective}'")
        return self


class TokenizerSettings(Frozen):
    """Byte-level BPE with the qwen2 pre-tokenizer."""

    candidates: tuple[int, ...] = Field((1024, 2048, 4096, 8192, 16384), description="vocabulary sizes the plan may choose from")
    sample_bytes: int | None = Field(None, description="mixture-balanced training sample; derived from the budget where not given")

    @field_validator("candidates")
    @classmethod
    def _sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 300:
            raise ValueError("every candidate must be at least 300: 256 bytes, the special tokens and some merges")
        return tuple(sorted(set(value)))


class PatternSettings(Frozen):
    """Mechanisms and their ratios: invariant under scaling."""

    model_config = ConfigDict(allow_inf_nan=False)  # a width that is infinitely many times another is none

    mixer: Literal["attention", "latent"] = Field("attention", description="grouped-query attention, or multi-head latent attention")
    query_ratio: float = Field(0.0, ge=0, description="latent attention: width of the queries' latent vector over the model width; 0 for none")
    kv_ratio: float = Field(0.25, gt=0, description="latent attention: width of the latent vector of keys and values over the model width")
    rope_ratio: float = Field(0.5, gt=0, description="latent attention: rotated dimensions of a head, beside head_dim that are not, over head_dim")
    index_top_k: int = Field(0, ge=0, description="latent attention: keys that a query reads at most, chosen by an indexer; 0 for no indexer")
    index_heads: int = Field(4, ge=1, description="heads of the indexer")
    index_head_dim: int = Field(32, ge=2, description="width of an indexer head; at least as many dimensions as attention's heads turn")
    index_share: float = Field(0.0, ge=0, lt=1, description="a query reads the fewest keys with this share of the indexer's probability; 0: index_top_k")
    deltas: int = Field(0, ge=0, lt=MOST_LAYERS, description="layers of Gated DeltaNet before each layer of attention; 3 for Qwen3-Next's pattern, 0 for none")
    delta_head_dim: int = Field(64, ge=8, description="Gated DeltaNet: width of a head of queries, keys and values")
    value_heads_per_key_head: int = Field(2, ge=1, description="Gated DeltaNet: value heads, each with a state, that share a query-key head")
    attention_gate: Literal["none", "sigmoid"] = Field("none", description="what attention's values are multiplied with before the output matrix")
    rotary_share: float = Field(1.0, gt=0, le=1, description="share of an attention head's dimensions that turn with the position")
    window: int = Field(0, ge=0, description="tokens that a windowed layer of attention sees; 0 for no such layers")
    full_every: int = Field(4, ge=1, le=MOST_LAYERS, description="with a window, every how many-th layer sees the whole document")
    full_positions: bool = Field(True, description="with a window, whether the layers that see the whole document know positions")
    sandwich_norms: bool = Field(False, description="RMSNorm of what the mixer and the feed-forward add, in every layer")
    gated_norm_rank: int = Field(0, ge=0, description="A.X K2's gate on the norms before mixers and experts: width of its bottleneck; 0 for no gate")
    scaled_embedding: bool = Field(False, description="embeddings are multiplied with the square root of the model width")
    ffn: Literal["dense", "experts"] = Field("dense", description="SwiGLU, or routed experts")
    qk_norm: bool = Field(True, description="RMSNorm of queries and keys per head")
    head_dim: int = Field(64, ge=8, description="width of an attention head; models too narrow for eight such heads have heads of 64 at most, two at least")
    heads_per_kv_head: int = Field(2, ge=1, description="grouped-query attention: query heads that share one key-value head")
    ffn_ratio: float = Field(8 / 3, gt=0, description="hidden width of the dense feed-forward over the model width")
    dense_layers: int = Field(0, ge=0, lt=MOST_LAYERS, description="first layers of a model with experts that are dense")
    num_experts: int | None = Field(None, ge=2, description="routed experts of a layer; left out, the plan chooses")
    top_k: int | None = Field(None, ge=1, description="routed experts that a token uses; left out, the plan chooses how fine experts are")
    score: Literal["softmax", "sigmoid"] = Field("softmax", description="what turns a router's logits into weights")
    scaling: float = Field(1.0, gt=0, description="what the weights of the chosen experts are multiplied with")
    normalise: bool = Field(True, description="the weights of the chosen experts are divided by their sum; with top_k = 1 that leaves nothing to learn")
    num_groups: int = Field(1, ge=1, description="groups the experts are divided into")
    top_groups: int = Field(1, ge=1, description="groups a token may choose from")
    shared_experts: int = Field(0, ge=0, description="experts beside the others that every token passes")
    shared_gate: bool = Field(False, description="the shared experts' output is multiplied with a gate made from the token, as in Qwen3-Next")
    post_experts_norm: bool = Field(False, description="RMSNorm of what the experts add, as in A.X K1")
    expert_ratio: float = Field(4 / 3, gt=0, description="hidden width of one expert over the model width; where the plan chooses top_k, of one of two")
    balance: Literal["loss", "bias"] = Field("loss", description="how the load of experts is balanced")
    aux_coefficient: float = Field(1e-2, ge=0)
    z_coefficient: float = Field(1e-3, ge=0)
    bias_rate: float | None = Field(None, gt=0, description="how far the selection bias moves per optimizer step; derived where not given")
    null_experts: int = Field(0, ge=0, description="outputs of the router beside the experts that stand for computing nothing; top_k counts them")
    mean_experts: float | None = Field(None, gt=0, description="with null experts, the experts a token uses on average; held by balancing")
    entropy_clamp: bool = Field(False, description="keep the router's entropies in bands, beside balancing")
    marginal_entropy_low: float = Field(0.98, ge=0, le=1, description="clamping: least entropy of how experts are used, over that of even use")
    conditional_entropy_low: float = Field(0.05, ge=0, le=1, description="clamping: least mean entropy of a token's routing distribution, likewise")
    conditional_entropy_high: float = Field(0.95, ge=0, le=1, description="clamping: most of it")
    clamp_rate: float = Field(0.1, gt=0, description="clamping: how fast the log of a multiplier moves, per step and unit of violation")
    mtp_layers: int = Field(0, ge=0, le=4, description="modules that predict further tokens while training, one each; the first one drafts")
    tied: bool = Field(False, description="input embedding and output head share one matrix")
    rope_theta: float = Field(10_000.0, gt=0)
    norm_epsilon: float = Field(1e-6, gt=0)
    init_std: float = Field(0.02, gt=0)
    embedding_std: float = Field(1.0, gt=0, description="standard deviation of initial embeddings entering the first layer; init_std where tied to the head")

    @model_validator(mode="after")
    def _heads(self) -> PatternSettings:
        if self.mixer == "attention" and self.head_dim % 2:
            raise ValueError(f"head_dim = {self.head_dim} must be even: rotary positions turn the dimensions of a head in pairs")
        return self

    @model_validator(mode="after")
    def _latent(self) -> PatternSettings:
        fields = type(self).model_fields
        unused = [name for name in ("query_ratio", "kv_ratio", "rope_ratio") if getattr(self, name) != fields[name].default]
        if self.mixer != "latent" and unused:
            raise ValueError(f"{unused[0]} = {getattr(self, unused[0]):g} is of latent attention, but mixer = '{self.mixer}'")
        return self

    @model_validator(mode="after")
    def _index(self) -> PatternSettings:
        if self.index_top_k and self.mixer != "latent":
            raise ValueError(f"index_top_k = {self.index_top_k} is of latent attention, but mixer = '{self.mixer}'")
        if self.index_top_k and not self.query_ratio:
            raise ValueError("index_top_k asks for an indexer, which makes its queries from those of latent attention: give a query_ratio")
        if self.mixer == "latent" and self.attention_gate != "none" and not self.query_ratio:
            raise ValueError("attention_gate of latent attention is made from the latent vector of the queries: give a query_ratio")
        if not self.index_top_k:
            self._unused(("index_heads", "index_head_dim", "index_share"), "an indexer, but index_top_k = 0 asks for none")
        return self

    @model_validator(mode="after")
    def _delta(self) -> PatternSettings:
        unused = [name for name in ("delta_head_dim", "value_heads_per_key_head") if getattr(self, name) != type(self).model_fields[name].default]
        if self.deltas == 0 and unused:
            raise ValueError(f"{unused[0]} = {getattr(self, unused[0])} is of Gated DeltaNet, but deltas = 0 asks for no layer of it")
        return self

    @model_validator(mode="after")
    def _experts(self) -> PatternSettings:
        if self.balance != "bias":
            self._unused(("bias_rate",), f"balance = 'bias', but balance = '{self.balance}'")
        if self.ffn == "dense":
            fields = type(self).model_fields
            names = (
                "dense_layers", "score", "scaling", "normalise", "num_groups", "top_groups", "shared_experts", "shared_gate", "post_experts_norm",
                "null_experts", "mean_experts", "entropy_clamp",
            )  # fmt: skip
            unused = [name for name in names if getattr(self, name) != fields[name].default]
            if unused:
                raise ValueError(f"{unused[0]} = {getattr(self, unused[0])} is of experts, but ffn = 'dense'")
            return self
        top_k = self.top_k or USUAL_TOP_K
        if self.num_experts is not None and top_k > self.num_experts:
            raise ValueError(f"top_k = {top_k} is more than num_experts = {self.num_experts}: lower it, or give more experts")
        if self.shared_gate and not self.shared_experts:
            raise ValueError("shared_gate is of shared experts, but shared_experts = 0 asks for none")
        if not self.entropy_clamp:
            bands = ("marginal_entropy_low", "conditional_entropy_low", "conditional_entropy_high", "clamp_rate")
            self._unused(bands, "clamping, but entropy_clamp = false")
        if self.conditional_entropy_low >= self.conditional_entropy_high:
            raise ValueError(f"conditional_entropy_low = {self.conditional_entropy_low:g} must be below {self.conditional_entropy_high:g}, its upper bound")
        try:
            ExpertsConfig(
                num_experts=self.num_experts or 2 * top_k * self.num_groups, top_k=top_k, hidden=1, num_groups=self.num_groups,
                top_groups=self.top_groups, null_experts=self.null_experts, mean_experts=self.mean_experts,
            )  # fmt: skip
        except ValidationError as error:
            raise ValueError(first_reason(error)) from None
        return self

    @model_validator(mode="after")
    def _windows(self) -> PatternSettings:
        if self.mixer != "attention":
            self._unused(("rotary_share", "window"), f"grouped-query attention, but mixer = '{self.mixer}'")
        if self.sandwich_norms and self.post_experts_norm:
            raise ValueError("post_experts_norm is one of sandwich_norms already; give one of them")
        if self.window and self.deltas:
            raise ValueError(f"window = {self.window} and deltas = {self.deltas} are two patterns of cheaper layers; give one of them")
        if self.window and self.full_every == 1:
            raise ValueError("full_every = 1 lets every layer see the whole document: window would be of none")
        if not self.window:
            self._unused(("full_every", "full_positions"), "a pattern of windows, but window = 0 asks for none")
        return self

    def _unused(self, names: Sequence[str], why: str) -> None:
        """Refuse settings that would change nothing."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} = {getattr(self, name)!r} is of {why}")


class SizeSettings(Frozen):
    """A published or chosen size. Yields to a budget unless set with --set; what is left out is derived."""

    width: int | None = Field(None, ge=16)
    num_layers: int | None = Field(None, ge=1, le=MOST_LAYERS)
    num_heads: int | None = Field(None, ge=1)
    num_kv_heads: int | None = Field(None, ge=1)
    ffn_hidden: int | None = Field(None, ge=8, description="hidden width of the feed-forward, or of one expert")
    dense_hidden: int | None = Field(None, ge=8, description="hidden width of the dense layers in a model of routed experts")
    vocabulary_size: int | None = Field(None, ge=300)


class ModelSettings(Frozen):
    pattern: PatternSettings = PatternSettings()
    size: SizeSettings = SizeSettings()


class CurriculumStep(Frozen):
    """A first part of pretraining on shorter rows."""

    context: int = Field(ge=16, description="tokens a row holds; divides the next one's, and at last train.context")
    share: float = Field(gt=0, lt=1, description="of the tokens of pretraining")


class TrainSettings(Frozen):
    """What holds for every training stage; the plan derives what is None."""

    context: int = Field(256, ge=16, description="tokens a row holds")
    curriculum: tuple[CurriculumStep, ...] = Field((), description="shorter rows first: contexts and shares of pretraining; the rest is at train.context")
    rows: int | None = Field(None, ge=1, description="rows of one micro-step")
    accumulation: int | None = Field(None, ge=1, description="micro-steps of one optimizer step")
    optimizer: Literal["adamw", "muon"] = Field("muon", description="Muon for the matrices inside the layers and AdamW for the rest, or AdamW for all")
    muon_ratio: float = Field(2.5, gt=0, description="Muon's learning rate over AdamW's")
    embedding_ratio: float | None = Field(
        None, gt=0, description="learning rate of the embedding table over that of the rest of AdamW's; derived where not given, 1 where it is tied to the head"
    )
    head_ratio: float = Field(1.0, gt=0, description="learning rate of the head, likewise")
    learning_rate: float | None = Field(None, gt=0, le=1, description="peak learning rate of pretraining")
    warmup_share: float = Field(0.03, ge=0, lt=0.5)
    decay_share: float = Field(0.4, ge=0, le=1)
    handover_share: float = Field(0.3, ge=0, le=1, description="share of the peak learning rate at the end of a stage that another one follows")
    weight_decay: float = Field(0.1, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    clip: float = Field(1.0, gt=0)
    mtp_coefficient: float = Field(0.3, gt=0, description="weight of the loss of the modules for multi-token prediction")
    dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="compute precision; masters are always float32")
    tokens: int | None = Field(None, gt=0, description="training tokens of all stages together; derived from a budget of time")
    index_warmup: Literal["together", "alone"] = Field("together", description="with an indexer: while it warms up all else learns, or waits as was published")
    index_dense_share: float | None = Field(None, ge=0, lt=1, description="share of pretraining, its beginning, in which attention reads all keys")
    index_warmup_share: float | None = Field(None, ge=0, lt=1, description="share of pretraining after that in which the indexer learns on all keys")

    def of_phases(self) -> dict[str, Any]:
        """What every phase of every training stage takes from here as it is."""
        names = ("decay_share", "weight_decay", "beta1", "beta2", "clip", "optimizer", "muon_ratio", "head_ratio", "mtp_coefficient")
        return {name: getattr(self, name) for name in names}

    @property
    def index_shares(self) -> tuple[float, float]:
        """Of pretraining with an indexer: read densely, and its warm-up after that."""
        dense, warmup = INDEX_SHARES[self.index_warmup]
        return (dense if self.index_dense_share is None else self.index_dense_share, warmup if self.index_warmup_share is None else self.index_warmup_share)

    @model_validator(mode="after")
    def _index(self) -> TrainSettings:
        if sum(self.index_shares) >= 1:
            raise ValueError("index_dense_share and index_warmup_share leave nothing for sparse training; together they must be below 1")
        return self

    @model_validator(mode="after")
    def _lengths(self) -> TrainSettings:
        lengths = [*(step.context for step in self.curriculum), self.context]
        for index, (short, long) in enumerate(itertools.pairwise(lengths)):
            if short >= long or long % short:
                raise ValueError(f"curriculum[{index}].context = {short} must divide the {long} tokens that come after it, and be fewer")
        if sum(step.share for step in self.curriculum) >= 1:
            raise ValueError(f"the shares of curriculum leave nothing of pretraining for context = {self.context}; together they must be below 1")
        return self


class StartSettings(Frozen):
    """A published checkpoint to go on from instead of initial weights. Its content, not its place, is part of the keys."""

    from_: str | None = execution(None, alias="from", description="a Hugging Face folder of a host: its shape, weights and tokenizer are taken")
    languages: tuple[str, ...] = Field((), description="languages that it knows: replayed, and forgetting is measured on them; the others are new")
    replay_share: float = Field(0.25, ge=0, lt=1, description="share of the rows, beside those with a share of their own, that are text in `languages`")
    new_tokens: int | Literal["auto"] = Field(
        "auto", description="tokens added for the languages that are new; auto: as many as are read often enough, none where `languages` names none"
    )
    learning_rate_ratio: float = Field(1.0, gt=0, description="peak of the learning rate over that of a model trained from nothing")
    rewarm_share: float = Field(0.03, ge=0, lt=0.5, description="share of the steps in which the learning rate is warmed up again")

    @field_validator("new_tokens")
    @classmethod
    def _new_tokens(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 0:
            raise ValueError(f"new_tokens = {value}: a vocabulary cannot lose tokens; give 0 or more, or 'auto'")
        return value


class MidtrainSettings(Frozen):
    """A second stretch of pretraining with another mixture. Off while its share is 0."""

    share: float = Field(0.0, ge=0, lt=1, description="of the training time")
    learning_rate_ratio: float = Field(0.5, gt=0, description="peak over pretraining's peak")
    mixture: dict[str, float] = Field(default_factory=dict, description="source name -> share; as in pretraining where empty")


class ExtendSettings(Frozen):
    """Longer texts for a finished model, after pretraining: positions interpolated, and trained on so. Off while its share is 0."""

    share: float = Field(0.0, ge=0, lt=1, description="of the training time")
    factor: int = Field(8, ge=2, description="new context over the old one")
    method: Literal["linear", "ntk", "yarn"] = Field("yarn", description="how positions are interpolated")
    learning_rate_ratio: float = Field(0.3, gt=0, description="peak over pretraining's peak")
    warmup_share: float = Field(0.05, ge=0, lt=0.5)


class TuneStep(Frozen):
    """One step of the graph of tuning: reads the weights of `from`, writes its own folder."""

    name: str = Field(pattern=r"[a-z0-9_-]+$")
    kind: Literal["supervised"] = "supervised"
    from_: tuple[str, ...] = Field(("midtrain",), alias="from", description="`midtrain` (or pretrain where that is off), or an earlier step")
    share: float = Field(1.0, gt=0, le=1, description="of the tuning time")
    thinking_share: float = Field(0.5, ge=0, le=1, description="share of conversations with a worked thinking part")
    replay_share: float = Field(0.1, ge=0, lt=1, description="share of the rows that are text of pretraining, read on so that it is not forgotten")
    learn_prompt: bool = Field(False, description="the questions are learned too, as running text: teaches to read them, early in tuning")
    learning_rate_ratio: float = Field(1.0, gt=0, description="peak over pretraining's peak")
    warmup_share: float = Field(0.02, ge=0, lt=0.5)
    decay_share: float = Field(0.6, ge=0, le=1)


class TuneSettings(Frozen):
    share: float = Field(0.25, ge=0, lt=1, description="of the training time")
    steps: tuple[TuneStep, ...] = (TuneStep(name="supervised"),)
    languages: tuple[str, ...] = Field((), description="languages of the generated problems; all nine where empty")
    families: tuple[str, ...] = Field((), description="families of the generated problems; all where empty")

    @model_validator(mode="after")
    def _graph(self) -> TuneSettings:
        known = {"midtrain"}
        for step in self.steps:
            for parent in step.from_:
                if parent not in known:
                    raise ValueError(f"step {step.name} starts from {parent}, which is not an earlier step (known here: {', '.join(sorted(known))})")
            if len(step.from_) != 1:
                raise ValueError(f"step {step.name}: a supervised step starts from exactly one")
            known.add(step.name)
        return self


class RetrievalSettings(Frozen):
    """Passkeys and needles: whether a model finds a number in a long text. Off while no length is given."""

    lengths: tuple[int, ...] = Field((), description="tokens of the texts; longer than the model's context shows where it ends")
    depths: int = Field(5, ge=1, description="places the number stands at, from the beginning to the end")
    items: int = Field(2, ge=1, description="texts per length, depth and language, of either kind")
    languages: tuple[str, ...] = Field((), description="as tune.languages where empty")

    @field_validator("lengths")
    @classmethod
    def _enough(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value and min(value) < 64:
            raise ValueError(f"a text of {min(value)} tokens cannot hold a number, the question for it and something between; at least 64 are needed")
        return tuple(sorted(set(value)))


class EvaluateSettings(Frozen):
    items_per_cell: int | None = Field(None, ge=1, description="problems per family, language and mode; derived from the budget where not given")
    max_new_tokens: int = Field(256, ge=1)
    max_bytes: int = Field(50_000, ge=1000, description="held-out text scored per language and source")
    parallel_sentences: int = Field(200, ge=1)
    retrieval: RetrievalSettings = RetrievalSettings()


class ReleaseSettings(Frozen):
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gguf: Literal["auto"] | bool = Field("auto", description="also write GGUF files; auto: where the packages are installed and llama.cpp knows the host")
    license: str = Field("Apache-2.0", description="licence you give the weights")
    author: str = ""
    country: str = ""


class ExecutionSettings(Frozen):
    """How the work is done. Nothing here changes a key."""

    device: Literal["auto", "cpu", "cuda"] = execution("auto")
    threads: int | None = execution(None, ge=1, description="CPU threads; all cores where not given")
    compile: bool = execution(True, description="compile each block in place")
    steer: bool = execution(True, description="correct the number of steps so that the run ends on time")
    checkpoint_seconds: float = execution(60.0, gt=0)
    keep_checkpoints: int = execution(2, ge=1)
    log_every: int = execution(10, ge=1)
    tensorboard: bool = execution(True)
    price_per_hour: float | None = execution(None, gt=0, description="US dollars an hour of this machine costs; a budget of money needs it")
    goodput: float | None = execution(None, gt=0, le=1, description="of a plan on a cluster: share of its hours in which it trains; 0.9 where not given")
    layout: LayoutSettings = execution(LayoutSettings(), description="of a plan on a cluster: degrees that are given; the others are searched")
    ray: str | None = execution(
        None,
        pattern=r"^(auto|local|(ray://)?[A-Za-z0-9._-]+:[0-9]+)$",
        description="prepare the corpus on a Ray cluster: auto (the one of this machine), local (its cores), or an address",
    )


class Recipe(Frozen):
    """The whole recipe."""

    name: str = Field(pattern=r"[a-z0-9_.-]+$")
    description: str = ""
    extends: str | None = Field(None, description="a shipped recipe's name or a file whose settings this one starts from")
    budget: str | None = Field(None, description="time, energy, FLOPs, tokens or money: 10min, 2kWh, 1e17FLOP, 5Mtokens, 2USD")
    seed: int = Field(0, ge=0)
    corpus: CorpusSettings = CorpusSettings()
    mix: MixSettings = MixSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    model: ModelSettings = ModelSettings()
    start: StartSettings = StartSettings()
    train: TrainSettings = TrainSettings()
    midtrain: MidtrainSettings = MidtrainSettings()
    extend: ExtendSettings = ExtendSettings()
    tune: TuneSettings = TuneSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    release: ReleaseSettings = ReleaseSettings()
    published: PublishedSettings = PublishedSettings()
    execution: ExecutionSettings = ExecutionSettings()

    @field_validator("budget")
    @classmethod
    def _budget(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                Budget.parse(value)
            except RecipeError as error:
                raise ValueError(str(error).rstrip(".")) from None
        return value

    @model_validator(mode="after")
    def _contradictions(self) -> Recipe:
        if self.budget is not None and self.train.tokens is not None:
            raise ValueError(f"budget = '{self.budget}' and train.tokens = {self.train.tokens} are two dials; give one of them")
        if self.midtrain.share + self.tune.share + self.extend.share >= 1:
            raise ValueError("midtrain.share, extend.share and tune.share leave nothing for pretraining; together they must be below 1")
        size, pattern = self.model.size, self.model.pattern
        if size.num_heads and size.num_kv_heads and size.num_heads % size.num_kv_heads:
            raise ValueError(
                f"model.size.num_heads = {size.num_heads} is not a multiple of model.size.num_kv_heads = {size.num_kv_heads}, which they share evenly: "
                "change one of them"
            )
        if size.vocabulary_size and size.vocabulary_size > max(self.tokenizer.candidates) and self.corpus.sources:
            raise ValueError(
                f"model.size.vocabulary_size = {size.vocabulary_size} is larger than all of tokenizer.candidates "
                f"({max(self.tokenizer.candidates)}); add it there"
            )
        if size.dense_hidden and not pattern.dense_layers:
            raise ValueError(f"model.size.dense_hidden = {size.dense_hidden} is of dense layers before routed ones, but model.pattern.dense_layers = 0")
        if self.train.mtp_coefficient != TrainSettings.model_fields["mtp_coefficient"].default and not pattern.mtp_layers:
            raise ValueError(f"train.mtp_coefficient = {self.train.mtp_coefficient:g} is of multi-token prediction, but model.pattern.mtp_layers = 0")
        if pattern.balance == "bias" and pattern.ffn == "dense":
            raise ValueError("model.pattern.balance = 'bias' balances experts, but model.pattern.ffn = 'dense' has none")
        return self
