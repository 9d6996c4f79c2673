"""Every mechanism of the systems to rebuild, measured on real text against what it would replace: one row per claim.

    python benchmarks/mechanisms.py                                  # every row at smoke size: does it run, not who wins
    python benchmarks/mechanisms.py --only clamping --corpus DIR     # one row, on a folder with one folder of text per language
    python benchmarks/mechanisms.py --full --corpus DIR --out DIR    # what is quoted; finished runs are kept in --out, and gone on from

A row is a function `(Bench) -> None` in a file of `claims/`, which trains its arms with `bench.train` or `bench.arms`, prints its table and notes its
figures; it is named in `ROWS`. Without `--corpus` the text is the Python library's own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from claims import adaptive_capacity, clamping, extension, ladder, sparse, swap
from claims.bench import CONTEXT, Bench
from common import finish
from hagane.measure.machine import cores
from peers.text import prepare

ROWS: dict[str, Callable[[Bench], None]] = {
    "clamping": clamping.row, "adaptive-capacity": adaptive_capacity.row, "ladder": ladder.row, "sparse-attention": sparse.row,
    "extension": extension.row,
    **{one.name: partial(swap.row, swap=one) for one in swap.SWAPS},
}  # fmt: skip
BYTES_PER_TOKEN = 3.0  # of text that is prepared for every token trained on; a vocabulary of 1,024 needs about 2.5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=ROWS, metavar="ROW", help=f"rows to measure: {', '.join(ROWS)}")
    parser.add_argument("--full", action="store_true", help="ten seeds, three values swept for every arm, all conditions, ten languages")
    parser.add_argument("--quick", action="store_true", help="the default: one seed, nothing swept")
    parser.add_argument("--corpus", type=Path, help="folder with one folder of text per language; else the Python library's own text")
    parser.add_argument("--languages", nargs="*", help="names of folders of the corpus, or how many of the largest")
    parser.add_argument("--out", type=Path, help="text and finished runs; a temporary folder where not given")
    parser.add_argument("--steps", type=int, help="of every run of clamping and adaptive-capacity")
    parser.add_argument("--tokens", type=float, help="of every run of the other rows")
    swaps = ", ".join(one.name for one in swap.SWAPS)
    parser.add_argument("--context", type=int, help=f"tokens in a row, of sparse-attention and of the rows that swap one mechanism: {swaps}")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--width", type=int, help="of the model")
    parser.add_argument("--rows", type=int, help="of 128 tokens in a step")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--sweep", type=int, help="values of its own setting that every arm may try")
    options = parser.parse_args()
    options.width = options.width or (64 if options.full else 32)
    options.rows = options.rows or (8 if options.full else 4)
    options.steps = options.steps or (1500 if options.full else 20)
    options.tokens = options.tokens or (2e6 if options.full else 1e5)
    options.seeds = options.seeds or (10 if options.full else 1)
    options.sweep = options.sweep or (3 if options.full else 1)
    options.languages = options.languages or (["10"] if options.full else ["2"])
    return options


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="hagane-mechanisms-") as name:
        out = options.out or Path(name)
        (out / "runs").mkdir(parents=True, exist_ok=True)
        # for 200 steps of 8 rows at least: then the size of a small run does not change its text
        stream_bytes = round(BYTES_PER_TOKEN * max(CONTEXT * max(1600, options.rows * options.steps), options.tokens))
        text = prepare(options.corpus, options.languages, stream_bytes, 30_000 if options.full else 10_000, out)
        mode = "full" if options.full else "quick"
        sizes = {name: getattr(options, name) for name in ("steps", "seeds", "sweep", "width", "rows", "threads", "tokens", "jobs", "context")}
        bench = Bench(text, out / "runs", mode, **sizes)
        print(f"{', '.join(text.train_bytes)}: {sum(map(sum, text.test_bytes.values())):,} held-out bytes")
        for row in options.only or ROWS:
            ROWS[row](bench)
    finish("mechanisms", mode, bench.figures, bench.spread, bench.goals)


if __name__ == "__main__":
    main()
