"""Every rebuilt system from text to release at laptop size: the mechanisms of its pattern are in the trained model and were at work, its phases have run.

What is expected is written here as its recipe's sources tell it, not taken from the recipe. Widths are pinned, and of 512 experts there are 64, for seconds.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hagane.hosts.gguf import missing_tools
from toy import hagane

pytest.importorskip("transformers")
VOCABULARY, WIDTH = 512, 64
RECIPE = """
name = "{name}-small"
extends = "{name}"
budget = "204800tokens"

[corpus]
sample_bytes = 200000
held_out_share = 0.05

[[corpus.sources]]
name = "problems"
path = "embedded:problems"

[tokenizer]
candidates = [512]
sample_bytes = 200000

[tune]
languages = ["en", "ja"]
families = ["addition_subtraction"]

[evaluate]
items_per_cell = 1
max_new_tokens = 8
max_bytes = 1000
parallel_sentences = 1

[execution]
compile = false
threads = 1
log_every = 1
tensorboard = false
"""
SIZE = (f"model.size.vocabulary_size={VOCABULARY}", f"model.size.width={WIDTH}", "train.learning_rate=0.005")
ROUTED = (*SIZE, "model.size.ffn_hidden=32")
LARGE_STEPS = ("train.context=64", "train.rows=32")  # a hundred steps: the way to many experts costs the same for few tokens


def attention(**fields: Any) -> dict[str, Any]:
    return {"kind": "attention", "num_heads": 2, "num_kv_heads": 1, "head_dim": 32, "window": None, "gate": "none", "partial_rotary": None, **fields}


def latent(**fields: Any) -> dict[str, Any]:
    return {"kind": "latent", "num_heads": 2, "query_rank": 32, "kv_rank": 32, "nope_dim": 32, "rope_dim": 16, "value_dim": 32, "gate": "none", **fields}


def experts(count: int, top_k: int, **fields: Any) -> dict[str, Any]:
    plain = {"score": "softmax", "normalise": True, "scaling": 1.0, "num_groups": 1, "top_groups": 1, "shared_hidden": 0, "shared_gate": False}
    off = {"null_experts": 0, "entropy_clamp": None, "balance": "loss"}
    return {"kind": "experts", "num_experts": count, "top_k": top_k, "hidden": 32, **plain, **off, **fields}


def deepseek(count: int, top_k: int, **fields: Any) -> dict[str, Any]:
    return experts(count, top_k, score="sigmoid", scaling=2.5, shared_hidden=32, balance="bias", z_coefficient=0.0, **fields)


@dataclass(frozen=True)
class System:
    """What a run must come to: fields of mixers and feed-forwards layer by layer, contexts of its phases, where it is released to."""

    settings: tuple[str, ...]
    host: str
    mixers: tuple[dict[str, Any], ...]
    ffns: tuple[dict[str, Any], ...]
    contexts: dict[str, list[int]]  # of every training stage
    gguf: str  # the architecture in llama.cpp, or why there is none
    rates: dict[str, float] = field(default_factory=dict)  # of the later stages' learning rates over pretraining's
    index: tuple[str, ...] = ("sparse",)  # what its phases of pretraining do with an indexer
    mtp_layers: int = 0
    norms_after_experts: bool = False
    scaling: tuple[str, int] | None = None  # how positions are interpolated, and for which context
    model: dict[str, Any] = field(default_factory=dict)  # further fields
    weights: tuple[str, ...] = ()  # that there must be, as patterns
    measured: tuple[str, ...] = ()  # of its routers and indexers while it trained


TUNE, MIDTRAIN = {"tune/supervised": [64]}, {"pretrain": [64], "midtrain": [64]}
DENSE = {"kind": "dense"}
CLAMP = {"marginal_low": 0.98, "conditional_low": 0.05, "conditional_high": 0.95}
LOADS = ("router.effective_experts", "router.conditional_entropy")
SYSTEMS = {
    "llm-jp-4-8b": System(
        (*SIZE, "model.size.num_layers=2"), "llama", (attention(qk_norm=False),) * 2, ({"kind": "dense", "hidden": 224},) * 2,
        {**MIDTRAIN, **TUNE, "extend": [1024]}, "llama", {"midtrain": 0.1, "extend": 0.3}, scaling=("yarn", 1024), model={"init_std": 0.02, "tied": False},
    ),
    "llm-jp-4-32b-a3b": System(
        (*ROUTED, *LARGE_STEPS, "model.size.num_layers=2"), "qwen3_moe", (attention(qk_norm=True),) * 2,
        (experts(128, 8, aux_coefficient=1e-2, z_coefficient=1e-3),) * 2, {**MIDTRAIN, **TUNE, "extend": [1024]}, "qwen3moe",
        {"midtrain": 0.1, "extend": 0.3}, scaling=("yarn", 1024), model={"init_std": 0.006}, weights=(r"mixer\.query_norm", r"router\.weight"), measured=LOADS,
    ),
    "ax-k1": System(
        (*ROUTED, *LARGE_STEPS, "model.size.num_layers=2"), "axk1", (latent(index=None),) * 2,
        (DENSE, deepseek(192, 8, num_groups=8, top_groups=4, aux_coefficient=0.0)), {**MIDTRAIN, **TUNE, "extend": [512]}, "llama.cpp does not know axk1",
        {"midtrain": 1.0, "extend": 0.3}, mtp_layers=1, norms_after_experts=True, scaling=("yarn", 512),
        weights=(r"^layers\.1\.post_ffn_norm", r"ffn\.shared\.", r"router\.bias_E", r"^mtp\.0\.block\.ffn\.router", r"mixer\.query_up"), measured=LOADS,
    ),
    "neurosynth-7": System(
        (*ROUTED, "model.size.num_layers=2"), "qwen3_moe", (attention(qk_norm=True),) * 2,
        (experts(128, 1, normalise=False, aux_coefficient=1e-2, z_coefficient=1e-3, entropy_clamp=CLAMP),) * 2,
        {"pretrain": [32, 256], "extend": [2048], "tune/supervised": [256]},
        "llama.cpp's qwen3moe divides the weights of the chosen experts by their sum; this model has ffn.normalise = false", {"extend": 0.3},
        scaling=("linear", 2048),
        weights=(r"router\.weight",), measured=(*LOADS, "router.clamped_share", "router.multiplier_marginal_low"),
    ),
    "neurosynth-9": System(
        (*ROUTED, "train.context=256", "train.rows=8", "model.pattern.num_experts=64"), "qwen3_next",
        ({"kind": "delta", "num_key_heads": 4, "num_value_heads": 8},) * 3 + (attention(qk_norm=True, gate="sigmoid", partial_rotary=8),),
        (experts(64, 10, shared_hidden=32, shared_gate=True, aux_coefficient=1e-3, z_coefficient=1e-3),) * 4, {"pretrain": [256], "tune/supervised": [256]},
        "qwen3next",
        weights=(r"^layers\.0\.ffn\.shared_gate", r"^layers\.3\.ffn\.shared\."), measured=LOADS,
    ),
    "amplimind-xl": System(
        (*ROUTED, *LARGE_STEPS, "model.size.num_layers=4", "model.pattern.num_experts=64", "model.pattern.null_experts=32", "model.pattern.index_top_k=32"),
        "deepseek_v32", (latent(index={"num_heads": 8, "head_dim": 64, "top_k": 32, "share": 0.9}),) * 4,
        (DENSE,) * 3 + (deepseek(64, 12, null_experts=32, mean_experts=8.0, aux_coefficient=1e-4),), {"pretrain": [64] * 3, **TUNE},
        "llama.cpp knows deepseek_v32, but the gguf package, which writes its files, does not yet", index=("dense", "together", "sparse"),
        weights=(r"^layers\.3\.mixer\.indexer\.query", r"ffn\.shared\.", r"router\.bias_E"),
        measured=(*LOADS, "router.mean_experts", "indexer.divergence", "indexer.keys_read"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    folder: Path

    def read(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())

    def facts(self, stage: str) -> Any:
        return self.read(f"{stage}/facts.json")["facts"]

    def steps(self, stage: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / stage / "metrics.jsonl").read_text().splitlines()]


def run(name: str, folder: Path) -> Done:
    (folder / "small.toml").write_text(RECIPE.format(name=name), encoding="utf-8")
    settings = [part for setting in SYSTEMS[name].settings for part in ("--set", setting)]
    done = hagane("run", folder / "small.toml", "--out", folder / "run", *settings, timeout=900)
    assert json.loads(done.stdout.splitlines()[-1])["run"] == str(folder / "run")
    return Done(folder / "run")


def part_of(wanted: Any, found: Any, where: str) -> None:
    """Every field that is wanted has its value."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict), f"{where} is {found}"
        for key, value in wanted.items():
            part_of(value, found[key], f"{where}.{key}")
    else:
        assert found == wanted, f"{where} is {found}, not {wanted}"


