"""A made-up run folder with realistic facts, so that the report can be looked at and tested without training anything."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from hagane.corpus.build import CorpusFacts
from hagane.evaluate.facts import EvaluateFacts
from hagane.plan.facts import PlanFacts
from hagane.report.page import render
from hagane.train.facts import TrainFacts

LANGUAGES = ("en", "ja", "ko", "zh", "sv", "nb", "is", "fi", "de")
FAMILIES = ("number_words", "dates", "comparison", "addition_subtraction", "multiplication", "two_step", "units", "days_between")
STAGES = ("corpus", "tokenizer", "plan", "encode", "pretrain", "converse", "tune", "evaluate", "release")
SECONDS = {"corpus": 9.4, "tokenizer": 6.1, "plan": 12.8, "encode": 3.9, "pretrain": 168.4, "converse": 8.0, "tune": 57.2, "evaluate": 21.3, "release": 8.4}
PLANNED = {
    "corpus": 9.4, "tokenizer": 6.1, "plan": 12.8, "encode": 4.0, "pretrain": 171.0, "converse": 9.0, "tune/supervised": 57.0, "evaluate": 20.0, "release": 9.0,
}  # fmt: skip
TOKENS = {"pretrain": 1_720_320, "tune/supervised": 589_824}
MACHINE = {
    "name": "2-core x86_64 CPU", "device": "cpu", "num_cores": 2, "memory_bytes": 16 << 30, "matmul_flops": 3.1e11, "bandwidth": 2.2e10,
    "power_watts": 31.0, "power_source": "stated model: 15 W and 8 W per core", "steps": {},
}  # fmt: skip
SAMPLES = (
    ("thinking", "sv", "two_step", "Anna har 24 äpplen. Hon köper 18 till och ger bort 7. Hur många har hon nu?", "24 + 18 = 42\n42 - 7 = 35", "35", "35"),
    (
        "thinking",
        "ja",
        "number_words",
        "「三千四百二十一」を数字で書いてください。",
        "三千 = 3000\n四百 = 400\n二十一 = 21\n3000 + 400 + 21 = 3421",
        "3421",
        "3421",
    ),
    ("plain", "de", "addition_subtraction", "Was ist 4718 + 2956?", "", "7664", "7674"),
    ("thinking", "is", "days_between", "Hve margir dagar eru frá 3. mars til 19. apríl?", "mars: 31 - 3 = 28\napríl: 19\n28 + 19 = 47", "47", "47"),
    ("plain", "ko", "comparison", "982와 1014 중 어느 것이 더 큽니까?", "", "1014", "1014"),
    ("plain", "fi", "units", "Kuinka monta metriä on 3 kilometriä ja 250 metriä?", "", "3 025 m", "3250 m"),
)


def wilson(correct: int, total: int) -> dict[str, float]:
    p, z = correct / total, 1.959964
    middle, half = (p + z * z / (2 * total)) / (1 + z * z / total), z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return {"low": middle - half, "high": middle + half}


def plan_facts(languages: tuple[str, ...] = LANGUAGES, *, dense: bool = False) -> dict[str, Any]:
    """Facts of the plan stage, checked by the class that writes them."""
    mixer = {"kind": "attention", "num_heads": 8, "num_kv_heads": 4, "head_dim": 32, "qk_norm": True, "window": None, "rope": {"theta": 10000.0}}
    ffn: dict[str, Any] = {"kind": "dense", "hidden": 688} if dense else {"kind": "experts", "num_experts": 8, "top_k": 2, "hidden": 344}
    phase = {"collection": "text", "context": 256, "rows": 16, "num_steps": 420, "mixture": {"stdlib.en": 1.0}, "learning_rate": 6e-3}
    shards = [f"problems.{tag}" for tag in languages] + ["stdlib.en", "stdlib.code-python"]
    facts = {
        "budget": "5min", "machine": MACHINE, "vocabulary_size": 2048, "num_parameters": 4_120_064 if dense else 8_912_384,
        "num_active_parameters": 4_120_064,
        "model": {"vocabulary_size": 2048, "width": 256, "layers": [{"mixer": mixer, "ffn": ffn}] * 4, "tied": False, "context": 256},
        "context": 256, "tokens_per_step": 4096, "tokens": 2_310_000, "expected_tokens": 2_500_000, "flops": 5.8e13,
        "stages": {name: {"seconds": seconds, "tokens": TOKENS.get(name, 0), "steps": TOKENS.get(name, 0) // 4096} for name, seconds in PLANNED.items()},
        "phases": {"pretrain": [{"name": "pretrain", **phase}], "tune/supervised": [{"name": "supervised", **phase, "collection": "tune"}]},
        "mixture": {name: 1 / len(shards) for name in shards}, "repeats": {name: 0.4 + 0.1 * i for i, name in enumerate(shards)}, "items_per_cell": 28,
        "predicted": {"bits_per_byte": 1.58, "low": 1.39, "high": 1.77, "seconds": 298.0, "joules": 9240.0, "peak_memory_bytes": 1_420_000_000},
        "law": "prior of 2026-01, width 64 to 512",
        "reasons": {
            "vocabulary": "2,048: lowest expected bits per byte of 1,024, 2,048, 4,096, 8,192 at this budget",
            "model": "width 256, 4 layers: lowest expected loss of the ladder in 3min 48s of training by the law",
            "batch": "16 rows of 256 tokens: Step Law (Li et al. 2025), 0.58 D^0.571 = 4,041 tokens for D = 2,310,000",
            "learning_rate": "0.006: Step Law (Li et al. 2025), at most 0.008",
        },
    }  # fmt: skip
    PlanFacts.model_validate(facts)
    return facts


def corpus_facts(languages: tuple[str, ...]) -> dict[str, Any]:
    shards = {
        f"problems.{tag}": {"source": "problems", "language": tag, "license": ["Apache-2.0"], "documents": 4200 + i, "bytes": 612_000 + 9000 * i}
        for i, tag in enumerate(languages)
    }
    shards["stdlib.en"] = {"source": "stdlib", "language": "en", "license": ["PSF-2.0"], "documents": 9120, "bytes": 4_100_000}
    shards["stdlib.code-python"] = {"source": "stdlib", "language": "code-python", "license": ["PSF-2.0"], "documents": 1804, "bytes": 11_400_000}
    for shard in shards.values():
        shard |= {"held_out_documents": 40, "held_out_bytes": 61_000}
    dropped = {
        "duplicate": {"documents": 611, "bytes": 240_110},
        "too_short": {"documents": 2204, "bytes": 30_017},
        "special_token": {"documents": 2, "bytes": 4020},
    }
    identified = {
        "labels": {"classifier": 310, "none": 4, "py3langid": 17, "record": 48_000, "source": 3473}, "found": {"is": 310, "da": 17, "und": 4}, "checked": 0,
        "languages": {
            tag: {"held_out": 80, "precision": 0.9875, "recall": 0.975, "confusions": {"nn": 2}, "known": True} for tag in languages
        },
        "seconds": 2.4,
    }  # fmt: skip
    facts = {
        "documents_in": 51_804, "bytes_in": 21_700_000, "documents_kept": 48_987, "bytes_kept": 21_350_000, "dropped": dropped, "shards": shards,
        "files": 210, "files_not_needed": 3, "ignored_files": {".pyc": 12}, "identified": identified, "seconds": 9.1,
    }  # fmt: skip
    CorpusFacts.model_validate(facts)
    return facts


ROUTING = {
    "mean_experts": 1.87, "experts_used": [0.08, 0.21, 0.47, 0.24], "loss_correlation": 0.314, "clamped_share": 0.125,
    "multiplier_marginal_low": 0.0123, "multiplier_conditional_low": 0.001, "multiplier_conditional_high": 0.001,
}  # fmt: skip
"""What a model with null experts and clamping says besides."""


def metrics(stage: str, steps: int, *, dense: bool, seconds: float) -> list[dict[str, Any]]:
    draw = random.Random(stage)
    lines = []
    for i in range(steps // 2):
        progress = (i + 1) / (steps // 2)
        level = 7.6 * math.exp(-9 * progress) + 2.1 * (1 - 0.22 * progress) if stage == "pretrain" else 1.4 * math.exp(-6 * progress) + 0.31
        router = {
            "max_violation": 0.9 * math.exp(-5 * progress) + 0.12 + draw.random() * 0.08, "dead_share": max(0.0, 0.08 - 0.4 * progress),
            "effective_experts": 8 - 1.6 * math.exp(-4 * progress) - draw.random() * 0.05, "conditional_entropy": 1.3, "marginal_entropy": 2.06,
            **(ROUTING if stage == "pretrain" else {}),
        }  # fmt: skip
        lines.append({
            "step": 2 * (i + 1), "phase": stage, "progress": progress, "tokens": 2 * (i + 1) * 4096, "seconds": seconds * progress,
            "loss": float("nan") if i == 70 else level + draw.gauss(0, 0.05), "auxiliary_loss": 0.01, "learning_rate": 6e-3, "gradient_norm": 0.6,
            "tokens_per_second": 10_300 + draw.gauss(0, 160) - (2600 if 0.4 < progress < 0.55 and stage == "pretrain" else 0),
            "flop_utilisation": 0.47 + draw.gauss(0, 0.008), "data_seconds": 0.001, "memory_bytes": 1_300_000_000, "router": None if dense else router,
        })  # fmt: skip
    return lines


def evaluate_facts(languages: tuple[str, ...]) -> dict[str, Any]:
    draw = random.Random(7)
    bits = {tag: 1.05 + 0.09 * i for i, tag in enumerate(languages)} | {"code-python": 1.36}
    right = {"thinking": (0.99, 0.97, 0.99, 0.985, 0.91, 0.86, 0.95, 0.72), "plain": (0.97, 0.62, 0.95, 0.11, 0.22, 0.08, 0.41, 0.05)}
    cells, baseline = [], []
    for mode, shares in right.items():
        for family, share in zip(FAMILIES, shares):
            for tag in languages[:9]:
                correct = round(28 * min(1, share + draw.gauss(0, 0.02)))
                cells.append({"family": family, "language": tag, "mode": mode, "correct": correct, "total": 28, **wilson(correct, 28)})
    for family in FAMILIES:
        for tag in languages[:9]:
            correct = draw.randrange(0, 4)
            baseline.append({"family": family, "language": tag, "mode": "plain", "correct": correct, "total": 28, **wilson(correct, 28)})
    facts = {
        "bits_per_byte": {
            tag: {"value": value, "low": value - 0.03, "high": value + 0.035, "bytes": 50_000, "tokens": 17_200, "documents": 31} for tag, value in bits.items()
        },
        "parallel": {
            tag: {"bits_per_sentence": 61 + 3.1 * i, "low": 59 + 3.1 * i, "high": 63.4 + 3.1 * i, "sentences": 200} for i, tag in enumerate(languages)
        },
        "accuracy": cells, "baseline": baseline, "seconds": 20.9,
        "samples": [
            {"mode": mode, "language": tag, "family": family, "prompt": prompt, "expected": expected,
             "output": (f"{thinking}\n</think>\n\n{answer}" if thinking else answer) + "<|im_end|>", "correct": answer == expected}
            for mode, tag, family, prompt, thinking, answer, expected in SAMPLES
        ],
        "unanswered": [{"mode": "thinking", "thinking_open": 3, "unfinished": 5}, {"mode": "plain", "thinking_open": 0, "unfinished": 0}],
    }  # fmt: skip
    EvaluateFacts.model_validate(facts)
    return facts


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_training(folder: Path, stage: str, *, dense: bool) -> dict[str, Any]:
    """Metrics and events of a training stage; returns its facts."""
    inner = folder / (stage if stage == "pretrain" else "tune/supervised")
    inner.mkdir(parents=True)
    steps, seconds = (418, 166.9) if stage == "pretrain" else (144, 56.1)
    lines = metrics(stage, steps, dense=dense, seconds=seconds)
    write_lines(inner / "metrics.jsonl", lines)
    start = 1767225600.5 + 200 * (stage == "tune")
    events = [
        {"time": start, "step": 0, "event": "start"},
        {"time": start + 30, "step": 60, "event": "steer", "number": 1, "at_step": 62, "steps": [356], "steps_before": [358]},
        {"time": start + 35, "step": 100, "event": "checkpoint", "seconds": 0.2},
        {"time": start + 50, "step": 100, "event": "resume", "attempt": 2},
    ]
    write_lines(inner / "events.jsonl", events)
    facts = {
        "steps": steps, "tokens": steps * 4096, "planned_tokens": 420 * 4096, "seconds": seconds, "final_loss": lines[-1]["loss"], "mean_utilisation": 0.468,
        "tokens_per_second": 10_258.0, "compile_seconds": 11.2, "peak_memory_bytes": 1_311_000_000, "joules": seconds * 31.0,
        "router": lines[-1]["router"], "attempts": 2,
    }  # fmt: skip
    TrainFacts.model_validate(facts)
    return facts if stage == "pretrain" else {"steps": {"supervised": facts}}


def write_run(folder: Path, *, until: str | None = None, dense: bool = False, languages: tuple[str, ...] = LANGUAGES) -> Path:
    """A run folder up to and including stage `until` (all stages where None)."""
    done = STAGES if until is None else STAGES[: STAGES.index(until) + 1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text('extends = "quickstart"\nname = "quickstart"\n', encoding="utf-8")
    settings = {"name": "quickstart", "description": "Nine languages and Python, from nothing but what is installed.", "budget": "5min"}
    environment = {
        "format": 1, "hagane": "0.1.0", "versions": {"python": "3.11.9", "torch": "2.13.0", "tokenizers": "0.22.1"}, "machine": MACHINE,
        "commit": "0123456789abcdef", "seed": 0, "settings": settings, "pinned": [],
    }  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    (folder / "clock.json").write_text(json.dumps({"seconds": 40.0 if until else 297.6, "origin": 0.0, "attempts": 2}), encoding="utf-8")
    for stage in done:
        facts: dict[str, Any] = {}
        match stage:
            case "corpus":
                facts = corpus_facts(languages)
            case "plan":
                facts = plan_facts(languages, dense=dense)
            case "pretrain" | "tune":
                facts = write_training(folder, stage, dense=dense)
            case "evaluate":
                facts = evaluate_facts(languages)
            case "release":
                facts = {
                    "host": "qwen3_moe", "folder": "huggingface", "num_parameters": 8_912_384, "num_active_parameters": 4_120_064, "max_logit_gap": 3.1e-6,
                    "greedy_equal": True, "prompts_checked": 8, "bytes": 17_900_000, "dtype": "bfloat16",
                    "gguf": {"files": [{"file": "toy-f16.gguf", "bytes": 17_900_000, "max_logprob_gap": 0.0125, "kl_bits_per_token": 2e-7}], "skipped": ""},
                }  # fmt: skip
        (folder / stage).mkdir(exist_ok=True)
        record = {"stage": stage, "key": "k", "digest": "d", "seconds": SECONDS[stage], "finished": "2026-01-01T00:05:00Z", "facts": facts}
        (folder / stage / "facts.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def count_energy(folder: Path, stages: Collection[str]) -> None:
    """Say of these training stages that a counter counted their joules."""
    for stage in stages:
        path = folder / stage / "facts.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        (record["facts"]["steps"]["supervised"] if stage == "tune" else record["facts"])["counted"] = True
        path.write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture(name="count_energy")
def _count_energy() -> Callable[[Path, Collection[str]], None]:
    return count_energy


@pytest.fixture
def make_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "quickstart")


@pytest.fixture(scope="session")
def finished_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a finished run, rendered once."""
    return render(write_run(tmp_path_factory.mktemp("finished") / "quickstart"))
