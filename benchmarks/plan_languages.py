"""Is each language of a run as good as its plan said, and does ten megabytes more of one buy what the plan said it would?

    python benchmarks/plan_languages.py RUN RUN...                     # finished run folders: seconds
    python benchmarks/plan_languages.py RUN RUN... --again             # the same, predicted anew by today's code
    python benchmarks/plan_languages.py --full --corpus DIR --more is --keep KEEP     # two runs of the same tokens as well: an hour of two cores
    python benchmarks/plan_languages.py --quick                        # both at toy size, on made-up text

Bits per byte of every language's held-out text, as evaluated, beside the plan's value and its 80 % interval; languages with people's text and those whose
text is mostly generated problems are told apart.

--more LANGUAGE: one corpus with `--less` bytes of this language and one with 10 MB more, all other languages alike, and a run of `--tokens` on each, of one
shape, with no tuning. Both are scored on the same held-out documents (95 % interval over documents drawn in pairs); the plan's figure is the first run's.
Finished runs stay in KEEP and are not repeated. --corpus holds one folder of text per language.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from common import Kept, finish, source_digest
from hagane.engine.load import load_decoder
from hagane.evaluate.bits_per_byte import score
from hagane.folder import Run
from hagane.model.config import ModelConfig
from hagane.plan.facts import LanguagePlan, PlanFacts
from hagane.plan.languages import MORE_BYTES, difficulty, generated_sources, language_plans, part_of, shards_of
from hagane.plan.stage import known_from
from hagane.run import open_run
from hagane.tokenizer.bpe import load_tokenizer
from peers.score import read_test
from peers.text import Text, prepare, toy_text

MOSTLY = 0.5  # part of a language's text from which on it counts as generated
KINDS = ("people", "generated")
TOY = (
    "tokenizer.candidates=[300];model.size.width=16;model.size.num_layers=1;model.pattern.head_dim=8;model.pattern.num_experts=4;train.context=64;train.rows=32;"
    "train.dtype=float32;execution.compile=false;evaluate.items_per_cell=1;evaluate.max_new_tokens=1;evaluate.parallel_sentences=1;evaluate.max_bytes=4000"
)


class Row(NamedTuple):
    """A language of a run."""

    run: str
    language: str
    generated: float  # part of its text
    read_bytes: float
    predicted: float
    low: float
    high: float
    measured: float

    @property
    def kind(self) -> str:
        return KINDS[self.generated >= MOSTLY]

    @property
    def error(self) -> float:
        """Log of measured over predicted."""
        return math.log(self.measured / self.predicted)


def rows_of(folder: Path, again: bool) -> list[Row]:
    """Every language of a finished run that was both predicted and measured."""
    run = open_run(folder)
    if run.record("evaluate") is None:
        print(f"{folder} was not evaluated and is left out", file=sys.stderr)
        return []
    plan, measured = PlanFacts.model_validate(run.facts("plan")), run.facts("evaluate")["bits_per_byte"]
    known, generated = known_from(run.facts("corpus"), run.facts("tokenizer")), generated_sources(run.recipe)
    shards = shards_of(known.shard_bytes, known.shard_source, known.shard_language, known.shard_repeats)
    told = predicted_again(run, plan) if again else plan.languages
    return [
        Row(folder.name, tag, part_of(tag, generated, shards), one.read_bytes, one.bits_per_byte, one.low, one.high, measured[tag]["value"])
        for tag, one in told.items()
        if tag in measured and one.bits_per_byte is not None and one.low is not None and one.high is not None
    ]


def predicted_again(run: Run, plan: PlanFacts) -> dict[str, LanguagePlan]:
    """What today's code tells of the model and the text of a plan."""
    known, text_bytes = known_from(run.facts("corpus"), run.facts("tokenizer")), float(sum(one.read_bytes for one in plan.languages.values()))
    shards = shards_of(known.shard_bytes, known.shard_source, known.shard_language, known.shard_repeats)
    law = run.law.for_text(difficulty(run.recipe, shards, known.bytes_per_token[plan.vocabulary_size], text_bytes))
    return language_plans(run.recipe, law, plan.model, shards, text_bytes)