def has_every_mechanism(done: Done, system: System) -> None:
    """The trained model, as pretraining and as tuning left it."""
    for stage in ("pretrain", "tune/supervised"):
        config = done.read(f"{stage}/model.json")
        part_of({"vocabulary_size": VOCABULARY, "width": WIDTH, **system.model}, config, stage)
        assert len(config["layers"]) == len(system.mixers) == len(system.ffns) and len(config["mtp_layers"]) == system.mtp_layers
        for index, (layer, mixer, ffn) in enumerate(zip(config["layers"], system.mixers, system.ffns, strict=True)):
            part_of({"mixer": mixer, "ffn": ffn}, layer, f"{stage} layer {index}")
            assert layer["post_ffn_norm"] == (system.norms_after_experts and ffn["kind"] == "experts") and not layer["post_mixer_norm"]
        for layer in config["mtp_layers"]:
            part_of({"mixer": system.mixers[-1], "ffn": system.ffns[-1], "post_ffn_norm": system.norms_after_experts}, layer, f"{stage} mtp")
    if system.scaling is not None:
        method, context = system.scaling
        assert config["context"] == context and all(layer["mixer"]["rope"][method] is not None for layer in config["layers"])
    names = load_file(done.folder / "tune/supervised" / "weights.safetensors")
    for pattern in system.weights:
        found = [tensor for name, tensor in names.items() if re.search(pattern, name)]
        assert found and all(tensor.any() for tensor in found), pattern


