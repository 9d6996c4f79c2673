"""`hagane mix`: find by experiment how much of each language to read, and say honestly whether it is better than UniMax.

Everything lies in a run folder: `corpus` and `tokenizer` as in any run, then `mix/design.json` (the proxies, frozen), `mix/runs/NAME/rung.json` (one per
finished proxy), `mix/candidate.json` (the mixture that the proxies say is best, frozen before it is trained on) and `mixture.json`. Killed at any moment it
goes on with the same command: what is finished is not repeated, and the clock counts active time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from hagane.corpus.inputs import fingerprint
from hagane.corpus.mixture import Shard
from hagane.errors import RecipeError
from hagane.folder import MIXTURE, Run, write_atomic
from hagane.measure.rung import Ground, RungFacts, all_finished
from hagane.measure.small_runs import FIT_SECONDS, design_key, ground_of, refuse_unbounded, scored_bytes, train_all, whole_text
from hagane.plan import optimum
from hagane.plan.choose import mean_bytes_per_token
from hagane.plan.cost import tokens_per_second
from hagane.plan.found import FoundMixture, LanguageMixture, ProxyResult, keep_mixture
from hagane.plan.kept import corpus_inputs, corpus_paths
from hagane.plan.ladder import TARGET_RATIO, Rung
from hagane.plan.optimum import Objective, best_mixture, gain_of
from hagane.plan.proxies import FEWEST, PAIRS, Shape, choose_shape, pairs, proxies, target_ground, weights_of
from hagane.plan.sketch import best_shape, training_seconds
from hagane.plan.surface import Proxy, Surface, fit_surface
from hagane.recipe.types import Frozen, duration
from hagane.run import walk, write_report

SAME = 0.02  # of a mixture that differs from UniMax by less than this share nowhere, nothing can be measured
RESERVED = 1.15  # seconds kept for the check of the mixture, over those expected

Settings = TypeVar("Settings", bound=Frozen)


class FrozenDesign(Frozen):
    """The proxies, and the run that the mixture is for."""

    key: str
    proxies: tuple[Rung, ...]
    proxy_seconds: float
    target_bytes: float


class Candidate(Frozen):
    """The mixture that the proxies say is best. `key` names the proxies."""

    key: str
    rates: dict[str, float]


@dataclass(frozen=True)
class Search:
    """What is searched: where, for which objective, from which baseline."""

    ground: Ground
    design: FrozenDesign
    space: optimum.Ground
    unimax: dict[str, float]
    objective: Objective


def find(run: Run, target_seconds: float | None = None) -> FoundMixture:
    """Do the whole search of an open run folder, or go on with it. `target_seconds`: the budget the mixture is for, 8 times the search's otherwise.

    Raises RecipeError where the budget is not one of time, or too small, or the text is or has nothing to mix; DataError for the corpus.
    """
    refuse_unbounded(run.recipe, run.machine, "mix")
    walk(run, until="tokenizer", report=False)
    search = _prepared(run, target_seconds)
    plan = search.design
    expected = (len(plan.proxies) + PAIRS) * plan.proxy_seconds
    run.say(f"mix        {len(plan.proxies)} proxies and {PAIRS} that check what they find, in about {duration(expected)}")
    train_all(search.ground, plan.proxies, halve=False, reserve=FIT_SECONDS + RESERVED * PAIRS * plan.proxy_seconds)
    candidate = _candidate(search)
    if _differs(search, candidate):
        run.say(f"mix        checking the mixture that {len(_results(search))} proxies say is best")
        train_all(search.ground, pairs(plan.proxies[0], candidate.rates), halve=False)
    for folder in search.ground.folder.glob("text-*"):
        shutil.rmtree(folder)  # made again from the corpus in seconds, and large
    found = _conclude(search, candidate)
    write_atomic(run.folder / MIXTURE, found.model_dump_json(indent=1))
    path = keep_mixture(found)
    run.say(f"mix        {'a gain' if found.gains else 'no gain here'}; kept in {path}")
    write_report(run)
    return found


def _prepared(run: Run, target_seconds: float | None) -> Search:
    """The frozen design, or a new one where the ground, the budget or what it is for is another."""
    ground, recipe = ground_of(run, "mix"), run.recipe
    vocabularies = sorted(ground.known.bytes_per_token)
    vocabulary = vocabularies[len(vocabularies) // 2]
    languages = sorted({part.language for part in ground.held_out})
    unknown = sorted(set(recipe.mix.importance) - set(languages))
    if unknown:
        raise RecipeError(f"mix.importance names {unknown[0]}, of which no text is held out ({', '.join(languages)}).")
    text = {f"{item.source}.{item.language}": Shard(item.source, item.language, item.bytes) for item in whole_text(ground)}
    path = ground.folder / "design.json"
    design = _read(path, FrozenDesign)
    key = design_key(ground, target_seconds, None if design is None else design.key)
    if design is None or design.key != key:
        left = run.remaining(FIT_SECONDS)
        assert left is not None
        seconds = training_seconds(target_seconds or TARGET_RATIO * (run.clock.spent() + left))
        config = best_shape(recipe, run.pinned_size, run.machine, vocabulary, max(1.0, seconds), run.law)
        tokens = max(1.0, seconds) * tokens_per_second(config, recipe.train.context, run.machine) * (1 - recipe.tune.share)
        target = tokens * mean_bytes_per_token(ground.known, vocabulary)
        _, unimax = target_ground(recipe, text, target)
        shape = choose_shape(
            recipe, run.machine, run.law, left, vocabulary, len(unimax), scored_bytes=float(scored_bytes(ground)),
            text_bytes=float(sum(ground.known.shard_bytes.values())), spent=run.clock.spent(),
        )  # fmt: skip
        design = _frozen(key, shape, unimax, run.seed, target)
        write_atomic(path, design.model_dump_json(indent=1))
    space, unimax = target_ground(recipe, text, design.target_bytes)
    return Search(ground, design, space, unimax, Objective.of(recipe.mix.objective, recipe.mix.importance, languages))


def _frozen(key: str, shape: Shape, unimax: dict[str, float], seed: int, target: float) -> FrozenDesign:
    return FrozenDesign(key=key, proxies=tuple(proxies(shape, unimax, seed)), proxy_seconds=shape.cost.seconds, target_bytes=target)


def _read(path: Path, kind: type[Settings]) -> Settings | None:
    """None where it is missing or damaged: it is made anew, and proxies that are finished count all the same."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _results(search: Search) -> list[RungFacts]:
    """Every finished proxy of the design's shape, also of an earlier, smaller search."""
    first = search.design.proxies[0]
    same = {"weights": {}, "seed": 0}
    return [facts for facts in all_finished(search.ground) if facts.rung.weights and facts.rung.model_copy(update=same) == first.model_copy(update=same)]


