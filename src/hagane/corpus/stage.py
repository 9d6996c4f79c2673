"""The corpus stage of a run: the sketch says how much text is wanted, `build` reads and cleans it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hagane.corpus import removal
from hagane.corpus.build import CorpusFacts, build_corpus
from hagane.corpus.inputs import fingerprint
from hagane.corpus.pool import ConsoleProgress, Workers
from hagane.corpus.sample import EXCERPT_BYTES
from hagane.errors import DataError
from hagane.folder import Run, read_json, write_atomic
from hagane.plan.contexts import contexts
from hagane.plan.kept import corpus_inputs

MOST_BYTES_PER_TOKEN = 4.5  # as hagane.plan.law has it for large vocabularies


def run_stage(run: Run, folder: Path) -> CorpusFacts:
    """Write documents kept and held out, manifest and a sample of what was dropped."""
    settings = run.recipe.corpus.model_copy(update=derived(run))
    removed = removal.load(run.folder, settings.remove)
    with _workers(run) as workers:
        facts = build_corpus(settings.sources, settings, folder, seed=run.seed, workers=workers, removed=removed, progress=ConsoleProgress())
    write_atomic(folder / "inputs.json", f'{{"fingerprint": "{fingerprint(corpus_inputs(settings))}"}}')
    return facts


def derived(run: Run) -> dict[str, int | None]:
    """Settings that follow from the budget and from how long rows will be: a document that is cut to less than a row teaches nothing far away."""
    longest = max(contexts(run.recipe))
    return {
        "sample_bytes": run.sketch.sample_bytes,
        "stretch_bytes": run.recipe.corpus.stretch_bytes or max(EXCERPT_BYTES, round(2 * MOST_BYTES_PER_TOKEN * longest)),
    }


@contextlib.contextmanager
def _workers(run: Run) -> Iterator[Workers | None]:
    """Processes of this machine, or the cluster that the recipe asks for."""
    limit, address = run.recipe.corpus.workers, run.recipe.execution.ray
    if address is None:
        yield limit
        return
    from hagane.corpus.on_ray import joined

    with joined(address, limit, say=lambda sentence: run.say(f"corpus     {sentence}")) as cluster:
        yield cluster


def inputs_digest(run: Run) -> str:
    """Identity of the text that is read. Once the corpus is in the run folder its sources may go away: that is said, and the run goes on."""
    try:
        return fingerprint(corpus_inputs(run.recipe.corpus))
    except DataError as error:
        kept = run.path("corpus") / "inputs.json"
        if not (run.path("corpus") / "facts.json").exists():
            raise
        run.say(f"corpus     {error} The documents read before are in the run folder; going on with them.")
        return str(read_json(kept)["fingerprint"])
