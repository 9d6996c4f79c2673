"""How fast, in how much memory and how exactly text is read, cleaned and freed of near-duplicates.

    python benchmarks/corpus.py                          # a minute, generated text
    python benchmarks/corpus.py --corpus DIR --full      # text of your own, 100 and 400 MB of it

Speed is of `build_corpus`: decompressed bytes of documents read over seconds, from listing the files to the last shard, tokenisation
excluded, every build in a process of its own, with and without near-duplicates by turns. Memory is the peak of the main process and
of every worker, added up. Near-duplicates are planted: copies with some words replaced, of exact Jaccard similarity 0.8 or more over
runs of five words. Recall is the share of them that goes; a false removal is a document that goes although the document it was
found like shares less than 0.7 of their runs. (Between the two either answer is right.) A leak is a document to train on that shares half of its
runs, or of the other's, with the held-out document that it was made from: a planted copy, or a longer text around it; near-duplicates are kept for this.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common import finish
from hagane.corpus import leaks, near
from hagane.corpus.blocks import Trace
from hagane.corpus.build import build_corpus
from hagane.corpus.documents import read_documents
from hagane.corpus.inputs import list_inputs
from hagane.corpus.readers import read
from hagane.corpus.records import Record
from hagane.corpus.shingles import shingles, word_hashes
from hagane.measure.machine import cores
from hagane.recipe.schema import CorpusSettings, Source


def generated(folder: Path, megabytes: int) -> Path:
    """Text of made-up words in files of 5 MB, gzipped: as long as web pages, a few words frequent and most rare."""
    words = np.array(["".join(random.Random(number).choices("abdefgiklmnoprstuvåäö", k=2 + number % 9)) for number in range(20_000)])
    generator = np.random.default_rng(0)
    for file in range(max(1, megabytes // 5)):
        with gzip.open(folder / f"{file:03d}.jsonl.gz", "wt", compresslevel=1) as lines:
            for number in range(1400):
                places = np.minimum(generator.zipf(1.3, 600), len(words)) - 1
                lines.write(json.dumps({"id": f"{file}-{number}", "text": " ".join(words[places]), "lang": "sv"}, ensure_ascii=False) + "\n")
    return folder


def some_files(corpus: Path, megabytes: float) -> list[str]:
    """Files of a corpus, spread over its folders, that hold about so many decompressed megabytes (gzip taken to be a third)."""
    paths, total = sorted(item.path for item in list_inputs([Source(name="text", path=(str(corpus),))]).inputs), 0.0
    random.Random(0).shuffle(paths)
    chosen = []
    for path in paths:
        if total >= megabytes * 1e6:
            break
        chosen.append(path)
        total += Path(path).stat().st_size * (3 if path.endswith((".gz", ".zst")) else 1)
    return chosen


def one(job: dict[str, object]) -> None:
    """One build, in this process: prints its figures as JSON."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        settings = CorpusSettings(near_duplicates=job["near"])
        facts = build_corpus([Source(name="text", path=tuple(job["paths"]))], settings, Path(out))
        seconds = time.perf_counter() - start
    peak = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    dropped = {reason: count.documents for reason, count in facts.dropped.items()}
    print(json.dumps({"seconds": seconds, "bytes": facts.bytes_in, "memory": peak[0] + cores() * peak[1], "documents": facts.documents_in, "dropped": dropped}))


