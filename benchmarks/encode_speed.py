"""Encoding a corpus to shards on disk against `tokenizers`' own batches in memory: `hagane encode` must not be the slower one.

Ours reads parquet, encodes, writes, hashes, packs and syncs; the other is one call of `encode_batch` with all texts already in
memory, and its ids as lists. Both take turns; the ratio is of the times of one turn.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import finish
from hagane.corpus.build import build_corpus
from hagane.corpus.documents import balanced_sample, read_documents
from hagane.data.encode import encode_text
from hagane.recipe.schema import CorpusSettings, Source
from hagane.tokenizer.bpe import plain, train_tokenizer


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    mode = "full" if "--full" in sys.argv else "quick"
    sample_bytes, turns, vocabulary = (8_000_000, 7, 8192) if mode == "full" else (4_000_000, 5, 2048)
    paths = [argument for argument in sys.argv[1:] if not argument.startswith("--")]  # other text than the embedded corpus
    sources = [Source(name="text", path=tuple(paths))] if paths else [Source(name=name, path=f"embedded:{name}", share=0.5) for name in ("python", "problems")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        facts = build_corpus(sources, CorpusSettings(sample_bytes=sample_bytes), folder / "corpus")
        tokenizer = train_tokenizer(balanced_sample(folder / "corpus", facts, 1_000_000), vocabulary)
        texts = [row["text"] for shard in facts.shards for row in read_documents(folder / "corpus", "train", shard)]
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        library = plain(tokenizer)
        ours, theirs = [], []
        for turn in range(turns + 1):
            mine = timed(lambda turn=turn: encode_text(folder / "corpus", facts.shards, tokenizer, folder / f"text-{turn}", (256,)))
            other = timed(lambda: [encoding.ids for encoding in library.encode_batch(texts, add_special_tokens=False)])
            if turn:  # the first turn starts threads and fills caches
                ours.append(mine)
                theirs.append(other)
    ratios = [other / mine for mine, other in zip(ours, theirs)]
    print(f"{megabytes:.1f} MB, {len(texts):,} documents, vocabulary {tokenizer.get_vocab_size():,}, {turns} turns")
    print(f"{'way':<34}{'MB/s, median':>14}")
    print(f"{'hagane encode, files to shards':<34}{megabytes / statistics.median(ours):>14.2f}")
    print(f"{'tokenizers encode_batch, in memory':<34}{megabytes / statistics.median(theirs):>14.2f}")
    print(f"times as fast: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    figures = {"times_as_fast_as_encode_batch": statistics.median(ratios), "megabytes_per_second": megabytes / statistics.median(ours)}
    finish("encode_speed", mode, figures, {"times_as_fast_as_encode_batch": max(ratios) - min(ratios)}, {"times_as_fast_as_encode_batch": ">= 1.0"})


if __name__ == "__main__":
    main()