def judged(rows: Sequence[Row]) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """The table; figures, spread and goals by kind of text."""
    print(f"{'run':<24} {'language':<14} {'text':<10} {'read':>8}  {'expected':<20} {'measured':>9} {'off':>8}")
    for row in rows:
        inside = "" if row.low <= row.measured <= row.high else "  outside"
        expected = f"{row.predicted:.2f} ({row.low:.2f}-{row.high:.2f})"
        print(
            f"{row.run[-24:]:<24} {row.language:<14} {row.kind:<10} {row.read_bytes / 1e6:>5.2f} MB  {expected:<20} {row.measured:>9.3f} "
            f"{math.expm1(row.error):>+8.1%}{inside}"
        )
    figures: dict[str, float] = {}
    spread: dict[str, float] = {}
    goals: dict[str, str] = {}
    for kind in KINDS:
        own = [row for row in rows if row.kind == kind]
        if own:
            figures |= {f"{kind} languages": float(len(own)), f"{kind} inside": sum(row.low <= row.measured <= row.high for row in own) / len(own)}
            figures[f"{kind} median error"] = statistics.median(abs(math.expm1(row.error)) for row in own)
            spread[f"{kind} median error"] = statistics.pstdev(row.error for row in own)
            figures[f"{kind} inside, not too wide"] = figures[f"{kind} inside"]
            goals |= {f"{kind} inside": ">= 0.7", f"{kind} inside, not too wide": "<= 0.9"}
    return figures, spread, goals


def judged_gain(gain: dict[str, float]) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Figures, spread and goals of ten megabytes more: what was told must be near what was measured, and inside its interval."""
    inside = float(gain["gain low"] <= gain["gain told"] <= gain["gain high"])
    goals = {"gain off": "<= 0.05", "gain told inside the interval": ">= 1"}
    return gain | {"gain told inside the interval": inside}, {"gain measured": gain["gain high"] - gain["gain low"]}, goals


def cut_text(text: Text, language: str, most: float, folder: Path) -> Path:
    """A corpus with `most` bytes of one language, the others whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in text.train.glob("*.parquet"):
        if path.stem != language:
            shutil.copyfile(path, folder / path.name)
            continue
        table = pq.read_table(path)
        sizes = np.cumsum([len(one.encode()) for one in table["text"].to_pylist()])
        pq.write_table(table.slice(0, max(1, int(np.searchsorted(sizes, most, side="right")))), folder / path.name)
    return folder


def trained(corpus: Path, folder: Path, tokens: float, sets: Sequence[str], until: str) -> Path:
    """A finished run of this many tokens."""
    command = [sys.executable, "-m", "hagane", "run", "nordic", "--corpus", str(corpus), "--budget", f"{tokens:.0f}tokens", "--out", str(folder)]
    subprocess.run([*command, "--until", until, *(part for one in sets if one for part in ("--set", one))], check=True, stdout=sys.stderr)
    return folder


def bits_of(folder: Path, documents: Sequence[str]) -> list[float]:
    """Bits of every document under the pretrained model of a run."""
    run = open_run(folder)
    decoder, config = load_decoder(run.path("pretrain"))
    found: list[float] = score(decoder, load_tokenizer(run.path("encode")), documents, config.context).bits_D.tolist()
    return found


def shape_of(folder: Path) -> list[str]:
    """The settings that give another run this one's shape, batch and rate."""
    plan = PlanFacts.model_validate(open_run(folder).facts("plan"))
    model: ModelConfig = plan.model
    ffn, phase = model.layers[-1].ffn, plan.phases["pretrain"][-1]
    size = {"width": model.width, "num_layers": model.num_layers, "vocabulary_size": model.vocabulary_size}
    sets = [f"model.size.{name}={value}" for name, value in size.items()] + [f"model.pattern.num_experts={getattr(ffn, 'num_experts', 0)}"]
    return [*sets, f"train.learning_rate={phase.learning_rate}", f"train.rows={phase.rows}", f"train.accumulation={phase.accumulation}"]


