"""Do the plan's rules for learning rate, batch, weight decay, initial weights and router hold at 4 and 16 times the compute they were tuned at?

    python benchmarks/plan_transfer.py --full --corpus DIR --out DIR                 # some hours on two cores
    python benchmarks/plan_transfer.py --full --corpus DIR --out DIR --minutes 30    # the next half hour of it; again until it says done
    python benchmarks/plan_transfer.py                                               # half a minute: two tiny models, to see that it works

Three dense models and three with experts, of 1, 4 and 16 times the training FLOPs, differ in width, depth, tokens and number of experts at once. Each is
trained by the plan's rules and then with one of them changed at a time: the peak learning rate, the batch, weight decay, the standard deviation of
initial matrices, the embedding table's rate, the coefficient of the routers' loss. The figure is the rules' bits per byte over the best of that sweep
(95 % interval over documents, drawn in pairs); as the best of a dozen is partly luck, the figure errs against the rules. Runs are kept in --out by what
they depend on; trainings count tokens and read no clock, so the machine may be shared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import finish
from hagane.measure.machine import cores
from hagane.measure.rung import Ground, encoded
from hagane.measure.small_runs import ground_of
from hagane.model.config import ModelConfig
from hagane.plan.batch import batch_rule
from hagane.plan.choose import embedding_ratio_rule, learning_rate_rule, mean_bytes_per_token, mixture_of
from hagane.plan.cost import training_flops_per_token
from hagane.plan.shapes import shape
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import Recipe, SizeSettings
from hagane.recipe.types import Phase
from hagane.run import open_run, walk
from peers.ratios import OVERALL, compare, mean_bits
from peers.text import Text, prepare
from small_models import in_processes, keep, open_folder, train_and_score, training_code

GOAL = "<= 1.01"
RULES = "rules"


@dataclass(frozen=True)
class Size:
    """A model and its compute over the smallest one's."""

    name: str
    compute: float
    width: int
    num_layers: int
    num_experts: int  # 0: dense
    top_k: int = 2


@dataclass(frozen=True)
class Change:
    """One rule changed: what its value is multiplied with. `router`: of models with experts only."""

    name: str
    learning_rate: float = 1.0
    batch: float = 1.0
    weight_decay: float = 1.0
    init: float = 1.0
    embedding: float = 1.0
    router: float = 1.0


SIZES = (
    Size("dense 1x", 1, 96, 3, 0), Size("dense 4x", 4, 128, 4, 0), Size("dense 16x", 16, 192, 4, 0),
    Size("experts 1x", 1, 96, 3, 4), Size("experts 4x", 4, 128, 4, 8), Size("experts 16x", 16, 192, 4, 16),
)  # fmt: skip
CHANGES = (
    Change(RULES),
    *(Change(f"learning rate x {factor:g}", learning_rate=factor) for factor in (0.5, 2, 4)),
    *(Change(f"batch x {factor:g}", batch=factor) for factor in (0.5, 2)),
    *(Change(f"weight decay x {factor:g}", weight_decay=factor) for factor in (0, 3)),
    *(Change(f"initial matrices x {factor:g}", init=factor) for factor in (0.5, 2)),
    *(Change(f"embedding's rate x {factor:g}", embedding=factor) for factor in (0.5, 2)),
    *(Change(f"router's loss x {factor:g}", router=factor) for factor in (0.1, 10)),
)
QUICK_SIZES = (Size("dense 1x", 1, 32, 2, 0), Size("dense 4x", 4, 48, 2, 0))


@dataclass
class Bench:
    """What all trainings share. `flops`: training compute of the smallest size."""

    text: Text
    ground: Ground
    out: Path
    flops: float
    vocabulary_size: int
    threads: int

    def recipe(self, size: Size, change: Change) -> Recipe:
        base, _ = load_recipe("nordic", ["corpus.sources=[]"])
        pattern, train = base.model.pattern, base.train
        sets = [f"model.pattern.init_std={pattern.init_std * change.init}", f"train.weight_decay={train.weight_decay * change.weight_decay}"]
        if size.num_experts:
            sets += [f"model.pattern.num_experts={size.num_experts}", f"model.pattern.top_k={size.top_k}"]
            sets += [f"model.pattern.aux_coefficient={pattern.aux_coefficient * change.router}"]
        else:
            sets += ["model.pattern.ffn=dense"]
        return load_recipe("nordic", ["corpus.sources=[]", *sets])[0]

    def planned(self, size: Size, change: Change) -> tuple[Recipe, ModelConfig, Phase]:
        """Model and phase by the plan's rules, one of them changed."""
        recipe = self.recipe(size, change)
        train, context = recipe.train, recipe.train.context
        config = shape(
            recipe.model.pattern, SizeSettings(), width=size.width, num_layers=size.num_layers, vocabulary_size=self.vocabulary_size, context=context
        )
        tokens = size.compute * self.flops / training_flops_per_token(config, context)
        rows = max(1, round(change.batch * batch_rule(recipe, tokens) / context))
        steps = max(1, round(tokens / rows / context))
        rule = learning_rate_rule(config, tokens)
        rates, _ = mixture_of(recipe, self.ground.known, tokens * mean_bytes_per_token(self.ground.known, self.vocabulary_size))
        phase = Phase(
            name="transfer", collection="text", context=context, rows=rows, num_steps=steps, mixture=rates, learning_rate=rule * change.learning_rate,
            warmup_steps=max(1, round(steps * train.warmup_share)), **train.of_phases(),
            # the table's own rate stays where the others' are changed
            embedding_ratio=embedding_ratio_rule(recipe, config, rule) * change.embedding / change.learning_rate,
        )  # fmt: skip
        return recipe, config, phase

    def path(self, size: Size, change: Change, seed: int) -> Path:
        _, config, phase = self.planned(size, change)
        named = [config.model_dump_json(), phase.model_dump_json(), seed, self.text.digest, training_code()]
        return self.out / f"{hashlib.blake2b(json.dumps(named).encode(), digest_size=8).hexdigest()}.json"

    def result(self, size: Size, change: Change, seed: int) -> dict[str, Any]:
        """Train and score; from the file where it was done before."""
        path = self.path(size, change, seed)
        if path.exists():
            return dict(json.loads(path.read_text()))
        recipe, config, phase = self.planned(size, change)
        folder = self.out / f"training-{path.stem}"
        result = train_and_score(self.ground, self.text, recipe, config, phase, folder=folder, seed=seed, threads=self.threads)
        return keep(path, {"size": size.name, "change": change.name, **result})