def _proxy(search: Search, facts: RungFacts) -> Proxy:
    read = facts.tokens * mean_bytes_per_token(search.ground.known, facts.rung.vocabulary_size)
    return Proxy({name: size / read for name, size in facts.own_bytes.items()}, facts.bits_per_byte)


def _surface(search: Search, results: Sequence[RungFacts]) -> Surface:
    """The regression. Raises RecipeError where too few proxies were finished."""
    run, base = search.ground.run, weights_of(search.unimax)
    if len(results) < FEWEST or not any(facts.rung.weights == base for facts in results):
        raise RecipeError(
            f"only {len(results)} proxies were finished in {run.recipe.budget}; a mixture needs {FEWEST}, and UniMax among them. Run it again with a larger "
            "--budget, when nothing else runs on this machine."
        )
    baseline = next(_proxy(search, facts).shares for facts in results if facts.rung.weights == base)
    return fit_surface([_proxy(search, facts) for facts in results], baseline, seed=run.seed)


def _candidate(search: Search) -> Candidate:
    """The best mixture by the proxies, or the one that was found from just these before."""
    results, path = _results(search), search.ground.folder / "candidate.json"
    kept = _read(path, Candidate)
    sampled = [facts for facts in results if kept is None or facts.rung.weights != weights_of(kept.rates)]
    payload = [sorted(facts.rung.name for facts in sampled), search.design.key, search.ground.run.recipe.mix.objective, search.objective.weights]
    key = hashlib.blake2b(json.dumps(payload, sort_keys=True).encode(), digest_size=12).hexdigest()
    if kept is not None and kept.key == key:
        return kept
    surface = _surface(search, results)
    known = [facts for facts in results if set(facts.rung.weights) == set(search.unimax)]
    known.sort(key=lambda facts: search.objective.value(facts.bits_per_byte))
    starts = [{name: weight / sum(facts.rung.weights.values()) for name, weight in facts.rung.weights.items()} for facts in known]
    candidate = Candidate(key=key, rates=best_mixture(surface, search.objective, search.space, search.unimax, starts))
    write_atomic(path, candidate.model_dump_json(indent=1))
    return candidate


