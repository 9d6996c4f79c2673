"""The evaluate stage: bits per byte and per parallel sentence, accuracy in both modes, the look-up baseline beside it."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import torch

from hagane.corpus.embedded import fixed_test, parallel_sentences, problems
from hagane.engine.load import load_decoder, load_starting
from hagane.evaluate.accuracy import accuracy, totals
from hagane.evaluate.baseline import baseline
from hagane.evaluate.bits_per_byte import bits_per_sentence, by_language, rate, read_held_out, score_shards
from hagane.evaluate.facts import EvaluateFacts, Mode
from hagane.evaluate.forgetting import forgetting
from hagane.evaluate.retrieval import retrieval
from hagane.folder import Run
from hagane.plan.facts import PlanFacts
from hagane.plan.start import starting_folder
from hagane.tokenizer.bpe import load_tokenizer
from hagane.tune.conversations import known_problems
from hagane.tune.stage import trained_folder

MODES: tuple[Mode, ...] = ("thinking", "plain")
BASELINE_PROBLEMS = 6_000  # generated training problems the look-up may know


def run_stage(run: Run, folder: Path) -> EvaluateFacts:
    """Evaluate the final weights at the planned number of problems per cell."""
    return evaluate(run, trained_folder(run), run.sketch.items_per_cell)


def evaluate(run: Run, trained: Path, items_per_cell: int) -> EvaluateFacts:
    """Everything that is measured of one model. Problems are asked only where it was tuned to answer."""
    started, settings = time.monotonic(), run.recipe.evaluate
    dtype = run.recipe.train.dtype
    decoder, _ = load_decoder(trained, run.machine.device, getattr(torch, dtype))
    context = PlanFacts.model_validate(run.facts("plan")).model.context  # before an extension: what the plan expects is for this
    tokenizer = load_tokenizer(run.path("encode"))
    held_out = read_held_out(run.path("corpus"), settings.max_bytes, run.seed)
    scores = score_shards(decoder, tokenizer, held_out, context)
    after, start = by_language(scores, held_out), starting_folder(run.recipe)
    forgotten = None
    if start is not None:
        first, first_tokenizer = load_starting(start, run.machine.device, getattr(torch, dtype))
        before = by_language(score_shards(first, first_tokenizer, held_out, context), held_out)
        forgotten = forgetting(before, after, run.recipe.start.languages)
        del first
    languages, families = known_problems(run.recipe.tune)
    sentences = [{language: sentence[language] for language in languages} for sentence in parallel_sentences(settings.parallel_sentences)]
    parallel = bits_per_sentence(decoder, tokenizer, sentences, context)
    found_again = retrieval(decoder, tokenizer, settings.retrieval, languages, held_out)
    tuned = "tune/" in trained.as_posix()
    asked = [problem for problem in fixed_test(items_per_cell) if problem.language in languages and problem.family in families] if tuned else []
    answers = [accuracy(decoder, tokenizer, asked, mode, settings.max_new_tokens) for mode in MODES] if asked else []
    looked_up = baseline(asked, itertools.islice(problems(run.seed, "train", families, languages), BASELINE_PROBLEMS)) if asked else ()
    found = tuple(cell for answer in answers for cell in answer.cells)
    return EvaluateFacts(
        bits_per_byte={language: rate(own) for language, own in after.items()}, start=forgotten,
        by_shard={shard: rate(own) for shard, own in scores.items()}, parallel=parallel, accuracy=found, accuracy_totals=totals(found), baseline=looked_up,
        baseline_totals=totals(looked_up), unanswered=tuple(answer.unanswered for answer in answers),
        samples=tuple(sample for answer in answers for sample in answer.samples), generated_tokens=sum(answer.generated_tokens for answer in answers),
        retrieval=found_again, dtype=dtype, seconds=time.monotonic() - started,
    )  # fmt: skip
