"""The corpus stage of a run: the sketch says how much text is wanted, `build` reads and cleans it."""

from __future__ import annotations

from pathlib import Path

from hagane.corpus import removal
from hagane.corpus.build import CorpusFacts, build_corpus
from hagane.corpus.inputs import fingerprint
from hagane.corpus.overlap import excluded_source
from hagane.corpus.pool import ConsoleProgress
from hagane.errors import DataError
from hagane.folder import Run, read_json, write_atomic
from hagane.recipe.schema import CorpusSettings, Source


def run_stage(run: Run, folder: Path) -> CorpusFacts:
    """Write documents kept and held out, manifest and a sample of what was dropped."""
    settings = run.recipe.corpus.model_copy(update={"sample_bytes": run.sketch.sample_bytes})
    removed = removal.load(run.folder, settings.remove)
    facts = build_corpus(settings.sources, settings, folder, seed=run.seed, workers=settings.workers, removed=removed, progress=ConsoleProgress())
    write_atomic(folder / "inputs.json", f'{{"fingerprint": "{fingerprint(_all_inputs(settings))}"}}')
    return facts


def _all_inputs(settings: CorpusSettings) -> list[Source]:
    """What decides the corpus: the text, and the evaluation files that are kept out of it."""
    return [*settings.sources, *excluded_source(settings.exclude)]


def inputs_digest(run: Run) -> str:
    """Identity of the text that is read. Once the corpus is in the run folder its sources may go away: that is said, and the run goes on."""
    try:
        return fingerprint(_all_inputs(run.recipe.corpus))
    except DataError as error:
        kept = run.path("corpus") / "inputs.json"
        if not (run.path("corpus") / "facts.json").exists():
            raise
        run.say(f"corpus     {error} The documents read before are in the run folder; going on with them.")
        return str(read_json(kept)["fingerprint"])
