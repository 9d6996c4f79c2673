"""Every language in the plan: how much of its text is read and how often, what quality to expect, and what more text of it would buy."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from statistics import harmonic_mean
from typing import NamedTuple

from hagane.corpus.mixture import Shard, mixture
from hagane.errors import RecipeError
from hagane.model.config import ModelConfig
from hagane.plan.amounts import amount
from hagane.plan.facts import LanguagePlan
from hagane.plan.law import Law, effective_bytes
from hagane.plan.sketch import Worth, point_of
from hagane.plan.start import replay_of
from hagane.recipe.schema import PROBLEMS, Recipe
from hagane.recipe.types import duration

MORE_BYTES = 10e6  # of a language: what the question "what would more text buy?" is asked with
# Muennighoff et al. 2023, "Scaling data-constrained language models": up to four readings change the loss negligibly against as much new text. What their
# formula says that these are worth, 0.93 of it, is where repeats start to hurt.
GOOD_READINGS = 4.0
WORTH = effective_bytes(1.0, GOOD_READINGS) / GOOD_READINGS
ROUNDING = 1e-9  # UniMax reads a language `max_repeats` times, four, to the last bits of a float
MOST_BYTES = 1e18  # of training text: a language that is not read so often in as much never is
# Bits per byte of the embedded problems over those of people's text in as many tokens a byte, where very much of them was read: 0.15 to 0.28 in eight languages
# (docs/notebook.md, "A law for every text", "The law again"). Half of that comes with EASY_BYTES of them in a language; a token of tuning, shorter and half of
# it a question, counts as TUNED of one of text (docs/notebook.md, "Problems of which few are read").
GENERATED_EASE, EASY_BYTES, TUNED = 0.23, 40e3, 0.3


class Reading(NamedTuple):
    """What is read of one language: bytes there are, bytes read with repeats, and what these are worth in new text."""

    unique: float
    read: float
    effective: float

    @property
    def used_up(self) -> bool:
        """Whether what is read is worth no more than what was read GOOD_READINGS times: further repeats hurt."""
        return self.read > 0 and self.effective <= WORTH * (1 + ROUNDING) * self.read


def shards_of(sizes: Mapping[str, float], source: Mapping[str, str], language: Mapping[str, str], repeats: Mapping[str, float]) -> dict[str, Shard]:
    """Shards by name, as the mixture wants them. `repeats`: of those that are to be read more or less often than others of their language."""
    return {name: Shard(source[name], language[name], size, repeats.get(name, 1.0)) for name, size in sizes.items()}


def readings(recipe: Recipe, shards: Mapping[str, Shard], total_bytes: float, most: float = GOOD_READINGS) -> dict[str, Reading]:
    """By language, for `total_bytes` of training text under the recipe's mixture."""
    return read_by_language(shards, rates_of(recipe, shards, total_bytes), total_bytes, most)


def rates_of(recipe: Recipe, shards: Mapping[str, Shard], total_bytes: float) -> dict[str, float]:
    """Rate of every shard under the recipe's mixture: fixed shares, then UniMax or its weights. Raises RecipeError for a language that is not there."""
    settings = recipe.mix
    languages = sorted({shard.language for shard in shards.values()})
    unknown = sorted(set(settings.weights) - set(languages))
    if unknown and not settings.reason:  # a found mixture may name a language of which this run's sample kept nothing
        raise RecipeError(f"mix.weights names {unknown[0]}, which no document is in ({', '.join(languages)}).")
    fixed = {source.name: source.share for source in recipe.corpus.sources if source.share is not None}
    return mixture(shards, total_bytes, recipe.corpus.max_repeats, fixed, settings.weights, replay_of(recipe))


