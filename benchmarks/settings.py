"""Which settings give the best small model for the time: every arm trains for the same seconds on the same text, and is scored on the same held-out bytes.

    python benchmarks/settings.py --full --corpus DIR --out DIR --arm wide=model.size.width=256 --arm slow=train.learning_rate=1e-3
    python benchmarks/settings.py                # half a minute: two arms on the Python library's own text, to see that it works

An arm is a name and settings of the recipe, as `hagane run --set` takes them, joined by `;`. The first arm, `base`, is --base alone, and every other
is --base with its own settings. Shape, batch and learning rate that an arm leaves open are the plan's for the time.

A step of every shape is timed first, the shapes in turns, so that the machine's slow minutes meet all of them: an arm's steps are --seconds over the lower
quartile of its rounds. Arms that differ in nothing that costs time share one. Only this needs a quiet machine (--seeds with no number does no more).
Training itself then counts steps and reads no clock: it can share the machine, and --jobs trains several runs at once, each with its part of the cores.
Only the time in steps is compared: compiling and start-up are not (`equal_time.py` has them). Results are kept in --out by the arm's settings, its steps
and hagane's code for training; the same command goes on.

The ratio of the bits per byte (mean over languages) is to base, the 95 % interval over documents and seeds together, drawn again in pairs (`peers.ratios`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import finish
from hagane.measure.machine import cores, matmul_rate
from hagane.measure.rung import Ground, encoded
from hagane.measure.small_runs import ground_of
from hagane.model.config import ModelConfig
from hagane.model.count import num_active_parameters
from hagane.plan.batch import by_time, by_tokens, most_rows
from hagane.plan.choose import embedding_ratio_rule, expected_loss, learning_rate_rule, mean_bytes_per_token, mixture_of
from hagane.plan.contexts import contexts
from hagane.plan.cost import least_step_seconds, tokens_per_second
from hagane.plan.languages import effective_total, read_by_language
from hagane.plan.law import GENERAL
from hagane.plan.shapes import shape_key
from hagane.plan.sketch import best_shape, point_of
from hagane.recipe.load import load_recipe
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Phase, StepRate
from hagane.run import open_run, walk
from peers.ratios import OVERALL, compare, mean_bits
from peers.text import Text, prepare
from small_models import in_processes, keep, open_folder, step_seconds, train_and_score, training_code


@dataclass(frozen=True)
class Arm:
    """Settings, and what follows from them for a time."""

    name: str
    sets: tuple[str, ...]
    recipe: Recipe
    config: ModelConfig
    phase: Phase  # its steps and learning rate are those of the first guess

    @property
    def cost(self) -> str:
        """What decides how long a step takes."""
        phase = self.phase
        return f"{shape_key(self.config, phase.rows, phase.context, 'bfloat16')}x{phase.accumulation}-{phase.optimizer}"

    @property
    def digest(self) -> str:
        return hashlib.blake2b(json.dumps(sorted(self.sets)).encode(), digest_size=5).hexdigest()

    def timed(self, step_seconds: float, seconds: float) -> Phase:
        """The phase with the steps that the time allows, its warm-up and learning rate for them."""
        steps = max(1, round(seconds / step_seconds))
        settings = self.recipe.train
        rate = settings.learning_rate or learning_rate_rule(self.config, steps * self.phase.tokens_per_step)
        further = {"embedding_ratio": embedding_ratio_rule(self.recipe, self.config, rate), "warmup_steps": max(1, round(steps * settings.warmup_share))}
        return self.phase.model_copy(update={"num_steps": steps, "learning_rate": rate, **further})


@dataclass
class Bench:
    text: Text
    ground: Ground
    out: Path
    seconds: float
    threads: int

    def arm(self, name: str, sets: tuple[str, ...], recipe_name: str) -> Arm:
        """The plan's rules, applied to these settings."""
        recipe, _ = load_recipe(recipe_name, ["corpus.sources=[]", *sets])
        machine, settings, size = self.ground.run.machine, recipe.train, recipe.model.size
        vocabulary = size.vocabulary_size or 4096
        config = best_shape(recipe, size, machine, vocabulary, self.seconds, GENERAL)
        tokens = self.seconds * tokens_per_second(config, settings.context, machine)
        batch = by_tokens(recipe, machine, tokens)
        if settings.rows is None and settings.accumulation is None:
            # as the plan chooses, but by the steps that it expects: those of an arm are timed when its batch is known
            loss = expected_loss(recipe, config, self.ground.known, GENERAL)
            batch = by_time(recipe, machine, self.seconds, most_rows(recipe, machine), loss, partial(self.expected, config, settings.context)) or batch
        rates, _ = mixture_of(recipe, self.ground.known, tokens * mean_bytes_per_token(self.ground.known, vocabulary))
        phase = Phase(
            name="settings", collection="text", context=settings.context, rows=batch.rows, accumulation=batch.accumulation,
            num_steps=1, mixture=rates, learning_rate=1e-3, warmup_steps=1, **settings.of_phases(),
        )  # fmt: skip
        return Arm(name, sets, recipe, config, phase)

    def expected(self, config: ModelConfig, context: int, rows: int) -> StepRate:
        """A micro-step by the plan's arithmetic."""
        seconds = least_step_seconds(config, rows * context, context, self.ground.run.machine)
        return StepRate(tokens_per_second=rows * context / seconds, step_seconds=seconds, compile_seconds=0.0)

    def step_seconds(self, arms: list[Arm]) -> dict[str, float]:
        """Arm -> seconds of a step, timed in turns. What was timed in an earlier call is taken from there, over that call's `base`."""
        path, code = self.out / "steps.json", training_code()
        kept: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        by_cost = {arm.cost: arm for arm in reversed(arms)}  # the first arm of each
        wanted = [arm for cost, arm in by_cost.items() if f"{cost} {code}" not in kept]
        if wanted:
            base = by_cost[arms[0].cost]
            told = wanted if base in wanted else [base, *wanted]
            timed = step_seconds({arm.name: (arm.config, arm.phase) for arm in told}, self.threads)
            # the machine's speed differs between calls: base's first timing is the measure of all
            scale = kept.get(f"{base.cost} {code}", timed[base.name]) / timed[base.name]
            kept |= {f"{arm.cost} {code}": timed[arm.name] * scale for arm in wanted}
            path.write_text(json.dumps(kept, indent=1))
        return {arm.name: kept[f"{arm.cost} {code}"] for arm in arms}

    def path(self, arm: Arm, step_seconds: float, seed: int) -> Path:
        named = [arm.digest, arm.timed(step_seconds, self.seconds).num_steps, seed, self.text.digest, training_code()]
        return self.out / f"{hashlib.blake2b(json.dumps(named).encode(), digest_size=8).hexdigest()}.json"

    def bits(self, arm: Arm, step_seconds: float, seed: int) -> dict[str, Any]:
        """Train an arm at a seed and score it; from the file where it was done before."""
        path = self.path(arm, step_seconds, seed)
        if path.exists():
            return dict(json.loads(path.read_text()))
        phase = arm.timed(step_seconds, self.seconds)
        result = train_and_score(
            self.ground, self.text, arm.recipe, arm.config, phase, folder=self.out / f"training-{path.stem}", seed=seed, threads=self.threads
        )
        read = result["tokens"] * mean_bytes_per_token(self.ground.known, arm.config.vocabulary_size)
        point = point_of(arm.config, effective_total(read_by_language(self.ground.shards, phase.mixture, read)))
        return keep(path, {"arm": arm.name, "sets": arm.sets, "point": point._asdict(), **result})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="100 s, three seeds, ten languages")
    parser.add_argument("--quick", action="store_true", help="the default: 4 s, one seed, two kinds of text")
    parser.add_argument("--corpus", type=Path, help="folder with one folder of text per language; else the Python library's own text")
    parser.add_argument("--out", type=Path, help="text and finished runs; a temporary folder where not given")
    parser.add_argument("--recipe", default="nordic")
    parser.add_argument("--base", default="", metavar="A.B=C;D=E", help="settings of all arms")
    parser.add_argument("--arm", dest="arms", action="append", default=[], metavar="NAME=A.B=C;D=E")
    parser.add_argument("--seconds", type=float, help="of training steps")
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--languages", nargs="*", help="names of folders of the corpus, or how many of the largest")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, after the steps were timed")
    options = parser.parse_args()
    options.seconds = options.seconds or (100.0 if options.full else 4.0)
    options.seeds = options.seeds if options.seeds is not None else list(range(3 if options.full else 1))
    options.languages = options.languages or (["10"] if options.full else ["2"])
    if not options.full and not options.arms:
        options.base, options.arms = "model.size.width=64;model.size.num_layers=2;model.size.vocabulary_size=1024", ["slow=train.learning_rate=0.001"]
    return options


