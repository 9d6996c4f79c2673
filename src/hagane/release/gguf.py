"""GGUF files for llama.cpp and what is built on it: written from the float32 masters, verified, and only then put in their place.

f16: every matrix in half precision. q8_0: blocks of 32 values of a row share a scale; a tensor whose rows are no multiple of 32 stays f16,
and how many did is said. Norms and routers stay float32 in both, as llama.cpp uses them so.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hagane.errors import RunError
from hagane.folder import replace_folder
from hagane.hosts import HOSTS, null
from hagane.hosts.base import Host, as_held
from hagane.hosts.gguf import Gguf, metadata_of, missing_tools, unfit
from hagane.hosts.mtp import held_state
from hagane.model.config import ModelConfig
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import pre_tokenizer_is_ours
from hagane.tokenizer.chat import CHAT_TEMPLATE
from hagane.tokenizer.special import END_OF_TEXT, IM_END

if TYPE_CHECKING:
    import gguf

    from hagane.release.verify_gguf import Reference

Quantisation = Literal["f16", "q8_0"]
QUANTISATIONS: tuple[Quantisation, ...] = ("f16", "q8_0")
BLOCK = 32  # values of a row that share a scale in q8_0
LARGEST = 65504.0  # of half precision
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of token (llama.h, llama_token_type)


class GgufFile(Frozen):
    """One file and how close llama.cpp's answers from it are to those of the float32 masters: natural log-probabilities, bits.

    `unsteady` places are those of the compared ones where rounding changes our own answer as much (experts that tie);
    `steady_kl_bits_per_token` is of the others (None in releases of before it was counted).
    """

    file: str
    quantisation: Quantisation
    bytes: int
    max_logprob_gap: float
    kl_bits_per_token: float
    steady_kl_bits_per_token: float | None = None
    positions: int
    unsteady: int = 0
    greedy_tokens: int
    kept_f16: int = 0


class GgufFacts(Frozen):
    """What was written for llama.cpp; where nothing was, `skipped` says why, and `left_out` what of the model is not in the files."""

    files: tuple[GgufFile, ...] = ()
    architecture: str = ""
    xllamacpp: str = ""
    texts_tokenised: int = 0
    skipped: str = ""
    left_out: str = ""


@dataclass(frozen=True)
class Identity:
    """What a file says about itself. `name` also begins its file name."""

    name: str
    license: str = ""
    author: str = ""


def write_gguf(
    path: Path,
    quantisation: Quantisation,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    host: Host,
    tokenizer: Tokenizer,
    identity: Identity,
    template: str = CHAT_TEMPLATE,
) -> int:
    """Write one file; the number of tensors of a q8_0 file that stayed f16. Raises RunError where a value does not fit half precision."""
    import gguf

    adapter = host.gguf
    assert adapter is not None, "`unfit` was asked"
    writer = gguf.GGUFWriter(path, adapter.architecture)
    try:
        _add_metadata(writer, metadata_of(adapter, config), quantisation, identity)
        _add_tokenizer(writer, tokenizer, config.vocabulary_size)
        writer.add_chat_template(template)
        tensors = dict(adapter.tensors(host.weights.weights_to_host(state, config), config))
        kinds = {name: _kind(name, parts, adapter, quantisation) for name, parts in tensors.items()}
        for name, parts in tensors.items():
            shape = (len(parts), *parts[0].shape) if len(parts) > 1 else tuple(parts[0].shape)
            _announce(writer, name, shape, kinds[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, parts in tensors.items():
            writer.write_tensor_data(_encoded(name, torch.stack(parts) if len(parts) > 1 else parts[0], kinds[name]))
    finally:
        writer.close()
    return sum(quantisation == "q8_0" and kind == "f16" for kind in kinds.values())


def _add_metadata(writer: gguf.GGUFWriter, metadata: Mapping[str, Any], quantisation: Quantisation, identity: Identity) -> None:
    import gguf

    writer.add_type("model")
    writer.add_name(identity.name)
    if identity.license:
        writer.add_license(identity.license)
    if identity.author:
        writer.add_author(identity.author)
    writer.add_file_type({"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[quantisation])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in metadata.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case _:
                writer.add_array(key, list(value))


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, vocabulary_size: int) -> None:
    """The vocabulary in llama.cpp's form. Rows of the embedding beyond the tokenizer's ids are unused tokens."""
    if not pre_tokenizer_is_ours(tokenizer):
        raise RunError("tokenizer.json: its pre_tokenizer is not `qwen2`, the only one that hagane knows by a name of llama.cpp's. Set release.gguf = false.")
    description = json.loads(tokenizer.to_str())
    tokens = [f"[PAD{number}]" for number in range(vocabulary_size)]
    kinds = [UNUSED] * vocabulary_size
    for token, number in description["model"]["vocab"].items():
        tokens[number], kinds[number] = token, NORMAL
    for added in description["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], CONTROL if added["special"] else USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in description["model"]["merges"]])
    # llama.cpp would take its own default for a first token that is not named; none is put before a text
    for add, token in ((writer.add_bos_token_id, END_OF_TEXT), (writer.add_eos_token_id, IM_END), (writer.add_pad_token_id, END_OF_TEXT)):
        number = tokenizer.token_to_id(token)
        if number is not None:
            add(number)
    writer.add_add_bos_token(False)


def _kind(name: str, parts: Sequence[Tensor], adapter: Gguf, quantisation: Quantisation) -> Literal["f32", "f16", "q8_0"]:
    if parts[0].dim() == 1 or name.endswith(adapter.float32):
        return "f32"
    return "q8_0" if quantisation == "q8_0" and parts[0].shape[-1] % BLOCK == 0 else "f16"


def _announce(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: str) -> None:
    import gguf
    import numpy as np

    count = int(np.prod(shape))
    if kind == "q8_0":
        size = count // BLOCK * (BLOCK + 2)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    else:
        dtype = np.dtype(np.float32 if kind == "f32" else np.float16)
        writer.add_tensor_info(name, shape, dtype, count * dtype.itemsize)


def _encoded(name: str, tensor: Tensor, kind: str) -> Any:
    import gguf

    largest = float(tensor.abs().max())
    if not largest <= (LARGEST if kind != "f32" else float("inf")):  # also where it is not a number
        raise RunError(f"tensor {name} holds {largest:.3g}, and half precision ends at {LARGEST:,.0f}: no GGUF can be written. Set release.gguf = false.")
    wide = tensor.detach().float().contiguous()
    if kind == "q8_0":
        return gguf.quants.quantize(wide.numpy(), gguf.GGMLQuantizationType.Q8_0)
    return (wide if kind == "f32" else wide.half()).numpy()


def release_gguf(
    state: Mapping[str, Tensor],
    config: ModelConfig,
    host_name: str,
    tokenizer: Tokenizer,
    folder: Path,
    identity: Identity,
    texts: Sequence[str],
    threads: int = 1,
    template: str = CHAT_TEMPLATE,
) -> GgufFacts:
    """Write `NAME-f16.gguf` and `NAME-q8_0.gguf`, have llama.cpp read them, compare; then `folder` appears whole.

    Modules for multi-token prediction are left out: llama.cpp drafts with other models.
    `state`: float32 masters by canonical name; `texts`: real text of every language of the model. Raises RunError where llama.cpp
    disagrees or cannot hold the model: nothing is left behind, an earlier folder stays.
    """
    from hagane.release.verify_gguf import Reference

    left_out = "llama.cpp has no place for modules for multi-token prediction" if config.mtp_layers else ""
    host, missing, config = HOSTS[host_name], missing_tools(), config.without_mtp
    state = held_state(state, config)
    reason = missing or unfit(host, config)
    if reason is not None:
        raise RunError(f"no GGUF can be written: {reason}. Or set release.gguf = false.")
    temporary = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        reference, held = Reference(state, config, tokenizer, texts, template), null.as_held(state, config)

        def write(path: Path, quantisation: Quantisation) -> int:
            return write_gguf(path, quantisation, held, as_held(config), host, tokenizer, identity, template)

        files = tuple(_files(temporary, identity.name, write, reference, threads))
        replace_folder(temporary, folder)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    assert host.gguf is not None
    version = importlib.metadata.version("xllamacpp")
    return GgufFacts(files=files, architecture=host.gguf.architecture, xllamacpp=version, texts_tokenised=len(reference.texts), left_out=left_out)


def _files(folder: Path, name: str, write: Callable[[Path, Quantisation], int], reference: Reference, threads: int) -> Iterator[GgufFile]:
    for quantisation in QUANTISATIONS:
        path = folder / f"{name}-{quantisation}.gguf"
        kept = write(path, quantisation)
        verdict = reference.compare(path, quantisation, threads)
        yield GgufFile(
            file=path.name, quantisation=quantisation, bytes=path.stat().st_size, max_logprob_gap=verdict.max_logprob_gap,
            kl_bits_per_token=verdict.kl_bits_per_token, steady_kl_bits_per_token=verdict.steady_kl_bits_per_token, positions=verdict.positions,
            unsteady=verdict.unsteady, greedy_tokens=verdict.greedy_tokens, kept_f16=kept,
        )  # fmt: skip