def mixture_reason(recipe: Recipe, repeats: Collection[float] = ()) -> str:
    """Why languages are read as they are; `repeats` of their shards, where they are known."""
    most, often, replay = recipe.corpus.max_repeats, max(repeats, default=0.0), replay_of(recipe)
    bound = f"none read more than {most:g} times" if often <= 1.01 * most else f"text does not suffice to read none more than {most:g} times: up to {often:.0f}"
    if replay is not None:
        bound += f"; {replay.share:.0%} replay of what the starting model knows ({', '.join(sorted(replay.languages))})"
    if recipe.mix.reason:
        return f"{recipe.mix.reason}; {bound}"
    if recipe.mix.weights:
        return f"mix.weights, as the recipe says; {bound}"
    return f"UniMax (Chung et al. 2023): equal shares per language, {bound}"


def often_line(often: float, most: float) -> str:
    """How a line about text ends where some is read `often`, more than the `most` times that the recipe wants: what to do. Else nothing."""
    if often <= 1.01 * most:
        return ""
    return f", some of it read {often:,.0f} times, where more than {most:g} bring little: give more text, or a smaller --budget"


def unused_line(seconds: float, most: float) -> str:
    """How a line about text ends where it is read `most` times before the budget is used up, by so many `seconds`. Else nothing."""
    if not seconds:
        return ""
    return (
        f": read {most:g} times it ends {duration(seconds)} before the budget does, and a model that reads it more often becomes worse. Give more text, or a "
        "smaller --budget; corpus.max_repeats allows more readings"
    )


def read_by_language(shards: Mapping[str, Shard], rates: Mapping[str, float], total_bytes: float, most: float = GOOD_READINGS) -> dict[str, Reading]:
    """By language, for `total_bytes` of training text in which shards have these rates. Of what is read more than `most` times the further readings are worth
    nothing: published they still bring something, measured here they harm (docs/notebook.md, "Text that is read again and again")."""
    found: dict[str, Reading] = {}
    for name, shard in shards.items():
        before, read = found.get(shard.language, Reading(0.0, 0.0, 0.0)), rates.get(name, 0.0) * total_bytes
        worth = effective_bytes(shard.size, min(read, most * shard.size))
        found[shard.language] = Reading(before.unique + shard.size, before.read + read, before.effective + worth)
    return found


def difficulty(
    recipe: Recipe, shards: Mapping[str, Shard], bytes_per_token: Mapping[str, float], total_bytes: float | None = None
) -> dict[str, float]:
    """By language, how much more than usual there is to be learned in a byte of it: by its tokens a byte against those of all text by people, and the part
    of it that is generated, which is the easier the more of it is read of `total_bytes` of text (None: very much).

    Tokens a byte of all of them together tell nothing: they are fewer where fewer languages share a vocabulary, and the text is no easier for it.
    """
    generated = generated_sources(recipe)
    part = {language: part_of(language, generated, shards) for language in bytes_per_token}
    people = [language for language in bytes_per_token if part[language] < 1] or [*bytes_per_token]  # generated text has tokens of its own length
    mean = harmonic_mean([bytes_per_token[language] for language in people])
    read = None if total_bytes is None else _generated_bytes(recipe, shards, generated, total_bytes)
    ease = {language: GENERATED_EASE if read is None else generated_ease(read.get(language, 0.0)) for language in bytes_per_token}
    return {language: mean / value * (1 - part[language] + part[language] * ease[language]) for language, value in bytes_per_token.items()}


def generated_ease(read_bytes: float) -> float:
    """Bits per byte of generated problems over those of people's text, after `read_bytes` of them in their language: from 1 down to GENERATED_EASE."""
    return 1 - (1 - GENERATED_EASE) / (1 + (EASY_BYTES / max(1.0, read_bytes)) ** 2)


