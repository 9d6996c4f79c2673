"""Which engine should carry a corpus: our own pipeline, daft or datatrove, doing the same work on the same files.

    python benchmarks/corpus_engines.py                                    # half a minute, generated text
    python benchmarks/corpus_engines.py --corpus DIR --full --python PEER  # PEER: an interpreter that has daft and datatrove

Two pieces of work, each in a process of its own: `read` (decompress, parse, drop what is short, exact duplicates once where the engine can, write parquet),
and `near` (that, and of near-duplicates one: MinHash of 256 hashes over runs of five words, 32 bands of 8, connected components). Speed is bytes
of text over processor seconds of the process and its children, so threads and other work on the machine make no difference; memory is the peak of both.
Our own extra work (rules, masking, split by hash) is off in these two rows, but for the split; `hagane, all rules` has all of it. datatrove cuts
words with NLTK or spaCy models; here by white space as daft does, which is faster. daft has no clusters: they are scipy's, as ours.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUM_HASHES, ROWS, WORDS, SHORT = 256, 8, 5, 32


def ours(paths: list[str], out: Path, near: bool, *, rules: bool = False) -> int:
    from hagane.corpus.build import build_corpus
    from hagane.recipe.schema import CorpusSettings, RuleSettings, Source

    off = {name: False for name, value in RuleSettings().model_dump().items() if isinstance(value, bool)}
    plain = {} if rules else {"rules": off, "personal_data": "keep", "repair_encoding": False, "held_out_overlap": 0.0}
    settings = CorpusSettings(**{"near_duplicates": 0.75 if near else 0.0, "identify": "off", **plain})
    return build_corpus([Source(name="text", path=tuple(paths))], settings, out, workers=1).documents_kept


def datatrove(paths: list[str], out: Path, near: bool) -> int:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature, minhash
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import ParquetWriter
    from loguru import logger

    logger.remove()
    (out / "paths.txt").write_text("".join(f"{path}\n" for path in paths))
    read = [JsonlReader("/", paths_file=str(out / "paths.txt")), LambdaFilter(lambda document: len(document.text) >= SHORT)]

    def run(steps: list[Any], tasks: int = 1) -> None:
        LocalPipelineExecutor(steps, tasks=tasks, workers=1).run()

    if near:
        minhash.load_word_tokenizer = lambda language: type("Spaces", (), {"word_tokenize": staticmethod(str.split)})()
        folders = [str(out / name) for name in ("signatures", "buckets", "clusters")]
        config = MinhashConfig(n_grams=WORDS, num_buckets=NUM_HASHES // ROWS, hashes_per_bucket=ROWS)
        run([*read, MinhashDedupSignature(folders[0], config=config)])
        run([MinhashDedupBuckets(folders[0], folders[1], config=config)], NUM_HASHES // ROWS)
        run([MinhashDedupCluster(folders[1], folders[2], config=config)])
        read.append(MinhashDedupFilter(folders[2]))
    run([*read, ParquetWriter(str(out / "kept"), compression="zstd")])
    return rows(out / "kept")


def daft(paths: list[str], out: Path, near: bool) -> int:
    import daft as engine
    from daft import col

    text = engine.read_json(paths, schema={"id": engine.DataType.string(), "text": engine.DataType.string()}, infer_schema=False)
    text = text.where(col("text").length() >= SHORT)
    if near:
        text = text.with_column("number", engine.functions.monotonically_increasing_id())
        words = col("text").normalize(lowercase=True, remove_punct=True, white_space=True)
        signed = text.select("number", words.minhash(num_hashes=NUM_HASHES, ngram_size=WORDS).alias("signature")).to_arrow()
        keep = first_of_clusters(signed["number"].to_numpy(), signed["signature"].combine_chunks())
        text = text.join(engine.from_pydict({"number": keep}), on="number").exclude("number")
    else:
        text = text.distinct("text")
    text.write_parquet(str(out / "kept"), compression="zstd")
    return rows(out / "kept")


def first_of_clusters(numbers: Any, signatures: Any) -> list[int]:
    """The first document of every cluster: bands that are equal are edges, as datatrove and daft's own example have them."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    signature_DH = np.ascontiguousarray(signatures.flatten().to_numpy().reshape(-1, NUM_HASHES))
    one, other = [], []
    for band in range(0, NUM_HASHES, ROWS):
        _, first, inverse = np.unique(signature_DH[:, band : band + ROWS], axis=0, return_index=True, return_inverse=True)
        one.append(first[inverse.ravel()])
        other.append(np.arange(len(numbers)))
    pairs = np.concatenate(one), np.concatenate(other)
    _, label_D = connected_components(coo_array((np.ones(len(pairs[0]), bool), pairs), shape=(len(numbers), len(numbers))), directed=False)
    _, first = np.unique(label_D, return_index=True)
    return numbers[first].tolist()


