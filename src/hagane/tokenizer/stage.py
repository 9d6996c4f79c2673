"""The tokenizer stage: train the largest candidate vocabulary, measure every smaller one on held-out text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from hagane.corpus.build import CorpusFacts
from hagane.corpus.documents import balanced_sample, held_out_texts
from hagane.folder import Run
from hagane.plan.start import starting_folder, starting_model
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import bytes_per_token, bytes_per_token_as_it_is, num_learned, train_tokenizer
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

    texts = held_out_texts(corpus, facts, MEASURED_BYTES)
    start = starting_folder(run.recipe)
    if start is not None:
        return _kept(run, folder, start, texts, started)
    candidates = run.recipe.tokenizer.candidates
    tokenizer = train_tokenizer(sample(), max(candidates))
    learned = num_learned(tokenizer)
    sizes = [size for size in candidates if size <= learned] or [min(candidates)]
    # a corpus of one document has nothing held out: its own beginning stands in
    texts = texts or {"und": [next(balanced_sample(corpus, facts, MEASURED_BYTES))]}
    save_for_transformers(tokenizer, folder, run.recipe.train.context)
    return TokenizerFacts(
        vocabulary_size=learned, sample_bytes=read, bytes_per_token=bytes_per_token(tokenizer, texts, sizes), seconds=time.monotonic() - started
    )


def _kept(run: Run, folder: Path, start: Path, texts: dict[str, list[str]], started: float) -> TokenizerFacts:
    """The tokenizer of the checkpoint that the run starts from; nothing is trained."""
    from hagane.hosts.checkpoint import read_tokenizer

    tokenizer, model = read_tokenizer(start), starting_model(run.recipe)
    assert model is not None
    save_for_transformers(tokenizer, folder, run.recipe.train.context)
    measured = bytes_per_token_as_it_is(tokenizer, texts or {"und": ["no text was held out"]})
    return TokenizerFacts(
        vocabulary_size=model.vocabulary_size, sample_bytes=0, bytes_per_token={model.vocabulary_size: measured}, seconds=time.monotonic() - started
    )