def ten_more(text: Text, language: str, less: float, tokens: float, keep: Path, sets: Sequence[str], until: str) -> tuple[dict[str, float], list[Path]]:
    """Measured and predicted gain of MORE_BYTES of a language, in bits per byte, and the two runs."""
    own = ["tune.share=0", *sets]
    small = trained(cut_text(text, language, less, keep / "less-text"), keep / "less", tokens, own, until)
    large = trained(cut_text(text, language, less + MORE_BYTES, keep / "more-text"), keep / "more", tokens, [*own, *shape_of(small)], until)
    told = PlanFacts.model_validate(open_run(small).facts("plan")).languages[language].more_text_gain or 0.0
    documents = [item["text"] for item in read_test(text.test) if item["lang"] == language]
    sizes = np.array([len(document.encode()) for document in documents])
    gains = np.array(bits_of(small, documents)) - np.array(bits_of(large, documents))
    picks = np.random.default_rng(0).integers(len(sizes), size=(2000, len(sizes)))
    low, high = np.quantile(gains[picks].sum(1) / sizes[picks].sum(1), [0.025, 0.975])
    gain = float(gains.sum() / sizes.sum())
    print(f"{MORE_BYTES / 1e6:.0f} MB more of {language} beside {less / 1e6:.2g} MB: -{gain:.3f} bits per byte (-{low:.3f} to -{high:.3f}), told -{told:.3f}")
    return {"gain measured": gain, "gain told": told, "gain low": float(low), "gain high": float(high), "gain off": abs(gain - told)}, [small, large]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--again", action="store_true", help="predict with today's code what the plans predicted")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--more", metavar="LANGUAGE")
    parser.add_argument("--less", type=float, default=250_000.0, help="bytes of that language in the smaller corpus")
    parser.add_argument("--tokens", type=float, default=8e6, help="of each of the two runs")
    parser.add_argument("--languages", nargs="*", default=["10"], help="folders of the corpus, or how many of the largest; --more's is always among them")
    parser.add_argument("--keep", type=Path, help="text and finished runs; a temporary folder where not given")
    options = parser.parse_args()
    if not (options.runs or options.quick or options.more):
        parser.error("give finished run folders, or --more LANGUAGE with --corpus DIR, or --quick")
    if options.more and not options.corpus:
        parser.error("--more needs --corpus DIR with a folder of that language's text")
    return options


def main() -> None:
    options = arguments()
    keep = options.keep or Path(tempfile.mkdtemp(prefix="hagane-languages-"))
    keep.mkdir(parents=True, exist_ok=True)
    runs, gain, sets, until = list(options.runs), {}, [], "pretrain"
    if options.quick:
        options.corpus, options.more, options.less, options.tokens = toy_text(keep / "toy", {"sv": 300, "smj": 120}, 80), "smj", 8000.0, 204_800.0
        options.languages, sets, until = ["sv", "smj"], TOY.split(";"), "evaluate"
    if options.more:
        names = options.languages if options.more in options.languages or options.languages[0].isdigit() else [*options.languages, options.more]
        test, stream = (10_000, 400_000) if options.quick else (200_000, round(8 * options.tokens))
        print(f"[{time.strftime('%H:%M')}] two runs of {options.tokens / 1e6:.3g}M tokens in {keep}", file=sys.stderr, flush=True)
        text = prepare(options.corpus, names, stream, test, keep)
        kept, key = Kept(keep), (text.digest, options.more, options.less, options.tokens, source_digest())
        found: Any = kept.get(*key)
        if found is None:
            gain, made = ten_more(text, options.more, options.less, options.tokens, keep, sets, until)
            kept.put([gain, [str(path) for path in made]], *key)
        else:
            gain, made = found[0], [Path(path) for path in found[1]]
        runs += made if until == "evaluate" else []
    figures, spread, goals = judged([row for folder in runs for row in rows_of(folder, options.again)])
    if gain:
        figures, spread, goals = (all_of | own for all_of, own in zip((figures, spread, goals), judged_gain(gain), strict=True))
    finish("plan_languages", "full" if options.full else "quick", figures, spread, goals if options.full else {})


if __name__ == "__main__":
    main()
