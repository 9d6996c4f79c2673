"""Mixtures found by `hagane mix`: kept beside the loss laws, one file per corpus and objective, and taken up by the recipe of the same text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from hagane.cache import cache_folder
from hagane.errors import DataError, RunError
from hagane.folder import write_atomic
from hagane.plan.kept import corpus_inputs, corpus_paths, place
from hagane.recipe.schema import Recipe
from hagane.recipe.types import Frozen

LEAST_PAIRS = 2  # one may be chance


class LanguageMixture(Frozen):
    """One language: shares of the text that is mixed, how often its text is then read, and expected bits per byte at the size of the proxies."""

    unimax: float
    found: float
    repeats: float
    expected_unimax: float | None = None
    expected_found: float | None = None


class ProxyResult(Frozen):
    """One proxy for the report: which mixture, and the objective it reached."""

    kind: str
    objective: float


class FoundMixture(Frozen):
    """The mixture with the least expected objective, what it is expected to gain over UniMax, and what that rests on."""

    format: int = 1
    corpus: str = Field(description="fingerprint of the text")
    paths: tuple[str, ...] = Field(description="where that text was")
    found: str = Field(description="date")
    objective: str
    importance: dict[str, float] = Field(default_factory=dict)
    weights: dict[str, float] = Field(description="language -> how much is read against the others; 1 is the mean")
    gain: float = Field(description="expected, relative, of the objective over UniMax")
    low: float
    high: float
    measured_gain: float | None = Field(None, description="mean of pairs of proxies that differ in nothing but the mixture")
    pairs: int = 0
    languages: dict[str, LanguageMixture]
    form: str
    error: float = Field(description="relative leave-one-out error of the regression")
    constant_error: float = Field(description="the same if mixtures did not matter")
    proxies: tuple[ProxyResult, ...]
    width: int
    num_layers: int
    tokens: int = Field(description="that a proxy was trained on")
    vocabulary_size: int
    target_bytes: float = Field(description="of training text, for which repeats are bounded")
    context: int
    optimizer: str

    @property
    def gains(self) -> bool:
        """Whether the interval excludes that nothing is gained, and the proxies trained on it agree."""
        return self.low > 0 and self.pairs >= LEAST_PAIRS and self.measured_gain is not None and self.measured_gain > 0

    @property
    def what(self) -> str:
        """The objective in words."""
        return {"mean": "the mean over languages", "worst": "the worst language", "weighted": "the weighted mean"}[self.objective]

    @property
    def reason(self) -> str:
        """One line for the plan."""
        about = f"{100 * self.gain:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f} %) off {self.what}"
        if self.gains:
            return f"found by hagane mix on {self.found}: {len(self.proxies)} proxies expect {about} against UniMax"
        return f"UniMax (Chung et al. 2023): hagane mix found no gain here on {self.found}; its best mixture would take {about}"


def mixture_folder() -> Path:
    return cache_folder() / "mixtures"


def mixture_path(paths: tuple[str, ...], fingerprint: str, objective: str, importance: dict[str, float]) -> Path:
    """`mixtures/PLACE-FINGERPRINT-OBJECTIVE.json`."""
    goal = hashlib.blake2b(json.dumps([objective, importance], sort_keys=True).encode(), digest_size=4).hexdigest()
    return mixture_folder() / f"{place(paths)}-{fingerprint}-{goal}.json"


def keep_mixture(mixture: FoundMixture) -> Path:
    """Write a mixture where `find_mixture` finds it. Raises RunError where the cache cannot be written."""
    path = mixture_path(mixture.paths, mixture.corpus, mixture.objective, mixture.importance)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path.parent} cannot be made: {error.strerror}. Set HAGANE_CACHE to a folder that can be written.") from None
    write_atomic(path, mixture.model_dump_json())
    return path


def read_mixture(path: Path) -> FoundMixture:
    """A mixture file. Raises RunError where it is damaged or of another version."""
    try:
        return FoundMixture.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}. Run hagane mix again.") from None
    except (ValidationError, UnicodeDecodeError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not text"
        raise RunError(f"{path} is damaged or of another version ({what}). Delete it to go on with UniMax, or run hagane mix again.") from None


def find_mixture(recipe: Recipe) -> FoundMixture | None:
    """The mixture found for just this text and objective; None where there is none, or the recipe says how languages are mixed.

    Raises RunError for a file that is damaged.
    """
    from hagane.corpus.inputs import fingerprint

    if recipe.mix.rule != "found" or recipe.mix.weights:
        return None
    paths = corpus_paths(recipe)
    if not any(mixture_folder().glob(f"{place(paths)}-*.json")):
        return None
    try:
        now = fingerprint(corpus_inputs(recipe.corpus))
    except DataError:  # the text is not there (yet): the stage that reads it says so
        return None
    path = mixture_path(paths, now, recipe.mix.objective, recipe.mix.importance)
    return read_mixture(path) if path.exists() else None


def with_mixture(recipe: Recipe, found: FoundMixture | None) -> Recipe:
    """The recipe with the weights of a found mixture, where it gains; with its reason in any case."""
    if found is None:
        return recipe
    update = {"reason": found.reason, "weights": found.weights if found.gains else {}}
    return recipe.model_copy(update={"mix": recipe.mix.model_copy(update=update)})


def mixture_page(mixture: FoundMixture) -> tuple[list[str], dict[str, Any]]:
    """A found mixture for people and for scripts."""
    measured = "" if mixture.measured_gain is None else f"; {mixture.pairs} pairs of proxies measured {100 * mixture.measured_gain:+.1f} %"
    interval = f"{100 * mixture.gain:.2f} % (95 % interval {100 * mixture.low:.2f} to {100 * mixture.high:.2f} %)"
    lines = [
        f"mixture for {mixture.what}, from {len(mixture.proxies)} proxies of width {mixture.width}, {mixture.num_layers} layers, "
        f"{mixture.tokens / 1e6:.2f}M tokens",
        f"  expected gain over UniMax: {interval}{measured}",
        f"  regression: {mixture.form}, leave-one-out error {100 * mixture.error:.2f} % (if mixtures did not matter: {100 * mixture.constant_error:.2f} %)",
        f"  {'language':<14} {'UniMax':>8} {'found':>8} {'read':>6}  bits per byte of a proxy",
    ]
    for name, item in sorted(mixture.languages.items(), key=lambda pair: -pair[1].found / pair[1].unimax):
        told = "" if item.expected_unimax is None else f"{item.expected_unimax:.3f} -> {item.expected_found:.3f}"
        lines.append(f"  {name:<14} {100 * item.unimax:>6.1f} % {100 * item.found:>6.1f} % {item.repeats:>5.1f}x  {told}")
    lines.append(
        "hagane plan and hagane run use it for this text (mix.rule = \"unimax\" turns it off)."
        if mixture.gains
        else "No gain here: the interval includes zero, or the proxies trained on it disagree or are fewer than two pairs. UniMax stays."
    )
    return lines, {
        "gains": mixture.gains, "gain": mixture.gain, "low": mixture.low, "high": mixture.high, "measured_gain": mixture.measured_gain,
        "objective": mixture.objective, "weights": mixture.weights, "proxies": len(mixture.proxies), "form": mixture.form, "error": mixture.error,
    }  # fmt: skip
