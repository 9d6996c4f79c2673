"""A kept law is used for its own text, and said to be of other training, with a wider interval, where the recipe trains otherwise."""

import pytest

from hagane.corpus.inputs import fingerprint
from hagane.plan.kept import corpus_inputs, corpus_paths, find_law, keep_law
from hagane.plan.law import Constants, Law, Point, Range
from hagane.recipe.load import load_recipe, validate

CONSTANTS = Constants(irreducible=0.6, a=0.3, alpha=0.25, b=1.2, beta=0.18, share=0.4)
POINT = Point(1e6, 1e6, 1e7, 2048.0)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe whose text has a law, fitted at a context of 256 with Muon."""
    monkeypatch.setenv("HAGANE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("A text.", encoding="utf-8")
    values = load_recipe("nordic")[0].model_dump(mode="json", by_alias=True, exclude_defaults=True)
    values |= {"name": "nordic", "corpus": {"sources": [{"name": "a", "path": [str(tmp_path / "texts")]}]}}
    made = validate(values, "test")
    fit = Range(runs=12, flops=1e13, bytes=(1e6, 1e7), parameters=(1e5, 1e6), vocabularies=(2048,))
    law = Law(
        corpus=fingerprint(corpus_inputs(made.corpus)), paths=corpus_paths(made), constants=CONSTANTS, draws=(CONSTANTS,) * 10, noise=0.005, fit=fit,
        context=made.train.context, optimizer=made.train.optimizer, source="made for a test",
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
    import re

    as_it_is, law = find_law(recipe), find_law(trained(recipe, **changes))
    assert re.search(said, law.source)
    (value, low, high), (same, narrow_low, narrow_high) = law.predict(POINT), as_it_is.predict(POINT)
    assert value == same and low < narrow_low and high > narrow_high
