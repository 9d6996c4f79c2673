"""Do the plan's rules for learning rate, batch, weight decay, initial weights and router hold at 4 and 16 times the compute they were tuned at?

    python benchmarks/plan_transfer.py --full --corpus DIR --out DIR                 # some hours on two cores
    python benchmarks/plan_transfer.py --full --corpus DIR --out DIR --minutes 30    # the next half hour of it; again until it says done
    python benchmarks/plan_transfer.py                                               # half a minute: two tiny models, to see that it works

Three dense models and three with experts, of 1, 4 and 16 times the training FLOPs, differ in width, depth, tokens and number of experts at once. Each is
trained by the plan's rules and then with one of them changed at a time: the peak learning rate, the batch, weight decay, the standard deviation of
initial matrices, the embedding table's rate, the coefficient of the routers' loss. Those with experts are there again with a router that a bias alone balances,
as A.X K1's, of which only the bias's rate is changed. The figure is the rules' bits per byte over the best of that sweep (95 % interval over documents, drawn
in pairs); as the best of a dozen is partly luck, the figure errs against the rules. Beside each size stands whether its learning rate is Step Law's or its cap:
where the cap holds, it is the cap that was transferred. Runs are kept in --out by what they depend on; trainings count tokens and read no clock, so the machine
may be shared.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import finish
from hagane.measure.small_runs import ground_of
from hagane.model.config import BIAS_RATE, ModelConfig
from hagane.plan.choose import highest_rate, learning_rate_rule, step_law_rate
from hagane.plan.cost import training_flops_per_token
from hagane.plan.shapes import shape
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.run import walk
from peers.ratios import OVERALL, compare, mean_bits
from peers.text import prepare
from small_models import Arm, Arms, open_folder

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
    bias: bool = False  # routers are balanced by a bias alone


@dataclass(frozen=True)
class Change:
    """One rule changed: what its value is multiplied with. `router`: of models whose experts a loss balances; `bias`: of those that a bias does."""

    name: str
    learning_rate: float = 1.0
    batch: float = 1.0
    weight_decay: float = 1.0
    init: float = 1.0
    embedding: float = 1.0
    router: float = 1.0
    bias: float = 1.0


SIZES = (
    Size("dense 1x", 1, 96, 3, 0), Size("dense 4x", 4, 128, 4, 0), Size("dense 16x", 16, 192, 4, 0),
    Size("experts 1x", 1, 96, 3, 4), Size("experts 4x", 4, 128, 4, 8), Size("experts 16x", 16, 192, 4, 16),
    Size("bias 1x", 1, 96, 3, 4, bias=True), Size("bias 4x", 4, 128, 4, 8, bias=True), Size("bias 16x", 16, 192, 4, 16, bias=True),
)  # fmt: skip
CHANGES = (
    Change(RULES),
    *(Change(f"learning rate x {factor:g}", learning_rate=factor) for factor in (0.5, 2, 4)),
    *(Change(f"batch x {factor:g}", batch=factor) for factor in (0.5, 2)),
    *(Change(f"weight decay x {factor:g}", weight_decay=factor) for factor in (0, 3)),
    *(Change(f"initial matrices x {factor:g}", init=factor) for factor in (0.5, 2)),
    *(Change(f"embedding's rate x {factor:g}", embedding=factor) for factor in (0.5, 2)),
    *(Change(f"router's loss x {factor:g}", router=factor) for factor in (0.1, 10)),
    *(Change(f"bias's rate x {factor:g}", bias=factor) for factor in (0.1, 10)),
)
BIAS = ("model.pattern.balance=bias", "model.pattern.score=sigmoid", "model.pattern.aux_coefficient=0", "model.pattern.z_coefficient=0")  # as A.X K1
QUICK_SIZES = (Size("dense 1x", 1, 32, 2, 0), Size("dense 4x", 4, 48, 2, 0))


def arm(size: Size, change: Change, flops: float, vocabulary_size: int) -> Arm:
    """The size by the plan's rules, one of them changed; `flops` is the training compute of the smallest size."""
    recipe, _ = load_recipe("nordic", ["corpus.sources=[]"])
    pattern, train = recipe.model.pattern, recipe.train
    sets = [f"model.pattern.init_std={pattern.init_std * change.init}", f"train.weight_decay={train.weight_decay * change.weight_decay}"]
    kind = ["model.pattern.ffn=dense"]
    if size.num_experts:
        kind = [f"model.pattern.num_experts={size.num_experts}", f"model.pattern.top_k={size.top_k}"]
        kind += BIAS if size.bias else ()
        rate = f"bias_rate={BIAS_RATE * change.bias}" if size.bias else f"aux_coefficient={pattern.aux_coefficient * change.router}"
        sets += [f"model.pattern.{rate}"]
    recipe, _ = load_recipe("nordic", ["corpus.sources=[]", *kind])
    config = shape(
        recipe.model.pattern, SizeSettings(), width=size.width, num_layers=size.num_layers, vocabulary_size=vocabulary_size, context=train.context
    )
    return Arm(
        f"{size.name}, {change.name}", size.width, size.num_layers, size.compute * flops / training_flops_per_token(config, train.context), (*kind, *sets),
        learning_rate=change.learning_rate, batch=change.batch, embedding=change.embedding,
    )  # fmt: skip