def went_through_every_phase(done: Done, system: System) -> None:
    phases = {stage: parts for stage, parts in done.facts("plan")["phases"].items() if parts}
    assert {stage: [part["context"] for part in parts] for stage, parts in phases.items()} == system.contexts
    assert tuple(dict.fromkeys(part["index"] for part in phases["pretrain"])) == system.index
    for stage, parts in phases.items():
        steps = [step["phase"] for step in done.steps(stage)]
        assert steps == [part["name"] for part in parts for _ in range(part["num_steps"])], f"{stage}: every step of every phase, in order"
    peak = max(step["learning_rate"] for step in done.steps("pretrain"))
    for stage, ratio in system.rates.items():
        assert phases[stage][0]["learning_rate"] == pytest.approx(ratio * peak, rel=1e-6)


def learned(done: Done, system: System) -> None:
    """Loss, and that mechanisms were at work: balanced, clamped, chosen among, predicted with."""
    pretrain, uniform = done.steps("pretrain"), math.log(VOCABULARY)
    assert pretrain[0]["loss"] > uniform - 0.5
    for stage in ("pretrain", "tune/supervised"):
        last = done.steps(stage)[-5:]
        assert sum(step["loss"] for step in last) / len(last) < uniform - 2.5, stage
        assert all((step["mtp_loss"] is not None) == bool(system.mtp_layers) for step in last)
        assert not system.mtp_layers or last[-1]["mtp_loss"] < uniform - 2.5
    last = pretrain[-1]
    for name in system.measured:
        section, _, key = name.partition(".")
        assert math.isfinite(last[section][key]), name
    assert ("router" in {name.partition(".")[0] for name in system.measured}) == (last["router"] is not None)
    assert (last["indexer"] is not None) == (system.index != ("sparse",))
    routed = system.ffns[-1]
    if routed["kind"] == "experts":
        assert last["router"]["effective_experts"] > 0.2 * routed["num_experts"]
    if routed.get("null_experts"):
        used = last["router"]["experts_used"]
        assert 6.5 < last["router"]["mean_experts"] < 9.5 and sum(share > 0.01 for share in used) > 3, "some tokens get more experts than others"
    if last["indexer"] is not None:
        assert 1 <= last["indexer"]["keys_read"] < 24, "of 32.5 that a token of a row of 64 sees on average; 32 at most would be 24.3"


def is_released(done: Done, system: System) -> None:
    """The stage itself refuses a release on which transformers or llama.cpp does not agree; here, that it was compared, and with what."""
    facts, config = done.facts("release"), done.read("release/huggingface/config.json")
    assert facts["host"] == system.host == config["model_type"]
    assert facts["max_logit_gap"] < 1e-3 and facts["greedy_tokens"] > 20 and facts["prompts_checked"] >= 16
    assert bool(facts["left_out"]) == bool(system.mtp_layers), "of modules for further tokens it is told that no host has a place"
    if system.scaling is not None:
        rope_type, context = system.scaling
        assert config["rope_parameters"]["rope_type"] == rope_type and config["max_position_embeddings"] == context
    gguf = facts["gguf"]
    if " " in system.gguf or missing_tools() is not None:
        assert gguf["files"] == [] and gguf["skipped"] == (missing_tools() or system.gguf)
    else:
        assert gguf["architecture"] == system.gguf and gguf["skipped"] == ""
        assert [file["quantisation"] for file in gguf["files"]] == ["f16", "q8_0"]
        assert all((done.folder / "release" / "gguf" / file["file"]).stat().st_size == file["bytes"] for file in gguf["files"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_rebuilt_system_comes_from_text_to_a_release_with_every_mechanism(tmp_path: Path, name: str) -> None:
    done, system = run(name, tmp_path), SYSTEMS[name]
    has_every_mechanism(done, system)
    went_through_every_phase(done, system)
    learned(done, system)
    is_released(done, system)
    evaluated = done.facts("evaluate")
    assert len(evaluated["bits_per_byte"]) >= 5 and evaluated["accuracy"]
    assert {cell["length"] for cell in evaluated["retrieval"]} == ({256, 2048} if name == "neurosynth-7" else set())
    assert f"{name}-small" in (done.folder / "report.html").read_text(encoding="utf-8")
