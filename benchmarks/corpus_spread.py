"""The same corpus by one process, by several, and by a Ray cluster on this machine: seconds of each, and whether they wrote the same bytes.

    python benchmarks/corpus_spread.py                                # generated text
    python benchmarks/corpus_spread.py --corpus DIR --full            # three turns of each, in turn

All rules and near-duplicates are on. Seconds are wall time of the whole stage; what it takes to start Ray is told apart, because a cluster is there already.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import finish
from corpus import generated, some_files


def built(paths: list[str], workers: Any) -> tuple[float, str]:
    """Seconds, and a digest of what was written."""
    from hagane.corpus.build import build_corpus
    from hagane.recipe.schema import CorpusSettings, Source

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        build_corpus([Source(name="text", path=tuple(paths))], CorpusSettings(), Path(folder), workers=workers)
        seconds = time.perf_counter() - started
        digest = hashlib.blake2b(digest_size=8)
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
        return seconds, digest.hexdigest()


def on_ray(paths: list[str], workers: int, starts: list[float]) -> tuple[float, str]:
    from hagane.corpus.on_ray import joined

    started = time.perf_counter()
    with joined("local", workers) as cluster:
        starts.append(time.perf_counter() - started)
        return built(paths, cluster)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the default: one turn")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--corpus", type=Path, help="a folder of .jsonl.gz files")
    parser.add_argument("--megabytes", type=int, default=20, help="of files to take of it")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    starts: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = some_files(options.corpus or generated(Path(folder), options.megabytes), options.megabytes)
        ways: dict[str, Callable[[], tuple[float, str]]] = {
            "one process": lambda: built(paths, 1),
            f"{options.workers} processes": lambda: built(paths, options.workers),
            f"Ray, {options.workers} workers": lambda: on_ray(paths, options.workers, starts),
        }
        results = [(name, *way()) for _ in range(3 if options.full else 1) for name, way in ways.items()]
    digests = {digest for _, _, digest in results}
    seconds = {name: [own for other, own, _ in results if other == name] for name in ways}
    for name, own in seconds.items():
        print(f"{name:<16} {statistics.median(own):6.1f} s  ({min(own):.1f} to {max(own):.1f})")
    print(f"Ray was started in {statistics.median(starts):.1f} s; {'the same bytes each time' if len(digests) == 1 else 'NOT the same bytes'}")
    ratios = [ray / processes for processes, ray in zip(*list(seconds.values())[1:], strict=True)]
    figures = {f"s {name}": statistics.median(own) for name, own in seconds.items()} | {
        "Ray over processes": statistics.median(ratios), "s start of Ray": statistics.median(starts), "different results": len(digests)
    }  # fmt: skip
    spread = {f"s {name}": max(own) - min(own) for name, own in seconds.items()} | {"Ray over processes": max(ratios) - min(ratios)}
    finish("corpus_spread", "full" if options.full else "quick", figures, spread, {"different results": "<= 1"})


if __name__ == "__main__":
    main()
