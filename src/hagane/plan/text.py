"""The text of a recipe before it is read: how much there is by its files, and bytes a token stands for by what is usual, as no tokenizer was trained.

Text of people that the recipe has not named yet is taken to suffice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from hagane.corpus.mixture import Shard
from hagane.model.config import ModelConfig
from hagane.plan.choose import Known
from hagane.plan.facts import LanguagePlan
from hagane.plan.languages import effective_total, generated_sources, interpolated, language_plans, most_read, rates_of, readings, text_of
from hagane.plan.law import Law, usual_bytes_per_token
from hagane.plan.sketch import Worth
from hagane.plan.start import starting_model
from hagane.recipe.schema import Recipe, SizeSettings

UNNAMED_BYTES = 1e15  # of people's text where a recipe leaves it to --corpus: as much as is asked for
# Tokens of generated problems are shorter than those of people's text: 0.60 to 0.81 of the bytes, in nine languages of two runs.
PROBLEM_BYTES_PER_TOKEN = 0.72


def text_before(recipe: Recipe, pinned: SizeSettings, law: Law, sample_bytes: int | None) -> Known:
    """The text by its files, and bytes a token stands for by what is usual. Raises DataError for a source that is missing or empty."""
    from hagane.corpus.inputs import list_inputs, problem_languages  # looking into files takes pyarrow, and a plan without text has none
    from hagane.corpus.language import UNDETERMINED
    from hagane.corpus.sample import text_sizes

    inputs = list_inputs(recipe.corpus.sources, problem_languages(recipe.corpus.sources)).inputs if recipe.corpus.sources else []
    shares = {source.name: source.share for source in recipe.corpus.sources if source.share}
    sizes: dict[tuple[str, str], float] = {}
    for item, size in zip(inputs, text_sizes(inputs, sample_bytes, shares), strict=True):
        for language, num_bytes in size.items():
            sizes[item.source, language] = sizes.get((item.source, language), 0.0) + num_bytes
    if fitted_on := text_of(law):  # read whole when the law was fitted
        sizes = {place: size for place, size in sizes.items() if place[0] not in {shard.source for shard in fitted_on.values()}}
        sizes |= {(shard.source, shard.language): shard.size for shard in fitted_on.values()}
    made = {item.source for item in inputs if item.kind == "problems"}
    if not {source for source, _ in sizes} - made:
        sizes = dict.fromkeys((("text", language) for language in recipe.mix.weights or (UNDETERMINED,)), UNNAMED_BYTES)
    start = starting_model(recipe)
    given = (pinned.vocabulary_size, recipe.model.size.vocabulary_size)
    vocabularies = {*recipe.tokenizer.candidates, *(one for one in given if one)} if start is None else {start.vocabulary_size}
    names = {f"{source}.{language}": (source, language) for source, language in sizes}
    return Known(
        shard_bytes={name: round(sizes[place]) for name, place in names.items()}, shard_source={name: source for name, (source, _) in names.items()},
        shard_language={name: language for name, (_, language) in names.items()}, held_out_bytes=dict.fromkeys(names, 0),
        bytes_per_token={vocabulary: _bytes_per_token(sizes, made, vocabulary) for vocabulary in vocabularies}, whole=True,
    )  # fmt: skip


def _bytes_per_token(sizes: Mapping[tuple[str, str], float], made: set[str], vocabulary: int) -> dict[str, float]:
    """By language: usual text's, less for the part of it that is generated."""
    found = {}
    for language in {language for _, language in sizes}:
        own = {source: size for (source, other), size in sizes.items() if other == language}
        part = sum(size for source, size in own.items() if source in made) / max(1.0, sum(own.values()))
        found[language] = usual_bytes_per_token(vocabulary) * (1 - part + part * PROBLEM_BYTES_PER_TOKEN)
    return found


@dataclass(frozen=True)
class Supply:
    """The text that there is for a plan of any length; no shards where it is taken to suffice.

    By the general law it counts without the sources `made`: generated problems have no end, are easy, and would hide how little there is of the rest. A law
    of one's own was fitted on all of it.
    """

    recipe: Recipe
    shards: Mapping[str, Shard]
    made: Collection[str] = ()

    @classmethod
    def of(cls, recipe: Recipe, law: Law) -> Supply:
        """By the recipe's files. Raises DataError for a source that is missing or empty."""
        made = generated_sources(recipe)
        if {source.name for source in recipe.corpus.sources} <= made:
            return cls(recipe, {})
        known = text_before(recipe, recipe.model.size, law, None)
        if sum(known.shard_bytes.values()) >= UNNAMED_BYTES:
            return cls(recipe, {})
        return cls(recipe, known.shards, made if law.corpus is None else ())

    @cached_property
    def counted(self) -> Mapping[str, Shard]:
        """The shards that are not `made`."""
        return {name: shard for name, shard in self.shards.items() if shard.source not in self.made}

    @property
    def unique(self) -> float:
        """Bytes of different text in them."""
        return sum(shard.size for shard in self.counted.values())

    def read(self, text_bytes: float) -> float:
        """Of `text_bytes` that are read, those from them. Raises RecipeError for a mixture of languages that are not there."""
        if not self.made:
            return text_bytes
        return text_bytes * sum(rate for name, rate in rates_of(self.recipe, self.shards, text_bytes).items() if name in self.counted)

    def effective(self, text_bytes: float) -> float:
        """Bytes of new text that `text_bytes` are worth, read under the recipe's mixture."""
        return effective_total(readings(self.recipe, self.counted, self.read(text_bytes), math.inf)) if self.shards else text_bytes

    @cached_property
    def most_read(self) -> float:
        """Bytes of training text at most: beyond, repeats harm; infinite where text is taken to suffice."""
        return most_read(self.recipe, self.shards) if self.shards else math.inf

    @cached_property
    def worth(self) -> Worth | None:
        """The same for the shapes that are compared, of which there are thousands."""
        return Worth(interpolated(self.effective), self.unique, self.most_read) if self.shards else None

    def repeats(self, text_bytes: float) -> float:
        """How often text by people is read, where it is read most often."""
        read, made = self.read(text_bytes), generated_sources(self.recipe)
        rates = rates_of(self.recipe, self.counted, read) if self.shards else {}
        return max((rate * read / self.counted[name].size for name, rate in rates.items() if self.counted[name].source not in made), default=0.0)

    def law(self, law: Law) -> Law:
        """The general law for these languages, alike as nothing was read of them; a fitted one as it is."""
        return law.for_text({shard.language: 1.0 for shard in self.counted.values()})

    def languages(self, law: Law, config: ModelConfig, text_bytes: float, tokens: float) -> dict[str, LanguagePlan]:
        """What each of them gets of `text_bytes`, those of so many training tokens; nothing where text is taken to suffice."""
        read = self.read(text_bytes)
        return language_plans(self.recipe, law, config, self.counted, read, read / tokens) if self.shards else {}