def _differs(search: Search, candidate: Candidate) -> bool:
    return any(abs(candidate.rates[name] / rate - 1) > SAME for name, rate in search.unimax.items())


def _conclude(search: Search, candidate: Candidate) -> FoundMixture:
    """The gain from all proxies, those of the mixture itself included: they correct what was promised by the regression alone."""
    recipe, first = search.ground.run.recipe, search.design.proxies[0]
    results = _results(search)
    surface = _surface(search, results)
    base, best = weights_of(search.unimax), weights_of(candidate.rates)
    trained = sum(facts.rung.weights == base for facts in results), sum(facts.rung.weights == best for facts in results)
    gain = gain_of(surface, search.objective, search.space, search.unimax, candidate.rates, trained)
    by_seed = {(facts.rung.seed, "base" if facts.rung.weights == base else "best"): facts for facts in results if facts.rung.weights in (base, best)}
    seeds = [seed for seed in range(PAIRS) if base != best and (seed, "base") in by_seed and (seed, "best") in by_seed]
    values = {place: search.objective.value(facts.bits_per_byte) for place, facts in by_seed.items()}
    measured = [1 - values[seed, "best"] / values[seed, "base"] for seed in seeds]
    expected = [dict(zip(surface.languages, _bits(search, surface, rates), strict=True)) for rates in (search.unimax, candidate.rates)]
    languages = {
        name: LanguageMixture(
            unimax=rate, found=candidate.rates[name], repeats=candidate.rates[name] * search.space.rest * search.space.total / search.space.unique[name],
            expected_unimax=expected[0].get(name), expected_found=expected[1].get(name),
        )
        for name, rate in sorted(search.unimax.items())
    }  # fmt: skip
    kinds = {json.dumps(best): "found", json.dumps(base): "unimax"}  # UniMax where nothing is better
    return FoundMixture(
        corpus=fingerprint(corpus_inputs(recipe.corpus)), paths=corpus_paths(recipe), found=time.strftime("%Y-%m-%d", time.gmtime()),
        objective=recipe.mix.objective, importance=recipe.mix.importance, weights=best, gain=gain.value, low=gain.low, high=gain.high,
        measured_gain=sum(measured) / len(measured) if measured else None, pairs=len(measured), languages=languages, form=surface.form.name,
        error=surface.error, constant_error=surface.constant_error,
        proxies=tuple(
            ProxyResult(kind=kinds.get(json.dumps(facts.rung.weights), "sampled"), objective=search.objective.value(facts.bits_per_byte)) for facts in results
        ),
        width=first.width, num_layers=first.num_layers, tokens=first.tokens, vocabulary_size=first.vocabulary_size,
        target_bytes=search.design.target_bytes, context=recipe.train.context, optimizer=recipe.train.optimizer,
    )  # fmt: skip


def _bits(search: Search, surface: Surface, rates: dict[str, float]) -> list[float]:
    effective = search.space.effective(rates)
    return [float(value) for value in np.exp(surface.log_bits(np.array([effective[name] for name in surface.domains])))]
