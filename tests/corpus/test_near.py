"""Near-duplicates against sets compared pair by pair."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus import near
from hagane.corpus.near import BINS, clusters, signature, similarity
from hagane.corpus.shingles import shingles, word_hashes
from hagane.recipe.load import load_recipe

WORDS = ["".join(random.Random(number).choices("abdefgiklmnoprstuvå", k=2 + number % 8)) for number in range(3000)]


def text_of(words):
    return " ".join(words)


def document(seed, length):
    return random.Random(seed).choices(WORDS, k=length)


def changed(words, count, seed):
    """The same with `count` words replaced, at places far from each other."""
    words, generator = list(words), random.Random(seed)
    step = len(words) // count
    for place in range(seed * 7 % step, len(words), step):
        words[place] = "x" + generator.choice(WORDS)
    return words


def jaccard(first, second):
    sets = [set(shingles(word_hashes(text), near.SHINGLE_WORDS).tolist()) for text in (first, second)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def save(folder, texts, name="s"):
    path = folder / f"{name}.npy"
    np.save(path, np.array([signature(text) for text in texts], np.uint16).reshape(-1, BINS))
    return near.Signed(path, np.arange(len(texts)))


@given(st.integers(0, 10**6), st.integers(60, 600), st.integers(1, 20))
@settings(deadline=None)
def test_the_estimate_is_the_jaccard_similarity(seed, length, count):
    words = document(seed, length)
    first, second = text_of(words), text_of(changed(words, count, seed))
    truth = jaccard(first, second)
    estimate = float(similarity(signature(first)[None], signature(second)[None])[0])
    # at most 256 bins, and of a short text only as many as it has shingles: five standard errors
    assert abs(estimate - truth) <= 5 * (truth * (1 - truth) / min(BINS, length)) ** 0.5 + 0.02


def test_planted_copies_are_found_and_nothing_else_goes(tmp_path):
    originals = [document(seed, 40 + 15 * (seed % 60)) for seed in range(600)]
    copies, planted = [], []
    for number, words in enumerate(originals):
        count = 1 + number % 12
        text = text_of(changed(words, count, number))
        if jaccard(text_of(words), text) >= 0.8:
            copies.append(text)
            planted.append(number)
    texts = [text_of(words) for words in originals] + copies
    assert len(copies) > 300
    first = clusters([save(tmp_path, texts[:500], "a"), save(tmp_path, texts[500:], "b")], np.ones(len(texts), bool), 0.75)
    found = [first[len(originals) + index] == number for index, number in enumerate(planted)]
    assert np.mean(found) >= 0.95
    false = [index for index in range(len(originals)) if first[index] != index]
    assert len(false) <= 0.01 * len(originals)


def test_documents_that_take_no_part_are_their_own(tmp_path):
    text = text_of(document(1, 100))
    keep = np.array([False, True, True, True])
    files = [save(tmp_path, [text, text, "too short to say", text])]
    assert clusters(files, keep, 0.75).tolist() == [0, 1, 2, 1]
    assert clusters([save(tmp_path, [], "none")], np.zeros(0, bool), 0.75).tolist() == []


def test_a_chain_is_one_cluster_and_its_first_stays(tmp_path):
    words = document(3, 400)
    chain = [words]
    for step in range(6):
        chain.append(changed(chain[-1], 6, step))
    texts = [text_of(link) for link in chain]
    assert jaccard(texts[0], texts[-1]) < 0.75 < jaccard(texts[0], texts[1])
    assert clusters([save(tmp_path, texts)], np.ones(len(texts), bool), 0.75).tolist() == [0] * len(texts)
    ranks = np.array([2, 1, 0, 1, 0, 2, 2])
    assert clusters([save(tmp_path, texts)], np.ones(len(texts), bool), 0.75, ranks).tolist() == [2] * len(texts)


def test_near_duplicates_are_dropped_and_named(build, make, tmp_path):
    words = [document(seed, 120) for seed in range(40)]
    make.write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text_of(one), "lang": "sv"} for one in words])
    make.write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": text_of(changed(one, 2, 7)) + " slut", "lang": "nb"} for one in words[:10]])
    facts = build(tmp_path / "in", near_duplicates=0.75)
    assert facts.dropped["near_duplicate"].documents == 10
    assert facts.documents_kept == 40
    assert '"like_file": "a.jsonl"' in (tmp_path / "corpus" / "dropped.jsonl").read_text()
    assert build(tmp_path / "in", out="all").documents_kept == 50


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_number_of_processes_changes_nothing(workers, build, make, tmp_path, spread):
    for number in range(4):
        texts = [text_of(changed(document(seed, 90), 1, number)) for seed in range(12)]
        make.write_jsonl(tmp_path / "in" / f"{number}.jsonl", [{"text": text, "lang": "sv", "id": f"{number}-{place}"} for place, text in enumerate(texts)])
    facts = build(tmp_path / "in", near_duplicates=0.75, workers=workers)
    assert facts.documents_kept == 12
    texts = make.texts_of(tmp_path / "corpus", facts)
    assert sorted(texts["train"] + texts["held_out"]) == sorted(text_of(changed(document(seed, 90), 1, 0)) for seed in range(12))


def test_a_threshold_that_cannot_be_kept_is_refused():
    with pytest.raises(Exception, match=r"near_duplicates = 0\.3 is less than 0\.6"):
        load_recipe("nordic", ["corpus.near_duplicates=0.3"])