def _generated_bytes(recipe: Recipe, shards: Mapping[str, Shard], generated: Collection[str], total_bytes: float) -> dict[str, float]:
    """Bytes of problems that are read by language: as a part of `total_bytes` of text, and what the conversations of tuning, all of them problems, count."""
    from hagane.corpus.embedded.tasks import LANGUAGES  # takes longer than all else here, and a plan before a run does not ask

    found: dict[str, float] = {}
    for name, rate in rates_of(recipe, shards, total_bytes).items():
        if shards[name].source in generated:
            found[shards[name].language] = found.get(shards[name].language, 0.0) + rate * total_bytes
    tune = recipe.tune
    steps = sum(step.share for step in tune.steps) or 1.0
    replayed = tune.share * sum(step.share * step.replay_share for step in tune.steps) / steps
    tuned = total_bytes * TUNED * (tune.share - replayed) / (1 - tune.share + replayed)
    languages = tune.languages or LANGUAGES
    return {language: found.get(language, 0.0) + (tuned / len(languages) if language in languages else 0.0) for language in {*found, *languages}}


def generated_sources(recipe: Recipe) -> set[str]:
    """Names of the sources that are generated problems and nothing else; the others are text by people."""
    return {source.name for source in recipe.corpus.sources if set(source.path) == {PROBLEMS}}


def part_of(language: str, sources: Collection[str], shards: Mapping[str, Shard]) -> float:
    """The part of a language's text that comes from these sources."""
    own = [shard for shard in shards.values() if shard.language == language]
    total = sum(shard.size for shard in own)
    return sum(shard.size for shard in own if shard.source in sources) / total if total else 0.0


def effective_total(read: Mapping[str, Reading]) -> float:
    """Bytes of new text that all of it is worth."""
    return max(1.0, sum(reading.effective for reading in read.values()))


def worth_of(recipe: Recipe, shards: Mapping[str, Shard]) -> Worth:
    """What text that is read is worth under the recipe's mixture, nothing beyond `most_read`; different is only what people wrote, if anything."""
    unique = sum(shard.size for shard in (by_people(recipe, shards) or shards).values())
    # without a bound for each language: the curve that is interpolated has no corners, and `most_read` bounds all of them together
    return Worth(interpolated(lambda num_bytes: effective_total(readings(recipe, shards, num_bytes, math.inf))), unique, most_read(recipe, shards))


def by_people(recipe: Recipe, shards: Mapping[str, Shard]) -> dict[str, Shard]:
    """The shards that are not of generated problems."""
    made = generated_sources(recipe)
    return {name: shard for name, shard in shards.items() if shard.source not in made}


def most_read(recipe: Recipe, shards: Mapping[str, Shard]) -> float:
    """Bytes of training text, with those of generated problems, in which all text by people is read `corpus.max_repeats` times; infinite where none is."""
    people = by_people(recipe, shards)
    often: dict[str, float] = {}
    for shard in people.values():
        often[shard.language] = max(often.get(shard.language, 0.0), shard.repeats)
    # what its quality says is to be read less often than the best of its language counts for less, as in the mixture
    most = recipe.corpus.max_repeats * sum(shard.size * shard.repeats / often[shard.language] for shard in people.values() if often[shard.language])

    def read(total: float) -> float:
        rates = rates_of(recipe, shards, total)
        return total * sum(rates[name] for name in people)

    low, high = most, MOST_BYTES
    if most <= 0 or read(high) <= most:
        return math.inf
    while high > low * 1.0001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if read(middle) <= most else (low, middle)
    return low


def interpolated(effective: Callable[[float], float]) -> Callable[[float], float]:
    """The same worked out at four amounts a decade, between them log on log."""
    read = [3 * math.log(10) + index * math.log(10) / 4 for index in range(57)]
    worth = [math.log(effective(math.exp(place))) for place in read]

    def between(num_bytes: float) -> float:
        place = min(max(math.log(max(1.0, num_bytes)), read[0]), read[-1])
        index = min(bisect_right(read, place), len(read) - 1)
        part = (place - read[index - 1]) / (read[index] - read[index - 1])
        return math.exp(worth[index - 1] + part * (worth[index] - worth[index - 1]))

    return between


