"""Encoding a corpus to shards on disk against `tokenizers`' own batches in memory: `hagane encode` must not be the slower one.

Ours reads parquet, encodes, writes, hashes, packs and syncs; the other is one call of `encode_batch` with all texts already in
memory, and its ids as lists. Both begin with a tokenizer that has encoded nothing yet (it remembers words), on all cores. They take
turns, and take turns at being first; the ratio is of the times of one turn, and of each side's best turn (other programs only add time).
Paths on the command line are read in place of the embedded corpus.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tokenizers import Tokenizer

from common import finish
from hagane.corpus.build import build_corpus
from hagane.corpus.documents import balanced_sample, read_documents
from hagane.data.encode import encode_text
from hagane.recipe.schema import CorpusSettings, Source
from hagane.tokenizer.bpe import plain, train_tokenizer


def measure(folder: Path, sources: list[Source], sample_bytes: int, turns: int, vocabulary: int) -> tuple[list[float], list[float], float]:
    """Seconds of every turn of ours and of theirs, and megabytes of text."""
    (folder / "corpus").mkdir()
    facts = build_corpus(sources, CorpusSettings(sample_bytes=sample_bytes), folder / "corpus")
    tokenizer = train_tokenizer(balanced_sample(folder / "corpus", facts, 1_000_000), vocabulary)
    texts = [row["text"] for shard in facts.shards for row in read_documents(folder / "corpus", "train", shard)]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{megabytes:.1f} MB, {len(texts):,} documents, {len(facts.shards)} shards, vocabulary {tokenizer.get_vocab_size():,}, {turns} turns")
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(turns + 1):
        for name in ("ours", "theirs") if turn % 2 else ("theirs", "ours"):
            fresh = Tokenizer.from_str(tokenizer.to_str())
            start = time.perf_counter()
            if name == "ours":
                result = encode_text(folder / "corpus", facts.shards, fresh, folder / f"text-{turn}", (256,))
            else:
                result = [encoding.ids for encoding in plain(fresh).encode_batch(texts, add_special_tokens=False)]
            spent = time.perf_counter() - start
            del result  # freed outside the clock
            if turn:  # the first turn starts threads and fills the disk's cache
                seconds[name].append(spent)
    return seconds["ours"], seconds["theirs"], megabytes


def main() -> None:
    mode = "full" if "--full" in sys.argv else "quick"
    sample_bytes, turns, vocabulary = (8_000_000, 9, 8192) if mode == "full" else (3_000_000, 7, 2048)
    paths = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    embedded = [Source(name=name, path=(f"embedded:{name}",), share=0.5) for name in ("python", "problems")]
    sources = [Source(name="text", path=tuple(paths))] if paths else embedded
    with tempfile.TemporaryDirectory() as name:
        ours, theirs, megabytes = measure(Path(name), sources, sample_bytes, turns, vocabulary)
    ratios = [other / mine for mine, other in zip(ours, theirs)]
    best = min(theirs) / min(ours)
    print(f"{'way':<34}{'MB/s, best':>12}{'median':>10}")
    for way, seconds in (("hagane encode, files to shards", ours), ("tokenizers encode_batch, in memory", theirs)):
        print(f"{way:<34}{megabytes / min(seconds):>12.2f}{megabytes / statistics.median(seconds):>10.2f}")
    print(f"times as fast: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) by turns, {best:.2f} by the best turns")
    figures = {"times_as_fast_as_encode_batch": statistics.median(ratios), "times_as_fast_best_turns": best, "megabytes_per_second": megabytes / min(ours)}
    finish("encode_speed", mode, figures, {"times_as_fast_as_encode_batch": max(ratios) - min(ratios)}, {"times_as_fast_as_encode_batch": ">= 1.0"})


if __name__ == "__main__":
    main()
