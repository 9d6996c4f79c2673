"""Quality buckets: planted good and bad text in several languages, the same on any number of processes, and what the mixture makes of them."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.corpus.build import CorpusFacts, build_corpus
from hagane.corpus.documents import read_documents
from hagane.corpus.likeness import separation
from hagane.corpus.mixture import Shard, mixture
from hagane.corpus.reasons import show
from hagane.errors import RecipeError
from hagane.recipe.load import validate

ALPHABETS = {"sv": "aeiourstnlkåäö", "ja": "あいうえおかきくけこさしすせそ", "ee": "aeioɖƒɣŋɔɛkdtb"}


def words_of(language, kind):
    draw = random.Random(f"{language} {kind}")
    return ["".join(draw.choices(ALPHABETS[language], k=draw.randint(2, 6))) for _ in range(120)]


def documents(language, kind, count, seed=0):
    draw = random.Random(f"{language} {kind} {seed}")
    words = words_of(language, kind)
    return [f"{' '.join(draw.choices(words, k=draw.randint(40, 80)))}." for _ in range(count)]


def write(folder, source, language, texts):
    (folder / source / language).mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "id": f"{source}-{language}-{number}"}, ensure_ascii=False) for number, text in enumerate(texts)]
    (folder / source / language / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")


def planted(folder, languages=tuple(ALPHABETS)):
    """Source `law` is good; of `web` the first half is like it, the other half is not."""
    for language in languages:
        write(folder, "law", language, documents(language, "good", 60))
        write(folder, "web", language, documents(language, "good", 60, 1) + documents(language, "bad", 60))
    return folder


def settings_of(folder, quality=None, sources=("law", "web"), **more):
    corpus = {
        "sources": [{"name": name, "path": str(folder / name)} for name in sources], "identify": "off", "held_out_share": 0.05,
        "near_duplicates": 0, "rules": {"boilerplate": False, "repetition": False, "broken_text": False, "signs": False, "lists": False}, **more,
    }  # fmt: skip
    return validate({"name": "toy", "corpus": corpus | ({"quality": quality} if quality else {})}, "test").corpus


def built(folder, settings, workers=1):
    folder.mkdir()
    facts = build_corpus(settings.sources, settings, folder, workers=workers)
    (folder / "facts.json").write_text(json.dumps({"facts": facts.model_dump(mode="json")}), encoding="utf-8")
    return facts


GOOD = {"good": ["law"], "repeats": [3, 1]}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    home = tmp_path_factory.mktemp("quality")
    planted(home / "texts")
    with_quality = built(home / "with", settings_of(home / "texts", GOOD))
    return home, with_quality, built(home / "without", settings_of(home / "texts"))


@pytest.mark.parametrize("language", ALPHABETS)
def test_what_is_like_the_good_source_is_in_the_first_bucket(places, language):
    home, facts, _ = places
    found = {
        number: [record["id"] for record in read_documents(home / "with", "train", f"web.{language}.q{number}")] for number in (1, 2)
    }  # fmt: skip
    like = {number: [int(name.rpartition("-")[2]) < 60 for name in names] for number, names in found.items()}
    assert sum(like[1]) / len(like[1]) > 0.9 and sum(like[2]) / len(like[2]) < 0.1
    own = facts.quality.languages[language]  # half of the other text is as good: 0.75 is the most that can be expected, and what chance adds
    assert own.divided and 0.65 < own.separation < 0.9 and len(own.bucket_bytes) == 2
    assert f"law.{language}.q1" in facts.shards and f"law.{language}.q2" not in facts.shards
    sizes = [facts.shards[f"web.{language}.q{number}"].bytes for number in (1, 2)]
    assert sizes[0] / sum(sizes) == pytest.approx(0.5, abs=0.03)


def test_held_out_text_and_every_training_document_stay(places):
    home, facts, plain = places
    for language in ALPHABETS:
        for source in ("law", "web"):
            base = f"{source}.{language}"
            assert [*read_documents(home / "with", "held_out", base)] == [*read_documents(home / "without", "held_out", base)]
            parts = [record["id"] for name in facts.shards if name.startswith(f"{base}.q") for record in read_documents(home / "with", "train", name)]
            assert sorted(parts) == sorted(record["id"] for record in read_documents(home / "without", "train", base))
    assert facts.documents_kept == plain.documents_kept and facts.bytes_kept == plain.bytes_kept
    assert plain.quality is None and all(shard.bucket is None for shard in plain.shards.values())


def test_the_number_of_processes_makes_no_difference(places, tmp_path, spread):
    home, facts, _ = places
    again = built(tmp_path / "again", settings_of(home / "texts", GOOD), workers=2)
    assert again.model_dump(exclude={"seconds": True, "quality": {"seconds"}}) == facts.model_dump(exclude={"seconds": True, "quality": {"seconds"}})
    for path in sorted((home / "with" / "train").glob("*.parquet")):
        assert path.read_bytes() == (tmp_path / "again" / "train" / path.name).read_bytes()


def test_languages_that_cannot_be_judged_are_left_whole_and_said(tmp_path):
    planted(tmp_path / "texts", ("sv",))
    write(tmp_path / "texts", "web", "ee", documents("ee", "good", 40))  # nothing good in it
    for source in ("law", "web"):
        write(tmp_path / "texts", source, "ja", documents("ja", "good", 80, source))  # nothing to tell apart
    facts = built(tmp_path / "corpus", settings_of(tmp_path / "texts", GOOD))
    own = facts.quality.languages
    assert own["sv"].divided and not own["ee"].divided and not own["ja"].divided
    assert own["ee"].good_documents == 0 and own["ee"].separation is None and own["ja"].separation < 0.65
    assert "web.ee" in facts.shards and facts.shards["web.ee"].documents and not any(name.startswith("web.ja.q") for name in facts.shards)
    lines, _ = show(tmp_path / "corpus")
    assert any("sv: " in line and "MB" in line for line in lines) and any("ee: not divided: 0 good documents" in line for line in lines)
    card = (tmp_path / "corpus" / "data_card.md").read_text(encoding="utf-8")
    assert "text most like law is read more often" in card and "too few to learn from" in card
    assert json.loads((tmp_path / "corpus" / "manifest.json").read_text())["facts"]["quality"]["good"] == ["law"]


def test_the_mixture_reads_buckets_as_often_as_they_say(places):
    _, facts, _ = places
    shards = {name: Shard(shard.source, shard.language, shard.bytes, shard.repeats) for name, shard in facts.shards.items()}
    total = 0.5 * sum(shard.size for shard in shards.values())
    rates = mixture(shards, total)
    read = {name: rate * total / shards[name].size for name, rate in rates.items()}
    for language in ALPHABETS:
        assert read[f"web.{language}.q1"] / read[f"web.{language}.q2"] == pytest.approx(3)
        assert read[f"law.{language}.q1"] == pytest.approx(read[f"web.{language}.q1"])


@given(
    st.lists(st.tuples(st.sampled_from(["sv", "fi", "se"]), st.floats(1, 1e6), st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0])), min_size=1, max_size=9),
    st.floats(1, 1e7), st.floats(1, 8),
)  # fmt: skip
def test_no_bucket_is_read_more_than_it_may_be(parts, total, repeats):
    shards = {f"web.{language}.q{number}": Shard("web", language, size, often) for number, (language, size, often) in enumerate(parts)}
    rates = mixture(shards, total, repeats)
    assert sum(rates.values()) == pytest.approx(1)
    most = {language: max(often for name, _, often in parts if name == language) for language, _, _ in parts}
    room = repeats * sum(size * (often / most[language] if most[language] else 1) for language, size, often in parts)
    if total <= room:
        assert all(rates[name] * total <= repeats * shard.size * (1 + 1e-6) for name, shard in shards.items())


def test_separation_is_the_share_of_pairs_in_the_right_order():
    import numpy as np

    draw = np.random.default_rng(0)
    good, other = draw.integers(0, 20, 30) / 2, draw.integers(-4, 16, 50) / 2
    pairs = [(a > b) + 0.5 * (a == b) for a in good for b in other]
    assert separation(good, other) == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize(
    ("quality", "said"),
    [({"good": ["laws"]}, r"quality.good names laws, which is none of the sources \(law, web\)"), ({"repeats": [1]}, "two to nine numbers")],
)
def test_settings_that_cannot_be_are_refused(tmp_path, quality, said):
    with pytest.raises(RecipeError, match=said):
        settings_of(tmp_path, quality)


def test_facts_of_a_corpus_without_quality_are_read_as_before(places):
    old = places[2].model_dump(mode="json")
    del old["quality"]
    for shard in old["shards"].values():
        del shard["bucket"], shard["repeats"]
    assert CorpusFacts.model_validate(old).shards["web.sv"].repeats == 1.0