def split(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(";") if part)


def report(bench: Bench, arms: list[Arm], steps: dict[str, float], results: dict[str, list[dict[str, Any]]]) -> tuple[dict[str, float], dict[str, float]]:
    """Print the table; figures and their spread."""
    num_bytes, figures, spread = bench.text.test_bytes, {}, {}
    base = [result["bits"] for result in results["base"]]
    print(f"{'arm':<22} {'shape':<34} {'ms a step':>9} {'tokens':>8} {'bits per byte':>13} {'over base':>10}")
    for arm in arms:
        bits = [result["bits"] for result in results[arm.name]]
        value = statistics.fmean(mean_bits(one, num_bytes) for one in bits)
        ratio = compare(bits, {"base": base}, num_bytes)[OVERALL]
        told = f"{ratio.value:>8.4f} ({ratio.low:.4f} to {ratio.high:.4f})" if arm.name != "base" else ""
        phase = arm.timed(steps[arm.name], bench.seconds)
        shape = f"{arm.config.width}x{arm.config.num_layers} v{arm.config.vocabulary_size} b{phase.tokens_per_step} lr{phase.learning_rate:g}"
        shape += f" {num_active_parameters(arm.config) / 1e6:.1f}M"
        print(f"{arm.name:<22} {shape:<34} {1e3 * steps[arm.name]:>9.1f} {results[arm.name][0]['tokens'] / 1e6:>7.2f}M {value:>13.4f} {told}")
        figures[f"{arm.name} bits per byte"] = value
        figures[f"{arm.name} over base"], spread[f"{arm.name} over base"] = ratio.value, ratio.high - ratio.low
    return figures, spread


