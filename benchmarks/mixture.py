"""Is the mixture that `hagane mix` finds better than UniMax, proportional and uniform reading? Whole runs at equal time, held-out text nobody trained on.

    python benchmarks/mixture.py                                                  smoke: generated text, tiny token budgets, under a minute
    python benchmarks/mixture.py --full --minutes 10 --seeds 3 --corpus DIR       what is quoted

`DIR` has one folder of text per language. First `hagane mix` is given `--search` minutes, then every mixture trains `--seeds` runs of `--minutes`, in turns.
Every run is kept in `--out`, so the same command goes on after a stop, and `--only N` does N runs at a time. Compared is the recipe's objective
(`--set mix.objective=worst`) of the bits per byte of the documents that the search held out: the same for every run, and copies of them go from what
is trained on. (What a short run holds out itself is a few documents of a small sample: they say which of two models is better, but not
which language is the worst.) The interval of a difference is Student's t over the seeds, which are paired.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from common import finish
from hagane.corpus.documents import read_documents
from peers.process import environment, run_process
from peers.score import read_test
from peers.text import choose_test, toy_text

TEST_BYTES = 100_000  # of a language
TOY_DOCUMENTS = {"sv": 300, "fi": 300, "se": 40}  # one of the languages is small
ARMS = ("found", "unimax", "proportional", "uniform")
TOY = (
    "tokenizer.candidates=[384]", "tokenizer.sample_bytes=50000", "model.size.width=16", "model.size.num_layers=1", "model.pattern.head_dim=8",
    "train.context=64", "train.rows=16", "train.dtype=float32", "execution.compile=false", "execution.threads=1", "corpus.sample_bytes=400000",
)  # fmt: skip


def hagane(arguments: list[str]) -> str:
    """Run a command of hagane; its last line."""
    done = subprocess.run([sys.executable, "-m", "hagane", *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"hagane {' '.join(arguments)} ended with {done.returncode}; what was finished is kept, the same command goes on.")
    return done.stdout.splitlines()[-1]


class Bench:
    """Where runs are kept, and what they all share."""

    def __init__(self, options: argparse.Namespace, out: Path, corpus: Path) -> None:
        self.options, self.out, self.corpus = options, out, corpus
        self.path = out / "results.json"
        self.results: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def common(self) -> list[str]:
        sets = [*(TOY if not self.options.full else ()), "tune.share=0", "release.gguf=false", *self.options.sets]
        return ["--corpus", str(self.corpus), *(word for setting in sets for word in ("--set", setting))]

    def keep(self, key: str, value: Any) -> Any:
        self.results[key] = value
        self.path.write_text(json.dumps(self.results, indent=1))
        return value

    def search(self) -> dict[str, Any]:
        """What `hagane mix` finds; in the smoke test, where a search cannot be afforded, a mixture that was thought up."""
        if "search" in self.results:
            return dict(self.results["search"])
        if not self.options.full:
            return dict(self.keep("search", {"weights": {"sv": 1.2, "fi": 1.2, "se": 0.6}, "gain": 0.0, "low": 0.0, "high": 0.0, "gains": False, "proxies": 0}))
        minutes = [f"--budget={self.options.search:g}min", f"--target={self.options.minutes:g}min"]
        return dict(self.keep("search", json.loads(hagane(["mix", self.options.recipe, *minutes, "--out", str(self.out / "mix"), *self.common()]))))

    def sizes(self) -> dict[str, float]:
        folders = [folder for folder in self.corpus.iterdir() if folder.is_dir()]
        return {folder.name: float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())) for folder in folders}

    def mixture(self, arm: str) -> list[str]:
        """Settings that make a run read by this mixture."""
        if arm == "unimax":
            return ["--set", "mix.rule=unimax"]
        if arm == "uniform":
            return ["--set", "mix.rule=unimax", "--set", "corpus.max_repeats=1000000"]
        weights = self.search()["weights"] if arm == "found" else self.sizes()
        mean = sum(weights.values()) / len(weights)
        table = ", ".join(f'"{name}" = {value / mean:.4g}' for name, value in sorted(weights.items()))
        return ["--set", f"mix.weights={{{table}}}"]

    def tested(self) -> Path:
        """What the search held out (in the smoke test some text of the corpus), as the scorer reads it."""
        path = self.out / "test.jsonl"
        if not path.exists():
            texts: dict[str, list[str]] = defaultdict(list)
            corpus = self.out / "mix" / "corpus"
            if self.options.full:
                for name, shard in json.loads((corpus / "facts.json").read_text())["facts"]["shards"].items():
                    texts[shard["language"]] += [record["text"] for record in read_documents(corpus, "held_out", name)]
            else:
                for file in sorted(self.corpus.rglob("*.jsonl")):
                    texts[file.parent.name] += [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()[:5]]
            lines = [{"lang": name, "text": text} for name, own in sorted(texts.items()) for text in choose_test(own, TEST_BYTES)]
            path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        return path

    def run(self, arm: str, seed: int) -> dict[str, float]:
        """Bits per byte of the tested text by language after one whole run."""
        key = f"{arm} {seed}"
        if key in self.results:
            return dict(self.results[key])
        budget = f"{self.options.minutes:g}min" if self.options.full else "204800tokens"
        folder, test = self.out / f"{arm}-{seed}", self.tested()
        place = ["--budget", budget, "--until", "pretrain", "--out", str(folder), "--set", f"seed={seed}"]
        without_copies = ["--set", f"corpus.exclude={json.dumps([str(test.resolve())])}"] if self.options.full else []
        hagane(["run", self.options.recipe, *place, *self.mixture(arm), *without_copies, *self.common()])
        own = {name: value for name, value in os.environ.items() if name == "HAGANE_CACHE"}
        score = [sys.executable, "-m", "peers.hagane_score", str(folder), str(test), str(folder / "scores.json")]
        run_process(score, folder / "score.log", environment(self.out / "caches", **own))
        bits, sizes = json.loads((folder / "scores.json").read_text())["carry"], Counter[str]()
        for document in read_test(test):
            sizes[document["lang"]] += len(document["text"].encode())
        return dict(self.keep(key, {name: sum(values) / sizes[name] for name, values in bits.items()}))


def objective(bits: dict[str, float], sets: list[str]) -> float:
    return max(bits.values()) if "mix.objective=worst" in sets else statistics.fmean(bits.values())


def compared(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Mean relative gain over pairs, and half of its 95 % interval."""
    gains = [1 - a / b for a, b in zip(ours, theirs, strict=True)]
    if len(gains) < 2:
        return gains[0], math.inf
    return statistics.fmean(gains), float(student.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / math.sqrt(len(gains))


def report(bench: Bench, done: dict[str, list[dict[str, float]]]) -> tuple[dict[str, float], dict[str, float]]:
    """Print the table; figures and their spread."""
    sets, found = bench.options.sets, bench.search()
    values = {arm: [objective(bits, sets) for bits in runs] for arm, runs in done.items() if runs}
    figures, spread = {"predicted gain": found["gain"], "proxies": float(found["proxies"])}, {"predicted gain": (found["high"] - found["low"]) / 2}
    print(f"{'mixture':<14} {'bits per byte':>14}  gain of the found mixture over it")
    for arm, runs in values.items():
        figures[arm] = statistics.fmean(runs)
        told = ""
        if arm != "found" and "found" in values:
            count = min(len(runs), len(values["found"]))
            gain, half = compared(values["found"][:count], runs[:count])
            figures[f"gain over {arm}"], spread[f"gain over {arm}"] = gain, half
            told = f"{100 * gain:+.2f} % +- {100 * half:.2f} ({count} pairs)"
        print(f"{arm:<14} {figures[arm]:>14.4f}  {told}")
    return figures, {name: value for name, value in spread.items() if math.isfinite(value)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the default")
    parser.add_argument("--minutes", type=float, default=10.0, help="of one whole run")
    parser.add_argument("--search", type=float, default=30.0, help="minutes for hagane mix")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--recipe", default="nordic")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=ARMS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", type=int, help="stop after this many new runs; the same command goes on")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="A.B=C")
    options = parser.parse_args()
    options.seeds = options.seeds or (3 if options.full else 1)
    if options.full and options.corpus is None:
        parser.error("--full needs --corpus, a folder with one folder of text per language")
    return options


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="hagane-mixture-") as name:
        out = options.out or Path(name)
        out.mkdir(parents=True, exist_ok=True)
        bench = Bench(options, out, options.corpus.resolve() if options.full else toy_text(Path(name) / "texts", TOY_DOCUMENTS, 200))
        bench.search()
        done: dict[str, list[dict[str, float]]] = {arm: [] for arm in options.arms}
        new = 0
        for seed in range(options.seeds):
            for arm in options.arms:
                if f"{arm} {seed}" not in bench.results:
                    if options.only is not None and new >= options.only:
                        raise SystemExit(f"{new} runs done; the same command goes on.")
                    new += 1
                    print(f"[{time.strftime('%H:%M')}] {arm}, seed {seed}", flush=True)
                done[arm].append(bench.run(arm, seed))
        figures, spread = report(bench, done)
    goals = {"gain over unimax": ">= 0.02"} if options.full and "gain over unimax" in figures else {}
    finish("mixture", "full" if options.full else "quick", figures, spread, goals)


if __name__ == "__main__":
    main()
