"""A kept law is used for its own text, and said to be of others, with a wider interval, where the recipe trains otherwise or other layers."""

import os
import re

import pytest

from hagane.corpus.inputs import fingerprint
from hagane.plan.kept import corpus_inputs, corpus_paths, find_law, keep_law, law_path, pattern_name
from hagane.plan.law import Constants, LanguageLaw, Law, Point, Range
from hagane.recipe.load import load_recipe, validate

CONSTANTS = Constants(irreducible=0.6, a=0.3, alpha=0.25, b=1.2, beta=0.18, share=0.4)
POINT = Point(1e6, 1e6, 1e7, 2048.0)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe whose text has a law, fitted at a context of 256 with Muon on attention and experts."""
    monkeypatch.setenv("HAGANE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("A text.", encoding="utf-8")
    values = load_recipe("nordic")[0].model_dump(mode="json", by_alias=True, exclude_defaults=True)
    values |= {"name": "nordic", "corpus": {"sources": [{"name": "a", "path": [str(tmp_path / "texts")]}]}}
    made = validate(values, "test")
    fit = Range(runs=12, flops=1e13, bytes=(1e6, 1e7), parameters=(1e5, 1e6), vocabularies=(2048,))
    law = Law(
        corpus=fingerprint(corpus_inputs(made.corpus)), paths=corpus_paths(made), constants=CONSTANTS, draws=(CONSTANTS,) * 10, noise=0.005, fit=fit,
        context=made.train.context, optimizer=made.train.optimizer, pattern=pattern_name(made.model.pattern), source="made for a test",
        languages={"sv": LanguageLaw(weights=(1.0,) * 3, draws=((1.0,) * 3,) * 10, noise=0.005, text_error=0.0, share=1.0)},
    )  # fmt: skip
    keep_law(law)
    return made


def trained(recipe, **changes):
    return validate(recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"name": "nordic", "train": changes}, "test")


def test_the_same_training_gets_the_law_as_it_is(recipe):
    assert find_law(recipe).source == "made for a test" and find_law(recipe).noise == 0.005


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"context": 1024}, r"fitted with context 256 \(this recipe: 1024\), so the interval is wider: hagane ladder with this recipe fits it anew"),
        ({"curriculum": [{"context": 64, "share": 0.5}]}, r"fitted with context 256 \(this recipe: 64, then 256\), .*: a ladder trains at one context"),
        ({"optimizer": "adamw"}, r"fitted with optimizer muon \(this recipe: adamw\)"),
    ],
)
def test_another_training_is_said_and_widens_the_interval(recipe, changes, said):
    as_it_is, law = find_law(recipe), find_law(trained(recipe, **changes))
    assert re.search(said, law.source)
    (value, low, high), (same, narrow_low, narrow_high) = law.predict(POINT), as_it_is.predict(POINT)
    assert value == same and low < narrow_low and high > narrow_high
    assert law.predict_language("sv", POINT, POINT.bytes)[2] > as_it_is.predict_language("sv", POINT, POINT.bytes)[2]


def of_pattern(recipe, **pattern):
    return validate(recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"name": "nordic", "model": {"pattern": pattern}}, "test")


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ({"ffn": "dense"}, "attention, dense"),
        ({"ffn": "experts", "window": 64}, "attention with window, experts"),
        ({"ffn": "experts", "deltas": 3}, "3 x Gated DeltaNet + attention, experts"),
        ({"ffn": "experts", "mixer": "latent", "query_ratio": 0.25, "index_top_k": 64}, "latent attention with indexer, experts"),
    ],
)
def test_a_law_of_other_layers_is_said_and_widens_the_interval_until_there_is_one_of_the_same(recipe, pattern, kind):
    other, own = of_pattern(recipe, **pattern), find_law(recipe)
    law = find_law(other)
    assert f"fitted with the pattern attention, experts (this recipe: {kind}), so the interval is wider" in law.source and law.noise > own.noise
    laws = [own.model_copy(update={"pattern": kind, "source": "of the same layers"}), own.model_copy(update={"source": "the newest"})]
    paths = [keep_law(each) for each in laws]
    for age, path in enumerate(reversed(paths)):
        os.utime(path, (1e9 - age, 1e9 - age))
    assert find_law(other) == laws[0] and find_law(recipe) == laws[1]
    paths[0].unlink()
    keep_law(laws[0].model_copy(update={"corpus": "before"}))  # nearer than one of other layers, though its text has changed
    assert "of the same layers; the text has changed since" in find_law(other).source and "fitted with" not in find_law(other).source


def test_how_many_and_how_wide_experts_are_is_no_other_kind(recipe):
    assert find_law(of_pattern(recipe, ffn="experts", num_experts=8, top_k=2, head_dim=32)).source == "made for a test"


def test_a_law_kept_by_an_older_version_is_used_and_said_to_be_of_an_unknown_pattern(recipe):
    old = find_law(recipe).model_copy(update={"pattern": None})
    path = law_path(old.paths, old.corpus, pattern_name(recipe.model.pattern))
    path.rename(law_path(old.paths, old.corpus, None)).write_text(old.model_dump_json(exclude={"pattern"}), encoding="utf-8")
    law = find_law(recipe)
    assert "fitted with a pattern that an older version did not record (this recipe: attention, experts), so the interval is wider" in law.source
    assert law.noise > old.noise