def build(paths: list[str], near_duplicates: float) -> dict[str, object]:
    job = json.dumps({"paths": paths, "near": near_duplicates})
    done = subprocess.run([sys.executable, __file__, "--one", job], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def documents(paths: list[str], count: int) -> Iterator[str]:
    """Documents of at least 60 words."""
    found = 0
    for item in list_inputs([Source(name="text", path=tuple(paths))]).inputs:
        taken = 0
        for record in read(item, Trace()):
            if isinstance(record, Record) and len(word_hashes(record.text)) >= 60:
                yield record.text
                found, taken = found + 1, taken + 1
            if found >= count or taken >= max(20, count // 20):
                break
        if found >= count:
            return


def runs(text: str) -> set[int]:
    return set(shingles(word_hashes(text), near.SHINGLE_WORDS).tolist())


def jaccard(first: set[int], second: set[int]) -> float:
    return len(first & second) / max(1, len(first | second))


def planted(paths: list[str], count: int) -> dict[str, float]:
    """Recall of planted copies, and the share of documents that go without reason."""
    originals = list(dict.fromkeys(documents(paths, count)))
    generator, copies = random.Random(0), []
    for number, text in enumerate(originals):
        copy = edited(text, generator)
        if jaccard(runs(text), runs(copy)) >= 0.8:
            copies.append((number, copy))
    texts = originals + [copy for _, copy in copies]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.npy"
        np.save(path, np.array([near.signature(text) for text in texts]))
        first = near.clusters([near.Signed(path, np.arange(len(texts)))], np.ones(len(texts), bool), CorpusSettings().near_duplicates)
    found = [first[len(originals) + index] == first[number] for index, (number, _) in enumerate(copies)]
    gone = [index for index in range(len(originals)) if first[index] != index]
    false = [index for index in gone if jaccard(runs(texts[index]), runs(texts[first[index]])) < 0.7]
    print(f"{len(originals):,} documents, {len(copies):,} planted copies: recall {np.mean(found):.2%}; {len(gone)} of the documents themselves go, ", end="")
    print(f"{len(false)} of them share less than 0.7 with the one they were found like")
    return {"recall of planted copies": float(np.mean(found)), "false removals": len(false) / len(originals)}


def edited(text: str, generator: random.Random) -> str:
    """The same with up to 3 % of its words replaced."""
    space = " " if " " in text else ""
    parts = text.split(" ") if space else list(text)
    for place in generator.sample(range(len(parts)), max(1, round(len(parts) * generator.uniform(0.001, 0.03)))):
        parts[place] = f"x{generator.randrange(10**6)}"
    return space.join(parts)


def leaked(paths: list[str], count: int) -> dict[str, float]:
    """Planted copies of held-out documents that are still trained on, without and with `held_out_overlap`."""
    originals, generator = list(dict.fromkeys(text for text in documents(paths, count) if len(text) < 50_000)), random.Random(1)
    records = [{"id": f"{number}-o", "text": text} for number, text in enumerate(originals)]
    records += [{"id": f"{number}-c", "text": edited(text, generator)} for number, text in enumerate(originals)]
    longer = [(number, originals[number - 1] + "\n" + text + "\n" + originals[number - 2]) for number, text in enumerate(originals) if number % 4 == 0]
    records += [{"id": f"{number}-l", "text": text} for number, text in longer]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.jsonl"
        path.write_text("".join(json.dumps(record | {"lang": "x-mixed"}) + "\n" for record in records))
        for share in (0.0, CorpusSettings().held_out_overlap):
            out = Path(folder) / f"out-{share}"
            out.mkdir()
            settings = CorpusSettings(near_duplicates=0.0, held_out_overlap=share, held_out_share=0.1, held_out_bytes=10**9, identify="off")
            facts = build_corpus([Source(name="text", path=(str(path),))], settings, out)
            parts = {split: [row for name in facts.shards for row in read_documents(out, split, name)] for split in ("train", "held_out")}
            held: dict[str, list[np.ndarray]] = {}
            for row in parts["held_out"]:
                held.setdefault(row["id"].split("-")[0], []).append(near_runs(row["text"]))
            pairs = [(row["text"], other) for row in parts["train"] for other in held.get(row["id"].split("-")[0], ())]
            found[share] = sum(leaks.contained(near_runs(text), other) >= 0.5 for text, other in pairs)
    before, after = found.values()
    print(f"planted copies of held-out documents to train on: {before:,}, {after:,} with held_out_overlap")
    return {"planted leaks": float(before), "leaks left": after / max(1, before)}


def near_runs(text: str) -> np.ndarray:
    return np.unique(shingles(word_hashes(text), near.SHINGLE_WORDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(json.loads(options.one))
        return
    sizes, turns, count = ((100, 400), 3, 20_000) if options.full else ((20, 40), 2, 2_000)
    with tempfile.TemporaryDirectory() as folder:
        corpus = options.corpus or generated(Path(folder), sizes[-1])
        small, large = (some_files(corpus, size) for size in sizes)
        rows: dict[str, list[dict[str, object]]] = {"without near-duplicates": [], "with": [], "with, larger input": []}
        for _ in range(turns):
            rows["without near-duplicates"].append(build(small, 0.0))
            rows["with"].append(build(small, CorpusSettings().near_duplicates))
        rows["with, larger input"].append(build(large, CorpusSettings().near_duplicates))
        figures = planted(small, count) | leaked(small, count // 4)
    print(f"{'build':<26}{'MB':>8}{'documents':>11}{'MB/s, median':>14}{'best':>8}{'worst':>8}{'memory, MB':>12}")
    spread = {}
    for name, results in rows.items():
        rates = [result["bytes"] / 1e6 / result["seconds"] for result in results]
        memory = max(result["memory"] for result in results)
        print(f"{name:<26}{results[0]['bytes'] / 1e6:>8.1f}{results[0]['documents']:>11,}", end="")
        print(f"{statistics.median(rates):>14.1f}{max(rates):>8.1f}{min(rates):>8.1f}{memory:>12.0f}")
        figures |= {f"MB/s {name}": statistics.median(rates), f"memory {name}": memory}
        spread[f"MB/s {name}"] = max(rates) - min(rates)
    print("dropped:", rows["with, larger input"][0]["dropped"])
    figures["memory, larger over smaller input"] = figures["memory with, larger input"] / figures["memory with"]
    goals = {"MB/s without near-duplicates": ">= 15", "MB/s with": ">= 5", "memory, larger over smaller input": "<= 1.2"}
    goals |= {"recall of planted copies": ">= 0.95", "false removals": "<= 0.01", "leaks left": "<= 0.01"}
    finish("corpus", "full" if options.full else "quick", figures, spread, goals)


if __name__ == "__main__":
    main()