def rows(folder: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.ParquetFile(path).metadata.num_rows for path in folder.rglob("*.parquet"))


ENGINES: dict[str, Callable[..., int]] = {"hagane": ours, "daft": daft, "datatrove": datatrove}


def one(job: dict[str, Any]) -> None:
    """One piece of work, in this process: prints its figures as JSON."""
    out = Path(tempfile.mkdtemp())
    try:
        wall = time.perf_counter()
        more = {"rules": True} if job["rules"] else {}
        kept = ENGINES[job["engine"]](job["paths"], out, job["near"], **more)
        wall = time.perf_counter() - wall
    finally:
        shutil.rmtree(out, ignore_errors=True)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in usage)
    print(json.dumps({"cpu": cpu, "wall": wall, "memory": sum(each.ru_maxrss for each in usage) / 1024, "kept": kept}))


def work(python: str, engine: str, paths: list[str], near: bool, rules: bool = False) -> dict[str, float] | str:
    """Figures of one process, or a sentence that says why there are none."""
    if engine != "hagane":
        found = subprocess.run([python, "-c", f"import {engine}"], capture_output=True, text=True, check=False)
        if found.returncode:
            return f"{engine} is not installed in {python}: left out. Install it there, or name another interpreter with --python."
    job = json.dumps({"engine": engine, "paths": paths, "near": near, "rules": rules})
    done = subprocess.run([sys.executable if engine == "hagane" else python, __file__, "--one", job], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{engine} did not finish: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the default: less text, one turn")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--corpus", type=Path, help="a folder of .jsonl.gz files")
    parser.add_argument("--megabytes", type=int, help="text to take of it")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has daft and datatrove")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(json.loads(options.one))
        return
    from common import finish
    from corpus import generated, some_files

    size, turns = (options.megabytes or 50, 3) if options.full else (options.megabytes or 10, 1)
    with tempfile.TemporaryDirectory() as folder:
        paths = some_files(options.corpus or generated(Path(folder), size), size)
        jobs = [(engine, near, False) for near in (False, True) for engine in ENGINES] + [("hagane", True, True)]
        results: dict[tuple[str, bool, bool], list[dict[str, float]]] = {job: [] for job in jobs}
        said: set[str] = set()
        for job in jobs * turns:
            result = work(options.python, job[0], paths, job[1], job[2])
            if isinstance(result, str):
                if result not in said:
                    print(result)
                said.add(result)
            else:
                results[job].append(result)
        num_bytes = text_bytes(paths)
    figures, spread = show(results, num_bytes)
    finish("corpus_engines", "full" if options.full else "quick", figures, spread, {})


def text_bytes(paths: list[str]) -> float:
    """Megabytes of UTF-8 text of all records."""
    import gzip

    total = 0
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            total += sum(len(json.loads(line)["text"].encode()) for line in lines)
    return total / 1e6


def show(results: dict[tuple[str, bool, bool], list[dict[str, float]]], megabytes: float) -> tuple[dict[str, float], dict[str, float]]:
    figures: dict[str, float] = {}
    spread: dict[str, float] = {}
    print(f"{megabytes:.1f} MB of text\n{'work':<30}{'MB/CPU-second':>14}{'range':>16}{'seconds':>9}{'memory, MB':>12}{'kept':>9}")
    for (engine, near, rules), own in results.items():
        if not own:
            continue
        name = f"{'near' if near else 'read'}: {engine}{', all rules' if rules else ''}"
        rates = [megabytes / result["cpu"] for result in own]
        middle = {key: statistics.median(result[key] for result in own) for key in ("wall", "memory", "kept")}
        print(f"{name:<30}{statistics.median(rates):>14.1f}{f'{min(rates):.1f} to {max(rates):.1f}':>16}", end="")
        print(f"{middle['wall']:>9.1f}{middle['memory']:>12.0f}{middle['kept']:>9.0f}")
        figures |= {f"MB/CPU-s {name}": statistics.median(rates), f"memory {name}": middle["memory"]}
        spread[f"MB/CPU-s {name}"] = max(rates) - min(rates)
    return figures, spread


if __name__ == "__main__":
    main()
