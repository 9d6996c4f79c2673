"""The tokenizer stage: train the largest candidate vocabulary, measure every smaller one on held-out text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from hagane.corpus.build import CorpusFacts
from hagane.corpus.documents import balanced_sample, held_out_texts
from hagane.folder import Run
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import bytes_per_token, num_learned, train_tokenizer
from hagane.tokenizer.save import save_for_transformers

MEASURED_BYTES = 60_000  # held-out text per language on which the candidates are compared


class TokenizerFacts(Frozen):
    """The largest vocabulary and, for every candidate size, UTF-8 bytes per token by language."""

    vocabulary_size: int
    sample_bytes: int
    bytes_per_token: dict[int, dict[str, float]]
    seconds: float


def run_stage(run: Run, folder: Path) -> TokenizerFacts:
    """Train on a mixture-balanced sample; candidates that the text is too small for are left out."""
    started = time.monotonic()
    corpus, facts = run.path("corpus"), CorpusFacts.model_validate(run.facts("corpus"))
    shares = {source.name: source.share for source in run.recipe.corpus.sources if source.share is not None}
    read = 0

    def sample() -> Iterator[str]:
        nonlocal read
        for text in balanced_sample(corpus, facts, run.sketch.tokenizer_bytes, run.recipe.corpus.max_repeats, shares):
            read += len(text.encode())
            yield text

    candidates = run.recipe.tokenizer.candidates
    tokenizer = train_tokenizer(sample(), max(candidates))
    learned = num_learned(tokenizer)
    sizes = [size for size in candidates if size <= learned] or [min(candidates)]
    # a corpus of one document has nothing held out: its own beginning stands in
    texts = held_out_texts(corpus, facts, MEASURED_BYTES) or {"und": [next(balanced_sample(corpus, facts, MEASURED_BYTES))]}
    save_for_transformers(tokenizer, folder, run.recipe.train.context)
    return TokenizerFacts(
        vocabulary_size=learned, sample_bytes=read, bytes_per_token=bytes_per_token(tokenizer, texts, sizes), seconds=time.monotonic() - started
    )