def used_up_from(recipe: Recipe, shards: Mapping[str, Shard]) -> dict[str, float]:
    """By language, the bytes of training text, repeats counted, from which on the recipe's mixture has used it up (`Reading.used_up`), to a hundredth.

    Languages that never are, for they are hardly read, are left out.
    """

    @cache  # languages that are used up together are looked for at the same amounts
    def used_up(total: float) -> set[str]:
        return {language for language, reading in readings(recipe, shards, total).items() if reading.used_up}

    found: dict[str, float] = {}
    total = min((shard.size for shard in shards.values() if shard.size > 0), default=MOST_BYTES)  # in so much no shard is read twice
    while total < MOST_BYTES and len(found) < len({shard.language for shard in shards.values() if shard.size > 0}):
        total *= 2
        for language in used_up(total) - found.keys():
            low, high = total / 2, total
            while high > low * 1.01:
                middle = math.sqrt(low * high)
                low, high = (low, middle) if language in used_up(middle) else (middle, high)
            found[language] = high
    return found


def language_plans(
    recipe: Recipe, law: Law, config: ModelConfig, shards: Mapping[str, Shard], total_bytes: float, bytes_per_token: float | None = None
) -> dict[str, LanguagePlan]:
    """One entry per language. Expected bits per byte only for languages that the law was fitted on.

    `bytes_per_token`: training text over training tokens, to tell from which tokens on repeats hurt; None where the shards are a sample, of which there is
    more for more tokens.
    """
    read, used_up = readings(recipe, shards, total_bytes), used_up_from(recipe, shards) if bytes_per_token else {}
    point = point_of(config, effective_total(read))
    found = {}
    for language, reading in sorted(read.items()):
        value = low = high = more = None
        if language in law.languages:
            value, low, high = law.predict_language(language, point, reading.effective)
            richer = _with_more(shards, language)
            after = readings(recipe, richer, total_bytes)
            better = law.predict_language(language, point_of(config, effective_total(after)), after[language].effective)[0]
            more = max(0.0, value - better)
        found[language] = LanguagePlan(
            bytes=round(reading.unique), read_bytes=round(reading.read), repeats=reading.read / reading.unique if reading.unique else 0.0,
            worth=reading.effective / reading.read if reading.read else 1.0, bits_per_byte=value, low=low, high=high, more_text_gain=more,
            repeats_hurt_tokens=round(used_up[language] / bytes_per_token) if bytes_per_token and language in used_up else None,
        )  # fmt: skip
    return found


def _with_more(shards: Mapping[str, Shard], language: str) -> dict[str, Shard]:
    """The same with MORE_BYTES more of a language, in its largest shard."""
    largest = max((name for name, shard in shards.items() if shard.language == language), key=lambda name: shards[name].size)
    return {name: replace(shard, size=shard.size + MORE_BYTES) if name == largest else shard for name, shard in shards.items()}


def text_of(law: Law) -> dict[str, Shard]:
    """The shards of the corpus as the law remembers them; none for the general law."""
    return {f"{item.source}.{item.language}": Shard(item.source, item.language, item.bytes) for item in law.text}


def language_lines(plans: Mapping[str, LanguagePlan]) -> list[str]:
    """The table of languages for the terminal; nothing where nothing is known of them."""
    if not plans:
        return []
    more = f"{MORE_BYTES / 1e6:.0f} MB more of it"
    lines = [f"  {'language':<10} {'text':>9} {'read':>6}  {'bits per byte':<18} {more:<16} repeats hurt from"]
    for language, plan in plans.items():
        expected = f"{plan.bits_per_byte:.2f} ({plan.low:.2f}-{plan.high:.2f})" if plan.bits_per_byte is not None else "not in the law"
        gain = "" if plan.more_text_gain is None else f"-{plan.more_text_gain:.3f}" if plan.more_text_gain >= 0.0005 else "nothing"
        start = "never" if plan.repeats_hurt_tokens is None else f"{amount(plan.repeats_hurt_tokens)} tokens"
        hurt = ": they do here" if plan.worth < WORTH * (1 - ROUNDING) else ""
        lines.append(f"  {language:<10} {plan.bytes / 1e6:>6.1f} MB {plan.repeats:>5.1f}x  {expected:<18} {gain:<16} {start}{hurt}")
    return lines