def text_of(options: argparse.Namespace, out: Path) -> tuple[Text, Path]:
    """The text, and where the run folder is whose corpus and tokenizer all arms share."""
    text = prepare(options.corpus, options.languages, round(60_000 * max(100.0, options.seconds)), 100_000 if options.full else 10_000, out)
    return text, out / f"run-{text.digest[:6]}-{options.seconds:g}"


def arms_of(options: argparse.Namespace, bench: Bench) -> list[Arm]:
    arms = [bench.arm("base", split(options.base), options.recipe)]
    for given in options.arms:
        label, _, own = given.partition("=")
        arms.append(bench.arm(label, (*split(options.base), *split(own)), options.recipe))
    return arms


def one(options: argparse.Namespace, out: Path, name: str, seed: int, steps: dict[str, float]) -> dict[str, Any]:
    """A single run, in a process of its own."""
    text, folder = text_of(options, out)
    bench = Bench(text, ground_of(open_run(folder)), out, options.seconds, max(1, cores() // options.jobs))
    arm = next(arm for arm in arms_of(options, bench) if arm.name == name)
    return bench.bits(arm, steps[name], seed)


def train_all(options: argparse.Namespace, bench: Bench, arms: list[Arm], steps: dict[str, float]) -> dict[str, list[dict[str, Any]]]:
    """Arm -> its results by seed. What is kept costs nothing; the rest is trained `--jobs` at a time, seed after seed."""
    wanted = [(arm, seed) for seed in options.seeds for arm in arms if not bench.path(arm, steps[arm.name], seed).exists()]
    for vocabulary, lengths in sorted({(arm.config.vocabulary_size, tuple(contexts(arm.recipe))) for arm, _ in wanted}):
        encoded(bench.ground, vocabulary, lengths)  # once, before processes that would make it at the same time
    in_processes(options.jobs, one, [(f"{arm.name}, seed {seed}", (options, bench.out, arm.name, seed, steps)) for arm, seed in wanted])
    return {arm.name: [bench.bits(arm, steps[arm.name], seed) for seed in options.seeds] for arm in arms}


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="hagane-settings-") as name:
        out = (options.out or Path(name)).resolve()
        out.mkdir(parents=True, exist_ok=True)
        rate = matmul_rate("cpu", 2048, 512, 2048)
        text, folder = text_of(options, out)
        with open_folder(options.recipe, text, folder, max(600.0, 3 * options.seconds)) as run:
            walk(run, until="tokenizer", report=False)
            bench = Bench(text, ground_of(run), out, options.seconds, cores())
            arms = arms_of(options, bench)
            steps = bench.step_seconds(arms)
            if not options.seeds:
                print("\n".join(f"{arm.name:<22} {1e3 * steps[arm.name]:>9.1f} ms a step" for arm in arms))
                return
            figures, spread = report(bench, arms, steps, train_all(options, bench, arms, steps))
        figures["matrix GFLOP/s"] = rate / 1e9
    finish("settings", "full" if options.full else "quick", figures, spread, {})


if __name__ == "__main__":
    main()
