"""The tokenizer stage: train the largest candidate vocabulary, measure every smaller one on held-out text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from hagane.corpus.build import CorpusFacts
from hagane.corpus.documents import balanced_sample, held_out_texts
from hagane.folder import Run
from hagane.plan.start import refuse_absent, starting_folder, starting_model
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Frozen
from hagane.tokenizer.bpe import bytes_per_token, bytes_per_token_as_it_is, num_learned, train_tokenizer
from hagane.tokenizer.chat import CHAT_TEMPLATE
from hagane.tokenizer.extend import extend, next_id
from hagane.tokenizer.save import save_for_transformers, save_pieces

MEASURED_BYTES = 60_000  # held-out text per language on which the candidates are compared
MOST_NEW = 32_768  # tokens that `start.new_tokens = "auto"` adds at most
LEARNED_READINGS = 100  # of a token, at least, in training (docs/notebook.md, "Starting from a trained model": other values were not tried)
START_BYTES_PER_TOKEN = 3.0  # of text in a language that a tokenizer was not made for, once it has tokens for it


class TokenizerFacts(Frozen):
    """The largest vocabulary and, for every candidate size, UTF-8 bytes per token by language."""

    vocabulary_size: int
    sample_bytes: int
    bytes_per_token: dict[int, dict[str, float]]
    new_tokens: int = Field(0, description="tokens that the checkpoint a run starts from did not have")
    bytes_per_token_at_start: dict[str, float] = Field(default_factory=dict, description="of the checkpoint's own tokenizer, by language")
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
        return _kept(run, folder, start, facts, texts, started)
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


def _kept(run: Run, folder: Path, start: Path, facts: CorpusFacts, texts: dict[str, list[str]], started: float) -> TokenizerFacts:
    """The tokenizer of the checkpoint that the run starts from, with as many new tokens as the recipe asks for; its merges and ids stay."""
    from hagane.hosts.checkpoint import read_chat_template
    from hagane.hosts.vocabulary import rows_for, starting_tokenizer

    refuse_absent(run.recipe, {shard.language for shard in facts.shards.values()})
    known, model = starting_tokenizer(start), starting_model(run.recipe)
    assert model is not None
    tokenizer, pieces, read = known.tokenizer, known.pieces, 0
    new = _new_shards(run.recipe, facts)
    if run.recipe.start.new_tokens and new.shards:
        sample = list(balanced_sample(run.path("corpus"), new, run.sketch.tokenizer_bytes, run.recipe.corpus.max_repeats))
        read = sum(len(text.encode()) for text in sample)
        larger = extend(tokenizer, sample, *_wanted(run, read))
        tokenizer, pieces = larger.tokenizer, {**pieces, **larger.pieces}
    # one that speaks of other special tokens than ours would end its turns with one that is not ours either
    template = None if known.pieces else read_chat_template(start)
    save_for_transformers(tokenizer, folder, run.recipe.train.context, template or CHAT_TEMPLATE)
    save_pieces(folder, pieces)
    rows = rows_for(next_id(tokenizer), model.vocabulary_size)
    measured = bytes_per_token_as_it_is(tokenizer, texts or {"und": ["no text was held out"]})
    return TokenizerFacts(
        vocabulary_size=rows, sample_bytes=read, bytes_per_token={rows: measured}, new_tokens=len(pieces),
        bytes_per_token_at_start=bytes_per_token_as_it_is(known.tokenizer, texts), seconds=time.monotonic() - started,
    )  # fmt: skip


def _new_shards(recipe: Recipe, facts: CorpusFacts) -> CorpusFacts:
    """The corpus without what the checkpoint knows: what new tokens are for. Nothing where no language is named and none is asked for."""
    start = recipe.start
    if start.new_tokens == "auto" and not start.languages:
        return facts.model_copy(update={"shards": {}})
    return facts.model_copy(update={"shards": {name: shard for name, shard in facts.shards.items() if shard.language not in start.languages}})


def _wanted(run: Run, sample_bytes: int) -> tuple[int, int]:
    """How many new tokens at most, and how often the pair of one must occur in the sample: so often that training reads it LEARNED_READINGS times."""
    settings, tokens = run.recipe.start, run.sketch.tokens * (1 - run.recipe.tune.share)
    if settings.new_tokens != "auto":
        return settings.new_tokens, 2
    read = tokens * (1 - settings.replay_share) * START_BYTES_PER_TOKEN
    return MOST_NEW, max(2, round(LEARNED_READINGS * sample_bytes / read))
