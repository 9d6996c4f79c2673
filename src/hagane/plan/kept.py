"""Where fitted laws are kept: beside the machine profiles, one file per corpus and kind of model, named by where its text is, what is there, and layers."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hagane.cache import cache_folder
from hagane.errors import DataError, RunError
from hagane.folder import write_atomic
from hagane.plan.contexts import curriculum
from hagane.plan.law import GENERAL, Law, Point
from hagane.recipe.schema import CorpusSettings, PatternSettings, Recipe, Source

CHANGED_ERROR = 0.04  # relative, added to the noise of a law whose corpus has changed since
OTHERWISE_ERROR = 0.04  # likewise, for each of them, of one fitted at another context, with another optimizer or another kind of model (assumed, not measured)


def corpus_inputs(settings: CorpusSettings) -> list[Source]:
    """What decides a corpus: the text, and the evaluation files that are kept out of it."""
    if not settings.exclude:
        return [*settings.sources]
    from hagane.corpus.overlap import excluded_source

    return [*settings.sources, *excluded_source(settings.exclude)]


def corpus_paths(recipe: Recipe) -> tuple[str, ...]:
    """Where the text of a recipe is."""
    return tuple(sorted(path for source in recipe.corpus.sources for path in source.path))


def law_folder() -> Path:
    return cache_folder() / "laws"


def law_path(paths: tuple[str, ...], fingerprint: str, pattern: str | None) -> Path:
    """`laws/PLACE-FINGERPRINT-PATTERN.json`: laws of earlier states of a corpus, and of other patterns, lie beside. Older versions wrote no pattern."""
    return law_folder() / f"{place(paths)}-{fingerprint}{'' if pattern is None else f'-{_digest(pattern)}'}.json"


def place(paths: tuple[str, ...]) -> str:
    """A short name for where a text is."""
    return _digest("\n".join(paths))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def pattern_name(pattern: PatternSettings) -> str:
    """The kinds of layers a pattern is made of, such as `3 x Gated DeltaNet + attention, experts`: a law of one kind is none of another."""
    deltas = f"{pattern.deltas} x Gated DeltaNet + " if pattern.deltas else ""
    marks = " and ".join(mark for mark, there in (("indexer", pattern.index_top_k), ("window", pattern.window)) if there)
    return f"{deltas}{'latent ' if pattern.mixer == 'latent' else ''}attention{f' with {marks}' if marks else ''}, {pattern.ffn}"


def keep_law(law: Law) -> Path:
    """Write a law where `find_law` finds it. Raises RunError where the cache cannot be written."""
    assert law.corpus is not None
    path = law_path(law.paths, law.corpus, law.pattern)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path.parent} cannot be made: {error.strerror}. Set HAGANE_CACHE to a folder that can be written.") from None
    write_atomic(path, law.model_dump_json())
    return path


def read_law(path: Path, corpus: str | None = None) -> Law:
    """A law file. Raises RunError where it is damaged, of another version, or of another corpus than the one asked for."""
    try:
        law = Law.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}. Run hagane ladder again.") from None
    except (ValidationError, UnicodeDecodeError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not text"
        raise RunError(f"{path} is damaged or of another version ({what}). Delete it to plan by the general law, or run hagane ladder again.") from None
    if corpus is not None and law.corpus != corpus:
        raise RunError(
            f"{path} is the law of another corpus ({', '.join(law.paths) or 'unknown'}, fitted {law.fitted}). Delete it, or run hagane ladder for this one."
        )
    return law


def find_law(recipe: Recipe) -> Law:
    """The law of the recipe's text: of its own pattern where there is one, else of another; of the text as it is, else of an earlier state; the newest. What is
    not its own has a wider interval. Without any the general law.

    Raises RunError for a law file that is damaged or of another corpus.
    """
    from hagane.corpus.inputs import fingerprint

    paths = corpus_paths(recipe)
    kept = [*law_folder().glob(f"{place(paths)}-*.json")]
    if not kept:
        return GENERAL
    try:
        now = fingerprint(corpus_inputs(recipe.corpus))
    except DataError:  # the text is not there (yet): the stage that reads it says so
        return GENERAL
    pattern = _digest(pattern_name(recipe.model.pattern))

    def nearness(path: Path) -> tuple[bool, bool, float]:
        _, text, *layers = path.stem.split("-")
        return layers == [pattern], text == now, path.stat().st_mtime

    path = max(kept, key=nearness)
    if nearness(path)[1]:
        return _for_recipe(read_law(path, now), recipe)
    law = read_law(path)
    return _for_recipe(_wider(law, f"{law.source}; the text has changed since, so the interval is wider: hagane ladder fits it anew", CHANGED_ERROR), recipe)


def _wider(law: Law, source: str, *errors: float) -> Law:
    """The law, and that of every language, with further relative errors in its noise."""
    languages = {name: one.model_copy(update={"noise": math.hypot(one.noise, *errors)}) for name, one in law.languages.items()}
    return law.model_copy(update={"source": source, "noise": math.hypot(law.noise, *errors), "languages": languages})


def _for_recipe(law: Law, recipe: Recipe) -> Law:
    """The law with a warning, and a wider interval, where the models are other than those it was fitted on: trained at one context, without a curriculum."""
    pattern = pattern_name(recipe.model.pattern)
    lengths = list(dict.fromkeys(context for context, _ in curriculum(recipe)))
    wrong = []
    if lengths != [law.context]:
        wrong.append(f"context {law.context} (this recipe: {', then '.join(map(str, lengths))})")
    if law.optimizer != recipe.train.optimizer:
        wrong.append(f"optimizer {law.optimizer} (this recipe: {recipe.train.optimizer})")
    if law.pattern != pattern:
        wrong.append(f"{f'the pattern {law.pattern}' if law.pattern else 'a pattern that an older version did not record'} (this recipe: {pattern})")
    if not wrong:
        return law
    way = "hagane ladder with this recipe fits it anew" if len(lengths) == 1 else "a ladder trains at one context, the recipe's last"
    said = f"{law.source}; fitted with {' and '.join(wrong)}, so the interval is wider: {way}"
    return _wider(law, said, *[OTHERWISE_ERROR] * len(wrong))


def law_page(law: Law) -> tuple[list[str], dict[str, Any]]:
    """A fitted law for people and for scripts."""
    constants, fitted = law.constants, law.fit
    assert fitted is not None
    lines = [
        f"loss law: {law.source}",
        f"  L = {constants.irreducible:.2f} + {constants.a:.3f} n^-{constants.alpha:.2f} + {constants.b:.2f} v^{constants.kappa:.2f} d^-{constants.beta:.2f} "
        "bits per byte; n in millions of parameters, d in tens of megabytes, v over 2,048",
        f"  experts: n = active^{1 - constants.share:.2f} total^{constants.share:.2f}; a run differs from the law by {100 * law.noise:.1f} %",
    ]
    for factor in (8.0, 64.0):
        parameters = math.sqrt(factor) * fitted.parameters[1]
        value, low, high = law.predict(Point(parameters, parameters, math.sqrt(factor) * fitted.bytes[1], float(fitted.vocabularies[-1])))
        lines.append(f"  {factor:.0f} times its largest model times its longest run: {value:.2f} ({low:.2f}-{high:.2f})")
    return lines, {
        "corpus": law.corpus, "runs": fitted.runs, "constants": constants.model_dump(), "noise": law.noise, "own": law.own,
        "languages": {name: language.weights for name, language in law.languages.items()}, "law": str(law_path(law.paths, law.corpus or "", law.pattern)),
    }  # fmt: skip
