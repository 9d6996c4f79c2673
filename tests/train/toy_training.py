"""A toy stage of training: shards of made-up text, a tiny dense and a tiny routed model.

Run as a script, it is a server of training processes for the tests that kill them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hagane.data.pack import stream_rows, whole_rows
from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, EntropyClamp, ExpertsConfig, IndexConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.recipe.types import Phase
from hagane.train import loop
from hagane.train.callbacks import Callback, StepInfo
from hagane.train.settings import TrainSettings

VOCABULARY = 97
CONTEXT = 16


class Crash(BaseException):
    pass


class CrashAt(Callback):
    """Ends the process's work after a step, as a kill would, but for the writing of a checkpoint that was begun."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, info: StepInfo) -> None:
        if info.step == self.step:
            raise Crash


def model(kind: str = "dense", width: int = 32) -> ModelConfig:
    """Two layers; the second of `routed` has experts, those of `bias` balanced by bias, of `null` with null ones and a clamp that pulls, too.

    So have that and one of two modules for further tokens of `mtp`.

    `latent`: latent attention, once with latent queries; the first of `delta` is Gated DeltaNet.
    `indexed`: latent attention to a fixed number of keys and to an adaptive one, the second layer with experts.
    """
    if kind == "indexed":
        indexers = [IndexConfig(num_heads=4, head_dim=8, top_k=4, share=share) for share in (None, 0.7)]
        mixers = [LatentConfig(num_heads=2, query_rank=10, kv_rank=12, nope_dim=12, rope_dim=4, value_dim=8, index=index) for index in indexers]
        ffns = DenseConfig(hidden=64), ExpertsConfig(num_experts=4, top_k=2, hidden=32, score="sigmoid", balance="bias", shared_hidden=32)
        layers = tuple(LayerConfig(mixer=mixer, ffn=ffn) for mixer, ffn in zip(mixers, ffns, strict=True))
        return ModelConfig(vocabulary_size=VOCABULARY, width=width, layers=layers, context=CONTEXT)
    if kind == "latent":
        mixers = [LatentConfig(num_heads=2, query_rank=rank, kv_rank=12, nope_dim=12, rope_dim=4, value_dim=8) for rank in (None, 10)]
        latents = tuple(LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=64)) for mixer in mixers)
        return ModelConfig(vocabulary_size=VOCABULARY, width=width, layers=latents, context=CONTEXT)
    mixer = AttentionConfig(num_heads=2, num_kv_heads=1, head_dim=16, qk_norm=True)
    dense = DenseConfig(hidden=64)
    ffn = dense if kind in ("dense", "delta") else ExpertsConfig(num_experts=4, top_k=2, hidden=32, balance="loss" if kind == "routed" else "bias")
    if kind == "null" and isinstance(ffn, ExpertsConfig):
        ffn = ffn.model_copy(update={"null_experts": 3, "mean_experts": 1.2, "entropy_clamp": EntropyClamp(marginal_low=0.99, conditional_high=0.6)})
    layers = (LayerConfig(mixer=mixer, ffn=dense), LayerConfig(mixer=mixer, ffn=ffn))
    if kind == "mtp":
        layers = (layers[0], LayerConfig(mixer=mixer, ffn=ExpertsConfig(num_experts=4, top_k=2, hidden=32, balance="bias")))
        return ModelConfig(vocabulary_size=VOCABULARY, width=width, layers=layers, mtp_layers=layers[::-1], context=CONTEXT)
    if kind == "delta":
        delta = DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=8)
        gated = mixer.model_copy(update={"gate": "sigmoid", "partial_rotary": 4})
        layers = (LayerConfig(mixer=delta, ffn=dense), LayerConfig(mixer=gated, ffn=dense))
    return ModelConfig(vocabulary_size=VOCABULARY, width=width, layers=layers, context=CONTEXT)


def write_collection(folder: Path, shards: dict[str, int], *, contexts: tuple[int, ...] = (CONTEXT,), tune: bool = False, vocabulary: int = VOCABULARY) -> None:
    """Shards of pseudo-text that can be learned: in each document the next token follows from the last by a fixed step."""
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {"format": 1, "dtype": "uint16", "vocabulary_size": vocabulary, "end_token": 0, "shards": {}}
    for name, num_documents in shards.items():
        generator = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little"))
        documents = []
        for _ in range(num_documents):
            length, start, step = generator.integers(4, CONTEXT), generator.integers(1, vocabulary), generator.integers(1, 4)
            documents.append(np.concatenate([[0], 1 + (start + step * np.arange(length)) % (vocabulary - 1)]))
        starts = np.cumsum([0, *(len(document) for document in documents)])
        stream = np.concatenate([*documents, *([] if tune else [[0]])]).astype("<u2")
        stream.tofile(folder / f"{name}.bin")
        np.save(folder / f"{name}.documents.npy", starts.astype(np.int64))
        if tune:
            (np.arange(len(stream)) % 3 > 0).astype(np.uint8).tofile(folder / f"{name}.weight.bin")
        for context in contexts:
            rows = whole_rows(starts, context).rows if tune else stream_rows(len(stream), context)
            rows.save(folder / f"{name}.rows-{context}.npz")
        index["shards"][name] = {"language": "en", "source": name, "tokens": len(stream), "documents": num_documents, "bytes": 2 * len(stream)}
    (folder / "index.json").write_text(json.dumps(index))


def write_data(folder: Path) -> Path:
    """The `encode` folder of all tests: text of two shards, conversations of one."""
    write_collection(folder / "text", {"first.en": 60, "second.sv": 25}, contexts=(CONTEXT, 2 * CONTEXT))
    write_collection(folder / "tune", {"talk.en": 40}, tune=True)
    return folder


def phase(**changes: Any) -> Phase:
    values: dict[str, Any] = {
        "name": "main", "collection": "text", "context": CONTEXT, "rows": 4, "num_steps": 20, "mixture": {"first.en": 0.7, "second.sv": 0.3},
        "learning_rate": 1e-2, "warmup_steps": 3, "decay_share": 0.3,
    }  # fmt: skip
    return Phase(**{**values, **changes})


def settings(folder: Path, data: Path, kind: str = "dense", phases: tuple[Phase, ...] | None = None, **changes: Any) -> TrainSettings:
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"seed": 3, "threads": 1, "compile": False, "log_every": 5, "checkpoint_seconds": 1e9, "matmul_flops": 1e11, "power_watts": 10.0}
    return TrainSettings(folder=folder, model=model(kind), phases=phases or (phase(),), data=(data,), **{**values, **changes})


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


def lines(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in lines(folder, "events.jsonl") if line["event"] == kind]


def main(folder: Path, data: Path, asked: dict[str, Any]) -> None:
    """Train as asked, saving as often as asked, every step slowed down by `step_seconds`; with `deadline` steered."""
    loop.SAVE_SHARE, loop.LAST_STRETCH = 1e9, 0.0

    class Slow(Callback):
        def on_step(self, info: StepInfo) -> None:
            time.sleep(asked.get("step_seconds", 0.0))

    phases = tuple(phase(**values) for values in asked.get("phases", [{}]))
    begun = time.monotonic()
    remaining = (lambda: asked["deadline"] - (time.monotonic() - begun)) if "deadline" in asked else None
    loop.train(settings(folder, data, asked.get("kind", "dense"), phases, **asked.get("settings", {})), remaining, [Slow()])


def serve() -> None:
    """A process with everything imported that forks for each line {"folder", "data", "asked"}: prints the child's id, then its exit status."""
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # imported by the first optimizer: once here instead of in every child
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                main(Path(order["folder"]), Path(order["data"]), order["asked"])
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
