"""No near-copy of held-out text is trained on, nor of an evaluation item: every pair of what was written is compared."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus import leaks, near, overlap
from hagane.corpus.shingles import shingles, word_hashes

WORDS = ["".join(random.Random(number).choices("abdefgiklmnoprstuvå", k=2 + number % 8)) for number in range(3000)]


def prose(seed, words):
    """Paragraphs of some twenty words."""
    draws = random.Random(seed)
    return "\n".join(" ".join(draws.choices(WORDS, k=min(20, words - start))) for start in range(0, words, 20))


def edited(text, every, seed):
    """The same with one word in `every` replaced."""
    draws, parts = random.Random(seed), text.split(" ")
    for place in range(draws.randrange(every), len(parts), every):
        parts[place] = "x" + draws.choice(WORDS)
    return " ".join(parts)


def runs(text):
    return np.unique(shingles(word_hashes(text), near.SHINGLE_WORDS))


def worst(texts):
    """The largest containment of a pair of one document to train on and one held out."""
    held = [runs(text) for text in texts["held_out"]]
    return max(leaks.contained(runs(text), other) for text in texts["train"] for other in held)


@pytest.fixture
def folder(tmp_path, make):
    """Swedish documents; of each a copy with a few words changed, and every fourth inside a longer one."""
    documents = [prose(seed, 80 + seed % 7 * 20) for seed in range(60)]
    copies = [edited(text, 45, seed) for seed, text in enumerate(documents)]
    longer = [f"{prose(500 + seed, 400)}\n{documents[seed]}\n{prose(900 + seed, 400)}" for seed in range(0, 60, 4)]
    for name, texts in (("a", documents), ("b", copies), ("c", longer)):
        records = [{"id": f"{name}{number}", "text": text, "lang": "sv" if number % 2 else "nb"} for number, text in enumerate(texts)]
        make.write_jsonl(tmp_path / "in" / f"{name}.jsonl", records)
    return tmp_path / "in"


@pytest.mark.parametrize("near_duplicates", [0.0, 0.75])
def test_nothing_to_train_on_holds_most_of_what_is_held_out(folder, build, make, tmp_path, near_duplicates):
    wanted = {"near_duplicates": near_duplicates, "held_out_share": 0.2}
    before = make.texts_of(tmp_path / "off", build(folder, out="off", **wanted))
    facts = build(folder, **wanted, held_out_overlap=0.5)
    after = make.texts_of(tmp_path / "corpus", facts)
    assert worst(before) >= 0.8  # the documents inside longer ones, which are no near-duplicates of them
    assert worst(after) < 0.5
    assert before["held_out"] == after["held_out"]
    assert facts.dropped["held_out_overlap"].documents > 0
    lost = sum(map(len, before["train"])) - sum(map(len, after["train"]))
    assert lost < (1.2 if near_duplicates else 3.0) * sum(map(len, after["held_out"]))  # the paragraphs, not the longer documents


def test_a_longer_document_loses_the_paragraphs_alone(build, make, tmp_path):
    documents = [prose(seed, 120) for seed in range(8)]
    longer = [f"{prose(500 + seed, 200)}\n{text}\n{prose(900 + seed, 200)}" for seed, text in enumerate(documents)]
    make.write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text, "lang": "sv"} for text in documents])
    make.write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": text, "lang": "fo"} for text in longer])
    facts = build(tmp_path / "in", held_out_overlap=0.5)
    texts = make.texts_of(tmp_path / "corpus", facts)
    [held] = [number for number, text in enumerate(documents) if text in texts["held_out"]]
    assert f"{prose(500 + held, 200)}\n{prose(900 + held, 200)}" in texts["train"]
    examples = [json.loads(line) for line in (tmp_path / "corpus" / "dropped.jsonl").read_text().splitlines()]
    assert sorted((example["reason"], example["file"], example["like_file"], example["whole"]) for example in examples) == [
        ("held_out_overlap", "a.jsonl", "b.jsonl", True),  # a document inside a longer one that is held out
        ("held_out_overlap", "b.jsonl", "a.jsonl", False),
    ]
    assert facts.bytes_kept == sum(len(text.encode()) for split in texts.values() for text in split)


def test_code_is_not_left_with_holes(build, make, tmp_path):
    documents = [prose(seed, 120) for seed in range(8)]
    modules = [f'"""{text}"""\n' + "\n".join(f"x{seed}_{line} = {line} + y{line}" for line in range(200)) for seed, text in enumerate(documents)]
    make.write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text, "lang": "en"} for text in documents])
    make.write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": text, "lang": "code-python"} for text in modules])
    facts = build(tmp_path / "in", held_out_overlap=0.5)
    texts = make.texts_of(tmp_path / "corpus", facts)
    kept = texts["train"] + texts["held_out"]
    [held] = [number for number, text in enumerate(documents) if text in texts["held_out"]]
    assert {number for number, module in enumerate(modules) if module in kept} >= set(range(8)) - {held}
    assert sum(text.startswith('"""') or "_1 = 1 + y1" in text for text in kept) == sum(module in kept for module in modules)


def test_eight_processes_write_the_same_bytes_as_one(folder, build, tmp_path, spread):
    for out, workers in (("one", 1), ("eight", 8)):
        build(folder, out=out, workers=workers, near_duplicates=0.75, held_out_overlap=0.5, held_out_share=0.2)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) >= 6
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "eight" / path).read_bytes(), path


def test_suspects_are_all_pairs_that_share_enough(tmp_path):
    """Against every pair compared. Of runs one in eight is looked at, so a few suspects are none."""
    texts = [prose(seed, 200) for seed in range(40)]
    texts += [edited(texts[seed], 20 + seed, seed) for seed in range(40)]
    texts += [prose(100 + seed, 300) + "\n" + texts[seed] for seed in range(0, 40, 2)]
    files = []
    for name, own in (("a", texts[:30]), ("b", texts[30:])):
        writer = leaks.Writer(tmp_path / f"{name}.sketch.npy")
        for text in own:
            writer.add(shingles(word_hashes(text), near.SHINGLE_WORDS))
        writer.close()
        files.append(leaks.Sketch(writer.path, np.arange(len(own))))
    held = np.array([index % 7 == 0 for index in range(len(texts))])
    found = {tuple(pair) for pair in leaks.suspects(files, 0.5, held.astype(float), ~held).tolist()}
    own_runs = [runs(text) for text in texts]
    every = {(one, other) for one in np.flatnonzero(~held).tolist() for other in np.flatnonzero(held).tolist()}
    true = {pair for pair in every if leaks.contained(own_runs[pair[0]], own_runs[pair[1]]) >= 0.5}
    assert len(true) > 10
    assert true <= found
    assert len(found) <= 2 * len(true)


@given(st.integers(0, 10**6), st.integers(40, 300), st.integers(30, 90))
@settings(deadline=None)
def test_a_near_copy_of_an_evaluation_item_is_cut_out(seed, words, every):
    """At a Jaccard similarity of 0.8 runs of 13 words are left between the changes."""
    item = prose(seed, words)
    copy = edited(item, every, seed)
    one, other = runs(item), runs(copy)
    if len(np.intersect1d(one, other)) / len(np.union1d(one, other)) < 0.8:
        return
    known = np.unique(shingles(word_hashes(item), overlap.RUN_WORDS))
    around = prose(seed + 1, 400)
    rest = overlap.without_overlap(f"{around}\n{copy}\n{around}", known)
    assert rest is not None
    assert leaks.contained(runs(rest), one) < 0.2
