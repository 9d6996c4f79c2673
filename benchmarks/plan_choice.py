"""Is the shape that the plan chooses for a time the best one? Against a grid of others, every one trained for that time.

    python benchmarks/plan_choice.py --full --corpus DIR --out DIR --jobs 2     # 21 trainings of a minute: half an hour on two cores
    python benchmarks/plan_choice.py                                            # half a minute, a grid of two, to see that it works

The grid: five widths, two vocabularies, and 4 or 16 experts, with the batch and the learning rate that the plan's rules give each of them for the time. A
step of every shape is timed first, in turns, which needs a quiet machine (--seeds with no number does no more); training then counts steps (`settings.py`,
which also says how to go on). The figure is the chosen shape's bits per byte over the best of all, 95 % interval over documents and seeds drawn in pairs; as
the best of twenty is partly luck, it errs against the plan.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import settings
from common import finish
from hagane.measure.machine import cores
from hagane.measure.small_runs import ground_of
from hagane.model.config import ModelConfig
from hagane.plan.choose import choose_model
from hagane.plan.law import GENERAL
from hagane.plan.shapes import experts_of
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import SizeSettings
from hagane.run import walk
from peers.ratios import OVERALL, compare
from small_models import open_folder

SHAPES, VOCABULARIES, EXPERTS = ((64, 3), (96, 4), (128, 4), (192, 3), (256, 5)), (2048, 4096), (4, 16)
QUICK = (((32, 2), (64, 2)), (1024,), (4,))


def sets(width: int, num_layers: int, vocabulary: int, experts: int) -> str:
    return f"model.size.width={width};model.size.num_layers={num_layers};model.size.vocabulary_size={vocabulary};model.pattern.num_experts={experts}"


def named(width: int, num_layers: int, vocabulary: int, experts: int) -> str:
    return f"{width}x{num_layers} v{vocabulary} e{experts}"


def point(config: ModelConfig) -> tuple[int, int, int, int]:
    return config.width, config.num_layers, config.vocabulary_size, experts_of(config)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="60 s, one seed, ten languages")
    parser.add_argument("--quick", action="store_true", help="the default: 2 s, two kinds of text")
    parser.add_argument("--corpus", type=Path, help="folder with one folder of text per language; else the Python library's own text")
    parser.add_argument("--out", type=Path, help="text and finished runs; a temporary folder where not given")
    parser.add_argument("--seconds", type=float, help="of training steps")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--languages", nargs="*", help="names of folders of the corpus, or how many of the largest")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, after the steps were timed")
    options = parser.parse_args()
    options.seconds = options.seconds or (60.0 if options.full else 2.0)
    options.languages = options.languages or (["10"] if options.full else ["2"])
    options.recipe = "nordic"
    return options


def main() -> None:
    options = arguments()
    shapes, vocabularies, counts = (SHAPES, VOCABULARIES, EXPERTS) if options.full else QUICK
    with tempfile.TemporaryDirectory(prefix="hagane-choice-") as name:
        out = (options.out or Path(name)).resolve()
        out.mkdir(parents=True, exist_ok=True)
        text, folder = settings.text_of(options, out)
        with open_folder(options.recipe, text, folder, max(600.0, 3 * options.seconds)) as run:
            walk(run, until="tokenizer", report=False)
            bench = settings.Bench(text, ground_of(run), out, options.seconds, cores())
            recipe, _ = load_recipe(options.recipe, ["corpus.sources=[]"])
            chosen = choose_model(recipe, SizeSettings(), run.machine, bench.ground.known, options.seconds, GENERAL, {})
            grid = [(*shape, vocabulary, experts) for shape in shapes for vocabulary in vocabularies for experts in counts]
            options.base, options.arms = "", [f"{named(*one)}={sets(*one)}" for one in [point(chosen), *(one for one in grid if one != point(chosen))]]
            arms = settings.arms_of(options, bench)[1:]
            steps = bench.step_seconds(arms)
            if not options.seeds:
                return
            results = settings.train_all(options, bench, arms, steps)
    bits = {arm.name: [result["bits"] for result in results[arm.name]] for arm in arms}
    mean = {arm: statistics.fmean(result["bits_per_byte"] for result in found) for arm, found in results.items()}
    best, own = min(mean, key=lambda arm: mean[arm]), named(*point(chosen))
    print(f"\nafter {options.seconds:g} s of steps, {len(options.seeds)} seeds: chosen is {own}")
    for arm in sorted(mean, key=lambda arm: mean[arm]):
        print(f"{arm:<20}{1e3 * steps[arm]:>9.1f} ms a step{results[arm][0]['tokens'] / 1e6:>8.2f}M tokens{mean[arm]:>10.4f} bits per byte")
    ratio = compare(bits[own], {best: bits[best]}, text.test_bytes)[OVERALL]
    print(f"chosen over the best: {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f})")
    figures = {"chosen over the best": ratio.value, "shapes": float(len(mean)), "best over the worst": mean[best] / max(mean.values())}
    goals = {"chosen over the best": "<= 1.01", "shapes": ">= 20"} if options.full else {}
    finish("plan_choice", "full" if options.full else "quick", figures, {"chosen over the best": ratio.high - ratio.low}, goals)


if __name__ == "__main__":
    main()
