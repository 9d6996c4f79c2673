"""A whole run at toy size: seconds on one core, every stage, nothing compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RECIPE = """
name = "toy"
description = "A recipe for tests: two languages, a few steps."
budget = "240000tokens"

[corpus]
sample_bytes = 400000
held_out_share = 0.05

[[corpus.sources]]
name = "problems"
path = "embedded:problems"

[tokenizer]
candidates = [512]
sample_bytes = 200000

[model.pattern]
ffn = "{ffn}"
num_experts = 4
top_k = 2

[train]
context = 128
rows = 8

[tune]
share = 0.4
languages = ["en", "ja"]

[evaluate]
items_per_cell = 1
max_new_tokens = 64
max_bytes = 3000
parallel_sentences = 4

[execution]
compile = false
threads = 1
checkpoint_seconds = 0.3
tensorboard = false
"""

SETTINGS = ("--set", "model.size.width=64", "--set", "model.size.num_layers=2")


def write_recipe(folder: Path, ffn: str = "dense") -> Path:
    path = folder / "toy.toml"
    path.write_text(RECIPE.format(ffn=ffn), encoding="utf-8")
    return path


def hagane(*arguments: str | Path, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=check, timeout=timeout, env=environment())


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "hagane", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