def one(out: Path, text: Text, folder: Path, flops: float, vocabulary_size: int, threads: int, size: Size, change: Change, seed: int) -> dict[str, Any]:
    """A single training, in a process of its own."""
    return Bench(text, ground_of(open_run(folder)), out, flops, vocabulary_size, threads).result(size, change, seed)


def changes_of(size: Size, full: bool) -> list[Change]:
    changes = [change for change in CHANGES if size.num_experts or change.router == 1]
    return changes if full else changes[:3]


def report(bench: Bench, sizes: tuple[Size, ...], seeds: list[int], full: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Print every sweep; the rules over the best of it, and the width of the interval."""
    figures, spread, num_bytes = {}, {}, bench.text.test_bytes
    for size in sizes:
        _, config, phase = bench.planned(size, CHANGES[0])
        print(f"\n{size.name}: width {config.width}, {config.num_layers} layers, {size.num_experts or 'no'} experts, ", end="")
        print(f"{phase.num_steps * phase.tokens_per_step / 1e6:.2f}M tokens, {phase.tokens_per_step} a step, learning rate {phase.learning_rate:.4g}")
        bits = {change.name: [bench.result(size, change, seed)["bits"] for seed in seeds] for change in changes_of(size, full)}
        mean = {name: sum(mean_bits(one, num_bytes) for one in runs) / len(runs) for name, runs in bits.items()}
        for name, value in mean.items():
            ratio = compare(bits[name], {RULES: bits[RULES]}, num_bytes)[OVERALL] if math.isfinite(value) and name != RULES else None
            print(f"    {name:<26} {value:.4f}" + (f"   {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f})" if ratio else ""))
        best = min(mean, key=lambda name: mean[name])
        ratio = compare(bits[RULES], {best: bits[best]}, num_bytes)[OVERALL]
        print(f"    rules over the best ({best}): {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f})")
        figures[size.name], spread[size.name] = ratio.value, ratio.high - ratio.low
    return figures, spread


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the default: two tiny models on the Python library's own text")
    parser.add_argument("--corpus", type=Path, help="folder with one folder of text per language; else the Python library's own text")
    parser.add_argument("--out", type=Path, help="text and finished trainings; a temporary folder where not given")
    parser.add_argument("--languages", nargs="*", help="names of folders of the corpus, or how many of the largest")
    parser.add_argument("--flops", type=float, help="training compute of the smallest models")
    parser.add_argument("--sizes", nargs="*", help="names of sizes, as in the table; all where not given")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no training after so long")
    options = parser.parse_args()
    options.flops = options.flops or (5e12 if options.full else 2e10)
    options.languages = options.languages or (["10"] if options.full else ["2"])
    return options


def main() -> None:
    options = arguments()
    ends = time.monotonic() + 60 * options.minutes
    sizes = tuple(size for size in (SIZES if options.full else QUICK_SIZES) if not options.sizes or size.name in options.sizes)
    with tempfile.TemporaryDirectory(prefix="hagane-transfer-") as name:
        out = (options.out or Path(name)).resolve()
        out.mkdir(parents=True, exist_ok=True)
        text = prepare(options.corpus, options.languages, 24_000_000 if options.full else 1_000_000, 100_000 if options.full else 10_000, out)
        folder, threads, vocabulary_size = out / f"run-{text.digest[:6]}", max(1, cores() // options.jobs), 2048 if options.full else 1024
        with open_folder("nordic", text, folder, 1200.0) as run:
            walk(run, until="tokenizer", report=False)
            bench = Bench(text, ground_of(run), out, options.flops, vocabulary_size, threads)
        encoded(bench.ground, vocabulary_size)  # once, before processes that would make it at the same time
        wanted = [(size, change, seed) for seed in options.seeds for size in sizes for change in changes_of(size, options.full)]
        missing = [(size, change, seed) for size, change, seed in wanted if not bench.path(size, change, seed).exists()]
        shared = (out, text, folder, options.flops, vocabulary_size, threads)
        calls = [(f"{size.name}, {change.name}, seed {seed}", (*shared, size, change, seed)) for size, change, seed in missing]
        if not in_processes(options.jobs, one, calls, ends):
            print("not done: what was trained is kept, the same command goes on")
            return
        figures, spread = report(bench, sizes, options.seeds, options.full)
    goals = {name: GOAL for name in figures if not name.endswith(" 1x")} if options.full else {}
    finish("plan_transfer", "full" if options.full else "quick", figures, spread, goals)


if __name__ == "__main__":
    main()
