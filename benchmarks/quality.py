"""What does reading text that is like a good source more often change, and which way of telling it is best? Small runs of equal tokens, several texts.

    python benchmarks/quality.py                                                      # a few minutes: the Python library's own text
    python benchmarks/quality.py --full --good LAW --others WEB BOOKS --test news=NEWS.jsonl --out OUT

The good source has the same share in every arm, so that only what is read of the other text differs: all of it alike (`off`), or buckets by classifier, by
perplexity and by both. Tested are held-out documents of the good source and of each of the others, and whatever `--test NAME=PATH` names, best something of
neither. Where a ratio is given it is of bits per byte over those of `off` with the same seed; intervals are Student's t over the seeds, 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t as student

from cleaning import HELD_OUT, number, records
from common import finish
from hagane.corpus.records import Record
from peers.process import environment, run_process
from peers.text import choose_test

ARMS = ("off", "classifier", "perplexity", "both")


@dataclass(frozen=True)
class Bench:
    """Where the texts lie, and what every run shares."""

    out: Path
    language: str
    tokens: int
    share: float
    repeats: str
    sets: tuple[str, ...]

    def run(self, arm: str, seed: int) -> dict[str, float]:
        """Bits per byte of each tested text after one run."""
        folder = self.out / "runs" / f"{arm}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        sources = [{"name": name, "path": str((self.out / "text" / name).resolve())} for name in ("good", "others")]
        lines = ['name = "quality"', f"seed = {seed}", "[corpus]", f"exclude = {json.dumps([str((self.out / 'text' / 'test.jsonl').resolve())])}"]
        if arm != "off":
            lines += ["[corpus.quality]", 'good = ["good"]', f'by = "{arm}"', f"repeats = {self.repeats}"]
        for source in sources:
            lines += ["[[corpus.sources]]", *(f"{key} = {json.dumps(value)}" for key, value in source.items()), f'language = "{self.language}"']
            lines += [f"share = {self.share}"] if source["name"] == "good" else []
        lines += ["[tune]", "share = 0"]
        (folder / "recipe.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        env = environment(self.out / "caches")
        command = [sys.executable, "-m", "hagane", "run", str(folder / "recipe.toml"), "--budget", f"{self.tokens}tokens", "--until", "pretrain"]
        command += [word for setting in self.sets for word in ("--set", setting)]
        run_process([*command, "--out", str(folder / "run")], folder / "log", env)
        test = self.out / "text" / "test.jsonl"
        run_process([sys.executable, "-m", "peers.hagane_score", str(folder / "run"), str(test), str(folder / "scores.json")], folder / "score.log", env)
        bits = json.loads((folder / "scores.json").read_text())["carry"]
        sizes = test_sizes(test)
        shutil.rmtree(folder)
        return {name: sum(values) / sizes[name] for name, values in bits.items()}


def test_sizes(path: Path) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        sizes[document["lang"]] += len(document["text"].encode())
    return sizes


def prepare(options: argparse.Namespace, out: Path) -> str:
    """`good/`, `others/` and `test.jsonl`, whose `lang` says which text it is of. Returns the language, that of most documents."""
    folder = out / "text"
    shutil.rmtree(folder, ignore_errors=True)
    tested: dict[str, list[str]] = defaultdict(list)
    languages: Counter[str] = Counter()
    for kind, paths in (("good", options.good), ("others", options.others)):
        (folder / kind).mkdir(parents=True)
        with (folder / kind / "text.jsonl").open("w", encoding="utf-8", errors="replace") as file:
            for path in paths:
                for record, language in records([path]):
                    languages[language] += 1
                    _place(record, kind if kind == "good" else Path(path).name.split(".")[0], file, tested)
    for named in options.test:
        name, _, path = named.partition("=")
        tested[name] += [record.text for record, _ in records([path])]
    lines = [{"lang": name, "text": text} for name, texts in sorted(tested.items()) for text in choose_test(texts, options.test_bytes)]
    (folder / "test.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return languages.most_common(1)[0][0]


def _place(record: Record, name: str, file: object, tested: dict[str, list[str]]) -> None:
    if number(record.text) % HELD_OUT == 0:
        tested[name].append(record.text)
    else:
        print(json.dumps({"id": record.id, "text": record.text}, ensure_ascii=False), file=file)


def report(done: dict[str, list[dict[str, float]]]) -> tuple[dict[str, float], dict[str, float]]:
    """Print the table; figures and their spread."""
    figures: dict[str, float] = {}
    spread: dict[str, float] = {}
    print(f"{'text':<24}{'off':>9}" + "".join(f"{arm:>22}" for arm in done if arm != "off"))
    for name in done["off"][0]:
        plain = [bits[name] for bits in done["off"]]
        cells = [f"{statistics.fmean(plain):>9.4f}"]
        for arm, runs in done.items():
            if arm == "off":
                continue
            ratios = [bits[name] / before for bits, before in zip(runs, plain, strict=True)]
            half = math.inf
            if len(ratios) > 1:
                half = float(student.ppf(0.975, len(ratios) - 1)) * statistics.stdev(ratios) / math.sqrt(len(ratios))
                spread[f"{name}, {arm} over off"] = half
            figures[f"{name}, {arm} over off"] = statistics.fmean(ratios)
            cells.append(f"{statistics.fmean(ratios):.4f} +- {half:.4f}".rjust(22))
        print(f"{name:<24}" + "".join(cells))
    return figures, spread


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="1.5M tokens, three seeds")
    parser.add_argument("--quick", action="store_true", help="the default: 0.2M tokens, one seed")
    parser.add_argument("--good", nargs="+", default=["embedded:python"], help="files or folders of good text, all of one language")
    parser.add_argument("--others", nargs="+", default=["embedded:problems"], help="files or folders of the other text; each is tested by itself")
    parser.add_argument("--test", nargs="*", default=[], metavar="NAME=PATH", help="further texts to test on")
    parser.add_argument("--share", type=float, default=0.1, help="of the good source, in every arm")
    parser.add_argument("--repeats", default="[2, 1, 0.5]")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=ARMS)
    parser.add_argument("--test-bytes", type=int, default=60_000, help="of every text")
    parser.add_argument("--out", type=Path, help="results and work; the same command goes on from there")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="A.B=C")
    options = parser.parse_args()
    options.tokens = options.tokens or (1_500_000 if options.full else 200_000)
    options.seeds = options.seeds or (3 if options.full else 1)
    return options


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="hagane-quality-") as name:
        out = options.out or Path(name)
        bench = Bench(out, prepare(options, out), options.tokens, options.share, options.repeats, tuple(options.sets))
        kept = out / "results.json"
        results = json.loads(kept.read_text()) if kept.exists() else {}
        for seed in range(options.seeds):
            for arm in options.arms:
                key = f"{arm} {seed}"
                if key not in results:
                    print(key, flush=True)
                    results[key] = bench.run(arm, seed)
                    kept.write_text(json.dumps(results, indent=1))
        figures, spread = report({arm: [results[f"{arm} {seed}"] for seed in range(options.seeds)] for arm in options.arms})
    finish("quality", "full" if options.full else "quick", figures, spread, {})


if __name__ == "__main__":
    main()