def changes_of(size: Size, full: bool) -> list[Change]:
    """The sweep of a size; without `full` its first three."""
    if size.bias:
        changes = [change for change in CHANGES if change.name == RULES or change.bias != 1]
    else:
        changes = [change for change in CHANGES if change.bias == 1 and (size.num_experts or change.router == 1)]
    return changes if full else changes[:3]


def told_rate(config: ModelConfig, tokens: float) -> str:
    """The plan's learning rate, and whether that is Step Law's or its cap."""
    law, cap = step_law_rate(config, tokens), highest_rate(config)
    which = f"the cap of {cap:g} holds, Step Law asks for {law:.3g}" if law > cap else f"Step Law's, below the cap of {cap:g}"
    return f"learning rate {learning_rate_rule(config, tokens):g} ({which})"


def report(arms: Arms, table: dict[tuple[Size, Change], Arm], seeds: list[int]) -> tuple[dict[str, float], dict[str, float]]:
    """Print every sweep; the rules over the best of it, and the width of the interval."""
    figures, spread, num_bytes = {}, {}, arms.text.test_bytes
    for size in dict.fromkeys(size for size, _ in table):
        own = {change.name: one for (other, change), one in table.items() if other == size}
        config, phase = arms.config(own[RULES]), arms.phase(own[RULES])
        print(f"\n{size.name}: width {config.width}, {config.num_layers} layers, {size.num_experts or 'no'} experts, ", end="")
        print(f"{phase.num_steps * phase.tokens_per_step / 1e6:.2f}M tokens, {phase.tokens_per_step} a step, {told_rate(config, own[RULES].tokens)}")
        bits = {name: [arms.result(one, seed)["bits"] for seed in seeds] for name, one in own.items()}
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
        folder, vocabulary_size = out / f"run-{text.digest[:6]}", 2048 if options.full else 1024
        with open_folder("nordic", text, folder, 1200.0) as run:
            walk(run, until="tokenizer", report=False)
            arms = Arms(text, ground_of(run), out, "nordic", vocabulary_size, options.jobs)
        pairs = [(size, change) for size in sizes for change in changes_of(size, options.full)]
        table = {(size, change): arm(size, change, options.flops, vocabulary_size) for size, change in pairs}
        if not arms.train([(one, seed) for seed in options.seeds for one in table.values()], ends):
            print("not done: what was trained is kept, the same command goes on")
            return
        figures, spread = report(arms, table, options.seeds)
    goals = {name: GOAL for name in figures if not name.endswith(" 1x")} if options.full else {}
    finish("plan_transfer", "full" if options.full else "quick", figures, spread, goals)


if __name__ == "__main__":
    main()
