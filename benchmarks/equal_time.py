"""Bits per byte on the same held-out bytes after the same wall-clock: hagane beside `transformers` and nanochat.

    python benchmarks/equal_time.py --corpus DIR --out DIR --full                 # 5 and 10 minutes, three seeds, ten languages: hours
    python benchmarks/equal_time.py --corpus DIR --seconds 300 --out DIR --full   # 5 minutes only
    python benchmarks/equal_time.py                                               # about five minutes: one run of each, no tuning

--corpus holds one folder of text per language. --out keeps every finished run as a line of `results.jsonl`; the same command goes on
from there (a run that was cut off starts again). Runs of hagane count as done for the code and the settings they were made with.

What is compared. The clock runs from the start of a process until its trained weights are on disk. hagane is the product:
`hagane run RECIPE --until pretrain`, with import, machine profile, corpus, tokenizer, plan, encode and compilation inside the time.
The others get the same cleaned documents in hagane's own mixture of languages, and their tokenizer, encoding and mixing for free;
import, compilation and writing the weights count. All compiler caches are cold, or all are warm with --warm. `transformers` is a
careful script around LlamaForCausalLM (`peers/transformers_train.py`), its learning rate tuned over four values (more where the best is
at an end of the range), then other shapes, the vocabulary size that hagane chose, and smaller batches, then the learning rate again.
nanochat, where HAGANE_NANOCHAT names a checkout, is its own `base_train`: depth 3, 4 and 5, two batch sizes; its interpreter is
HAGANE_NANOCHAT_PYTHON, or the checkout's .venv. Both are tuned on the test bytes themselves with the whole time, and their best run
stands as their first seed: in their favour. Held-out documents are whole, conditioned from their own start, scored in float32 in
windows of the context, every byte once (`peers/score.py`); the others take the better of two ways to begin a window.

The ratio of the bits per byte is to the best of the others, overall (mean over languages, and all bytes together) and language by
language, each to whichever of them is best there. Intervals: 95 %, bootstrap over documents and seeds together.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import digest_of, finish
from hagane.measure.machine import CPU_SHAPES, CUDA_SHAPES, cores, matmul_rate, pick_device
from hagane.recipe.types import duration
from peers.contestants import Hagane, Nanochat, Result, Transformers
from peers.process import ContestantError
from peers.ratios import BY_BYTES, OVERALL, Bits, compare, figures, mean_bits
from peers.text import Text, prepare
from peers.tuning import FIRST_SHAPE, Measure, Settings, tune_learning_rate, tune_nanochat, tune_transformers

GOAL = "<= 0.97"
PEERS_VERSION = 1  # raise it when a change to the drivers of the others makes their kept results invalid
STREAM_BYTES_PER_CORE_SECOND = 30_000  # more than the fastest of the others reads on a core that was measured
OVERHEAD_SECONDS = 45.0  # of a run, for scoring and preparing: only to say how long it will take
EXPECTED_TRIES = {"transformers": (10, 7), "nanochat": (6, 2)}  # of tuning at the first time and at later ones, likewise


@dataclass
class Bench:
    """Runs contestants, keeps what came out, and does nothing twice."""

    contestants: dict[str, Any]
    text: Text
    out: Path
    identity: dict[str, str]  # contestant -> what its kept results belong to
    expected: float = 0.0  # seconds of the runs still to come
    kept: dict[str, Result] = field(default_factory=dict)
    done: list[tuple[str, float]] = field(default_factory=list)  # contestant and time of the kept runs

    def open(self) -> None:
        """Read what an earlier call has finished."""
        path = self.out / "results.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off by a kill: that run starts again
            if json.loads(record["key"])[5] != self.identity.get(record["name"]):
                continue
            self.kept[record["key"]] = record["result"]
            self.done.append((record["name"], record["seconds"]))
            if "pace" in record["result"] and "nanochat" in self.contestants:
                self.contestants["nanochat"].pace[json.dumps(record["settings"], sort_keys=True)] = tuple(record["result"]["pace"])

    def run(self, name: str, settings: Settings, seconds: float, seed: int) -> Result:
        """The result of one run, from the file or by running it."""
        what = f"{seconds:g} s {name}{''.join(f' {key} {value:g}' for key, value in settings.items())} seed {seed}"
        key = json.dumps([name, settings, seconds, seed, self.text.digest, self.identity[name]], sort_keys=True)
        if key in self.kept:
            return self.kept[key]
        left, self.expected = self.expected, max(0.0, self.expected - seconds - OVERHEAD_SECONDS)
        print(f"[{time.strftime('%H:%M')}, about {duration(left)} left] {what}", flush=True)
        device = pick_device("auto")
        rate = max(matmul_rate(device, *sizes) for sizes in (CUDA_SHAPES if device == "cuda" else CPU_SHAPES))
        result: Result = {**self.contestants[name].run(settings, seconds, seed), "matrix_rate": rate}
        self.kept[key] = result
        with (self.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "name": name, "settings": settings, "seconds": seconds, "seed": seed, "result": result}) + "\n")
        print(f"    {self.mean(result):.4f} bits per byte; {result['wall']:.1f} s, {result['tokens'] / 1e6:.2f}M tokens, ", end="")
        print(f"matrix rate before {rate / 1e9:,.0f} GFLOP/s", flush=True)
        return result

    def bits(self, result: Result) -> Bits:
        """Language -> bits of its documents, by the better way to begin a window for all of them together."""
        ways: dict[str, Bits] = result["scores"]
        return min(ways.values(), key=lambda bits: mean_bits(bits, self.text.test_bytes))

    def mean(self, result: Result) -> float:
        """Bits per byte, mean over languages."""
        return mean_bits(self.bits(result), self.text.test_bytes)

    def measure(self, name: str, seconds: float) -> Measure:
        return lambda settings: self.mean(self.run(name, settings, seconds, 0))


@dataclass
class Tuned:
    """What tuning found at the times so far: it starts from there at the next."""

    transformers: Settings | None = None
    nanochat: list[Settings] = field(default_factory=list)


def contest(bench: Bench, seconds: float, seeds: int, tuned: Tuned, full: bool) -> dict[str, list[Result]]:
    """All runs of one time: hagane, the tuning of the others, then the further seeds of everybody in turns. Contestant -> results by seed."""
    ours = bench.run("hagane", {}, seconds, 0)
    chosen: dict[str, Settings] = {"hagane": {}}
    if "transformers" in bench.contestants:
        measure = bench.measure("transformers", seconds)
        if full:
            tuned.transformers = tune_transformers(measure, ours["vocabulary"], tuned.transformers)
        else:
            tuned.transformers = tune_learning_rate(measure, FIRST_SHAPE, (4e-3,))
        chosen["transformers"] = tuned.transformers
    if "nanochat" in bench.contestants:
        start = tuned.nanochat[:2] or ([] if full else [{"depth": 3, "batch": 4096}])
        tuned.nanochat = tune_nanochat(bench.measure("nanochat", seconds), start)
        chosen["nanochat"] = tuned.nanochat[0]
    results: dict[str, list[Result]] = {name: [] for name in chosen}
    for seed in range(seeds):
        for name, settings in chosen.items():
            results[name].append(bench.run(name, settings, seconds, seed))
    for name, settings in chosen.items():
        print(f"{name}: {', '.join(f'{key} {value:g}' for key, value in settings.items()) or describe(results[name][0])}")
    return results


def describe(ours: Result) -> str:
    return f"width {ours['width']}, {ours['layers']} layers, {ours['num_parameters'] / 1e6:.1f}M parameters, vocabulary {ours['vocabulary']:,}"


def report(bench: Bench, seconds: float, results: dict[str, list[Result]], output: tuple[dict[str, float], dict[str, float], dict[str, str]]) -> None:
    """Print the table of one time, and add its figures, their spread and the goals."""
    values, spread, goals = output
    num_bytes = bench.text.test_bytes
    bits = {name: [bench.bits(result) for result in seeds] for name, seeds in results.items()}
    by_name = {name: figures(seeds, num_bytes) for name, seeds in bits.items()}
    others = {name: seeds for name, seeds in bits.items() if name != "hagane"}
    ratios = compare(bits["hagane"], others, num_bytes) if others else {}
    print(f"\nafter {seconds:g} s, bits per byte (mean of {len(results['hagane'])} seeds), {sum(map(sum, num_bytes.values())):,} held-out bytes")
    print(f"{'':<20}" + "".join(f"{name:>14}" for name in by_name) + f"{'hagane / best':>38}")
    for key in by_name["hagane"]:
        ratio = ratios.get(key)
        shown = f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), {ratio.best}" if ratio else ""
        print(f"{key:<20}" + "".join(f"{row[key]:>14.4f}" for row in by_name.values()) + f"{shown:>38}")
    for label, entry, form in (("million tokens", "tokens", 1e6), ("seconds", "wall", 1.0), ("matrix GFLOP/s", "matrix_rate", 1e9)):
        print(f"{label:<20}" + "".join(f"{sum(result[entry] for result in seeds) / len(seeds) / form:>14,.2f}" for seeds in results.values()))
    for name, seeds in results.items():
        if "given_seconds" in seeds[0]:
            print(f"given to {name} before its clock started: {seeds[0]['given_seconds']:.0f} s of tokenizer and encoding")
    values[f"{seconds:g}s hagane bits per byte"] = by_name["hagane"][OVERALL]
    values[f"{seconds:g}s hagane time"] = max(result["wall"] for result in results["hagane"]) / seconds
    goals[f"{seconds:g}s hagane time"] = "<= 1.005"
    for key, ratio in ratios.items():
        values[f"{seconds:g}s {key}"], spread[f"{seconds:g}s {key}"] = ratio.value, ratio.high - ratio.low
    if ratios:
        languages = [key for key in ratios if key not in (OVERALL, BY_BYTES)]
        worst = max(languages, key=lambda language: ratios[language].value)
        values[f"{seconds:g}s worst language"], spread[f"{seconds:g}s worst language"] = ratios[worst].value, ratios[worst].high - ratios[worst].low
        goals |= {f"{seconds:g}s {key}": GOAL for key in (OVERALL, BY_BYTES, "worst language")}
    print()


def source_digest(recipe: str, sets: list[str]) -> str:
    """Of hagane's code and settings: kept results of another version of it are not its own."""
    sources = [path for path in sorted((Path(__file__).resolve().parents[1] / "src").rglob("*")) if path.suffix in (".py", ".toml")]
    return digest_of([*sources, *([Path(recipe)] if recipe.endswith(".toml") else [])], json.dumps([recipe, sets]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="300 and 600 s, three seeds, ten languages, everything tuned")
    parser.add_argument("--quick", action="store_true", help="the default: 100 s, one seed, two languages, nothing tuned")
    parser.add_argument("--corpus", type=Path, help="folder with one folder of text per language; else the Python library's own text")
    parser.add_argument("--out", type=Path, help="results and work; a temporary folder where not given")
    parser.add_argument("--seconds", type=float, nargs="*", help="wall-clock of a run; several are done one after another, shortest first")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--languages", nargs="*", help="names of folders of the corpus, or how many of the largest")
    parser.add_argument("--contestants", nargs="*", choices=("transformers", "nanochat"), help="the others; all that are there where not given")
    parser.add_argument("--recipe", default="nordic", help="hagane's recipe")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="A.B=C", help="a setting of hagane's recipe; may be given again")
    parser.add_argument("--warm", action="store_true", help="compiler caches are kept and filled before a shape is timed, for everybody")
    parser.add_argument("--test-bytes", type=int, help="held-out text per language")
    options = parser.parse_args()
    options.seconds = sorted(options.seconds or ([300.0, 600.0] if options.full else [100.0]))
    options.seeds = options.seeds or (3 if options.full else 1)
    options.languages = options.languages or (["10"] if options.full else ["2"])
    options.test_bytes = options.test_bytes or (100_000 if options.full else 30_000)
    checkout = os.environ.get("HAGANE_NANOCHAT")
    options.checkout = Path(checkout).resolve() if checkout else None
    if options.contestants is None:
        options.contestants = ["transformers", *(["nanochat"] if checkout else [])]
    if "nanochat" in options.contestants and (options.checkout is None or not (options.checkout / "scripts" / "base_train.py").exists()):
        parser.error("nanochat needs HAGANE_NANOCHAT, a checkout of it with scripts/base_train.py")
    return options


