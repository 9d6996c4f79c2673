"""Of which type and size the fields of a config.json are, asked before an adapter computes with them. Fields that no adapter reads may be anything.

No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from hagane.errors import RecipeError
from hagane.hosts.base import require
from hagane.model.config import MOST_LAYERS

T = TypeVar("T")

# Far above what is published, and small enough for arithmetic and lists: an absurd number must not eat memory.
MOST_EXPERTS, MOST_WIDTH, MOST_ROWS, MOST_TOKENS = 1 << 16, 1 << 20, 1 << 24, 1 << 40
LONGEST = 40  # characters of a wrong value that are shown

Layers = Annotated[int, Field(ge=0, le=MOST_LAYERS)]
EveryLayers = Annotated[int, Field(ge=1, le=MOST_LAYERS)]
Experts = Annotated[int, Field(ge=0, le=MOST_EXPERTS)]
Width = Annotated[int, Field(ge=1, le=MOST_WIDTH)]
WidthOrNone = Annotated[int, Field(ge=0, le=MOST_WIDTH)]
Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Id = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Coefficient = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]

# null is not what an absent field is, or no engine but ours takes it for that
_NEVER_NULL = {
    "decoder_sparse_step", "num_dense_layers", "rms_norm_eps", "router_aux_loss_coef", "routed_scaling_factor", "route_scale", "norm_topk_prob",
    "rope_interleave", "route_norm",
}  # fmt: skip


def _table(kinds: Mapping[Any, str]) -> type[BaseModel]:
    """A model of fields that may be absent, by their kinds."""
    fields: dict[str, Any] = {}
    for kind, names in kinds.items():
        fields |= {name: (kind if name in _NEVER_NULL else kind | None, None) for name in names.split()}
    return create_model("Fields", __config__=ConfigDict(strict=True, allow_inf_nan=False), **fields)


_POSITIONS = _table({
    str: "rope_type type",
    Positive: "rope_theta factor",
    Tokens: "original_max_position_embeddings",
    Coefficient: "beta_fast beta_slow mscale mscale_all_dim",
    Share: "partial_rotary_factor",
})  # fmt: skip
_FIELDS = _table({
    EveryLayers: "num_hidden_layers decoder_sparse_step full_attention_interval global_attn_every_n_layers",
    Layers: "num_dense_layers first_k_dense_replace num_nextn_predict_layers max_window_layers",
    Experts: "num_experts num_local_experts n_routed_experts num_experts_per_tok n_shared_experts num_shared_experts n_group topk_group",
    Rows: "vocab_size",
    Width: "hidden_size intermediate_size head_dim num_attention_heads num_key_value_heads q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim "
    "v_head_dim index_n_heads index_head_dim linear_num_key_heads linear_num_value_heads linear_key_head_dim linear_value_head_dim "
    "linear_conv_kernel_dim gated_norm_rank",
    WidthOrNone: "moe_intermediate_size shared_expert_intermediate_size",
    Tokens: "max_position_embeddings sliding_window index_topk",
    Positive: "rms_norm_eps initializer_range rope_theta routed_scaling_factor route_scale",
    Coefficient: "router_aux_loss_coef aux_loss_alpha",
    Share: "partial_rotary_factor",
    bool: "tie_word_embeddings norm_topk_prob use_qk_norm use_sliding_window mup_enabled attention_bias mlp_bias rope_interleave route_norm",
    list[str]: "layer_types mlp_layer_types",
    list[int]: "mlp_only_layers",
    _POSITIONS: "rope_parameters rope_scaling",
    Id | list[Id]: "bos_token_id eos_token_id",
})  # fmt: skip


def given(host: Mapping[str, Any], field: str, default: T) -> T:
    """A field that is `default` where the file does not have it. Raises RecipeError for a null, which says nothing."""
    value: T = host.get(field, default)
    if value is None:
        raise RecipeError(f"config.json: {field} = null says nothing. Correct it, or leave it out.")
    return value


def kinds_of_layers(host: Mapping[str, Any], field: str, known: tuple[str, str]) -> list[str] | None:
    """What a list says of every layer; None where there is none. Raises RecipeError where it says something else, or of another number of layers."""
    kinds: list[str] | None = host.get(field) or None
    count = require(host, "num_hidden_layers")
    if kinds is not None and len(kinds) != count:
        raise RecipeError(f"config.json: {field} names {len(kinds)} layers, num_hidden_layers = {count}.")
    if kinds is not None and (unknown := sorted(set(kinds) - {*known})):
        raise RecipeError(f"config.json: {field} names {unknown[0]!r}, which is not supported; it must name {known[0]} or {known[1]} for every layer.")
    return kinds


def wrong_field(description: Mapping[str, Any]) -> str | None:
    """The first field of the wrong type or size, with what it should be; None where all can be read."""
    try:
        _FIELDS.model_validate(description)
    except ValidationError as error:
        item = error.errors()[0]
        name, *inner = item["loc"]
        parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in inner if isinstance(part, int) or part in _POSITIONS.model_fields]
        value = json.dumps(item["input"])
        return f"{name}{''.join(parts)} = {value if len(value) <= LONGEST else value[:LONGEST] + '...'}, and it{item['msg'].removeprefix('Input')}"
    return None
