"""The Hugging Face folder: written beside its place, read back with transformers, compared, and only then put there.

Compared are the chat template, the tokens, the logits and the greedy text of our decoder and of transformers, both in float32
with the weights as they were rounded for the release. What the rounding itself changed is measured apart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from hagane.engine.load import build_decoder
from hagane.errors import RunError
from hagane.folder import replace_folder
from hagane.hosts import HOSTS, exported_form, host_for, null
from hagane.hosts.base import as_held
from hagane.hosts.mtp import held_state
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters, num_parameters
from hagane.recipe.types import Frozen
from hagane.release.gguf import GgufFacts
from hagane.release.verify import Verdict, verify
from hagane.tokenizer.bpe import load_tokenizer, special_ids
from hagane.tokenizer.special import END_OF_TEXT, IM_END

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
MAX_SLICE_BYTES = 4 << 30  # of one safetensors file; larger models are cut into several with an index
ReleaseDtype = Literal["bfloat16", "float32"]


class ReleaseFacts(Frozen):
    """A release that was proven. Gaps are the largest absolute differences of float32 logits over all prompts.

    `form_logit_gap` is that between our own form of the model, whose number of keys adapts, and the fixed one that hosts know; None where
    they are one. `greedy_parted` prompts went on differently from where two tokens were within rounding of each other; `greedy_equal`: none did.
    """

    host: str
    folder: str
    num_parameters: int
    num_active_parameters: int
    dtype: ReleaseDtype
    bytes: int
    max_logit_gap: float
    rounding_logit_gap: float
    form_logit_gap: float | None = None
    largest_logit: float
    greedy_equal: bool
    greedy_parted: int = 0
    greedy_tokens: int
    prompts_checked: int
    transformers: str
    left_out: str = ""
    gguf: GgufFacts = GgufFacts()


def release_huggingface(
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer_folder: Path,
    folder: Path,
    dtype: ReleaseDtype = "bfloat16",
    card: Callable[[Verdict], str] | None = None,
) -> ReleaseFacts:
    """Write, read back, compare; then `folder` appears whole. `state` holds the float32 masters by canonical name, `card` makes README.md of what was found.

    Raises RunError when transformers disagrees or is not installed: nothing is left behind, an earlier release stays.
    Raises RecipeError when no host can hold the model. What of it the host has no place for is left out, and said in the facts.
    """
    host = HOSTS[host_for(config)]
    left_out, config = host.modules_reason(config) or "", host.held(config)
    state = held_state(state, config)
    tokenizer = load_tokenizer(tokenizer_folder)
    temporary = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        # selection biases stay as they are: hosts keep them in float32, and rounded ones would choose other experts
        held, weights = as_held(config), null.as_held(state, config)
        cast = {name: tensor if name.endswith("bias_E") else tensor.to(getattr(torch, dtype)) for name, tensor in weights.items()}
        dtypes = {name: tensor.dtype for name, tensor in host.weights.weights_to_host(cast, held)}
        # rounded as the host stores them: a norm around zero and one around one round differently
        tensors = {name: tensor.to(dtypes[name]) for name, tensor in host.weights.weights_to_host(weights, held)}
        rounded = null.as_ours(dict(host.weights.weights_from_host(tensors, held)), config)
        write_config(temporary, host.config_to_host(held, _special(tokenizer)), tokenizer, dtype)
        write_weights(temporary, tensors)
        for name in TOKENIZER_FILES:
            shutil.copy2(tokenizer_folder / name, temporary / name)
        fixed = exported_form(config)
        adaptive = build_decoder(config, rounded) if fixed != config else None
        verdict = verify(temporary, build_decoder(fixed, rounded), build_decoder(fixed, state), tokenizer, adaptive)
        if card is not None:
            (temporary / "README.md").write_text(card(verdict), encoding="utf-8")
        size = sum(path.stat().st_size for path in temporary.iterdir())
        replace_folder(temporary, folder)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _facts(verdict, config, host.name, folder, dtype, size).model_copy(update={"left_out": left_out})


def _special(tokenizer: Tokenizer) -> dict[str, int | None]:
    ids = special_ids(tokenizer)
    return {"bos_token_id": None, "eos_token_id": ids[IM_END], "pad_token_id": ids[END_OF_TEXT]}


def write_config(folder: Path, config: dict[str, Any], tokenizer: Tokenizer, dtype: ReleaseDtype) -> None:
    """`config.json` and `generation_config.json`: greedy, ending at the end of a turn or of a text."""
    special = special_ids(tokenizer)
    # transformers 5 reads `dtype`, what came before it `torch_dtype`
    _json(folder / "config.json", {**config, "dtype": dtype, "torch_dtype": dtype})
    generation = {"do_sample": False, "eos_token_id": [special[IM_END], special[END_OF_TEXT]], "pad_token_id": special[END_OF_TEXT]}
    _json(folder / "generation_config.json", generation)


def write_weights(folder: Path, tensors: Mapping[str, Tensor], max_bytes: int = MAX_SLICE_BYTES) -> None:
    """`model.safetensors`, or `model-00001-of-…` slices with their index."""
    slices: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in tensors.items():
        if slices[-1] and used + tensor.nbytes > max_bytes:
            slices.append({})
            used = 0
        # views of fused matrices share their storage, which the format refuses
        slices[-1][name] = tensor.contiguous().clone()
        used += tensor.nbytes
    names = ["model.safetensors"] if len(slices) == 1 else [f"model-{index + 1:05d}-of-{len(slices):05d}.safetensors" for index in range(len(slices))]
    for name, part in zip(names, slices, strict=True):
        save_file(part, folder / name, metadata={"format": "pt"})
    if len(slices) > 1:
        where = {tensor: name for name, part in zip(names, slices, strict=True) for tensor in part}
        _json(folder / "model.safetensors.index.json", {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())}, "weight_map": where})


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _facts(verdict: Verdict, config: ModelConfig, host: str, folder: Path, dtype: ReleaseDtype, size: int) -> ReleaseFacts:
    return ReleaseFacts(
        host=host, folder=folder.name, num_parameters=num_parameters(config), num_active_parameters=num_active_parameters(config), dtype=dtype, bytes=size,
        max_logit_gap=verdict.max_logit_gap, rounding_logit_gap=verdict.rounding_logit_gap, form_logit_gap=verdict.form_logit_gap,
        largest_logit=verdict.largest_logit,
        greedy_equal=verdict.greedy_parted == 0, greedy_parted=verdict.greedy_parted, greedy_tokens=verdict.greedy_tokens,
        prompts_checked=verdict.prompts_checked, transformers=verdict.transformers,
    )  # fmt: skip