def open_bench(options: argparse.Namespace, out: Path) -> Bench:
    """The text, the contestants and what was done before."""
    out.mkdir(parents=True, exist_ok=True)
    # with --full for ten minutes at least: then 300 s can be measured first and 600 s later, on the same text
    stream_bytes = round(STREAM_BYTES_PER_CORE_SECOND * cores() * max(*options.seconds, 600.0 if options.full else 0.0))
    text = prepare(options.corpus, options.languages, stream_bytes, options.test_bytes, out)
    print(f"{sum(text.train_bytes.values()) / 1e6:.1f} MB of text in {', '.join(text.train_bytes)}; ", end="")
    print(f"{sum(map(len, text.test_bytes.values()))} held-out documents of {sum(map(sum, text.test_bytes.values())):,} bytes", flush=True)
    contestants: dict[str, Any] = {"hagane": Hagane(text, out, options.recipe, tuple(options.sets), options.warm)}
    identity = {"hagane": source_digest(options.recipe, options.sets)}
    if "transformers" in options.contestants:
        contestants["transformers"] = Transformers(text, out, options.warm)
    if "nanochat" in options.contestants:
        contestants["nanochat"] = Nanochat(text, out, options.checkout, options.warm, {})
    identity |= {name: f"{name} {PEERS_VERSION}" for name in options.contestants}
    identity = {name: f"{value} {'warm' if options.warm else 'cold'}" for name, value in identity.items()}
    least = contestants["hagane"].smallest()
    if min(options.seconds) < least:
        raise SystemExit(f"hagane refuses a budget that can teach nothing: give --seconds {least:.0f} at least.")
    bench = Bench(contestants, text, out, identity)
    bench.open()
    for number, seconds in enumerate(options.seconds):
        tries = sum(EXPECTED_TRIES[name][min(number, 1)] if options.full else 1 for name in options.contestants)
        bench.expected += (tries + 1 + (options.seeds - 1) * len(contestants)) * (seconds + OVERHEAD_SECONDS)
    done = sum(seconds + OVERHEAD_SECONDS for name, seconds in bench.done if name in contestants and seconds in options.seconds)
    bench.expected = max(0.0, bench.expected - done)
    return bench


def main() -> None:
    options = arguments()
    values: dict[str, float] = {}
    spread: dict[str, float] = {}
    goals: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="hagane-equal-time-") as name:
        bench = open_bench(options, options.out or Path(name))
        tuned = Tuned()
        for seconds in options.seconds:
            try:
                results = contest(bench, seconds, options.seeds, tuned, options.full)
            except ContestantError as error:
                raise SystemExit(f"{error}\nWhat was finished is kept; the same command goes on from there.") from None
            report(bench, seconds, results, (values, spread, goals))
    finish("equal_time", "full" if options.full else "quick", values, spread, goals)


if __name__ == "__main__":
    main()
