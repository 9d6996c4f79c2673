"""Evaluation items are found in text by brute force and by us alike, and cut out."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus.overlap import RUN_WORDS, evaluation_runs, without_overlap
from hagane.errors import DataError

WORDS = ["".join(random.Random(number).choices("abdefgiklmnoprstuvåИж", k=2 + number % 8)) for number in range(500)]


def words(seed, length):
    return random.Random(seed).choices(WORDS, k=length)


def runs_of(folder, *items):
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps({"question": item, "choices": [{"text": "x"}]}) + "\n" for item in items))
    return evaluation_runs([str(path)])


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=30), min_size=1, max_size=8), st.lists(st.integers(0, 9), min_size=13, max_size=20))
@settings(deadline=None)
def test_lines_that_share_a_run_are_cut_and_no_others(tmp_path_factory, lines, item):
    alphabet = ["alfa", "Beta", "gamma", "İta", "жар", "ett", "två", "tre", "fyra", "fem"]
    text = "\n".join(" ".join(alphabet[word] for word in line) for line in lines)
    known = runs_of(tmp_path_factory.mktemp("overlap"), " ".join(alphabet[word] for word in item).upper().replace("İ", "İ"))
    flat = [(word, number) for number, line in enumerate(lines) for word in line]
    targets = {tuple(item[start : start + RUN_WORDS]) for start in range(len(item) - RUN_WORDS + 1)}
    cut = set()
    for start in range(len(flat) - RUN_WORDS + 1):
        run = flat[start : start + RUN_WORDS]
        if tuple(word for word, _ in run) in targets:
            cut |= set(range(run[0][1], run[-1][1] + 1))
    kept = [line + ("\n" if number < len(lines) - 1 else "") for number, line in enumerate(text.split("\n")) if number not in cut]
    found = without_overlap(text, known)
    if not cut:
        assert found is text
    elif len("".join(kept)) < 0.5 * len(text):
        assert found is None
    else:
        assert found == "".join(kept)


def test_items_are_cut_out_of_documents(build, make, tmp_path):
    item = " ".join(words(1, 20))
    plain = ["\n".join(" ".join(words(seed * 100 + line, 15)) for line in range(6)) for seed in range(10, 30)]
    hidden = plain[0] + f"\nQuestion: {item.title()}?\n" + plain[1]
    make.write_jsonl(tmp_path / "eval" / "quiz.jsonl", [{"paragraphs": [{"context": item}]}, {"answer": 4, "short": "one two three"}])
    pq.write_table(pa.table({"q": [" ".join(words(2, 16))], "n": [1]}), tmp_path / "eval" / "more.parquet")
    texts = [*plain[2:], hidden, item, " ".join(words(2, 16))]
    make.write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text, "lang": "sv"} for text in texts])
    facts = build(tmp_path / "in", exclude=(str(tmp_path / "eval"),))
    assert facts.dropped["evaluation_overlap"].documents == 3
    kept = make.texts_of(tmp_path / "corpus", facts)
    found = kept["train"] + kept["held_out"]
    assert sorted(found) == sorted([*plain[2:], plain[0] + "\n" + plain[1]])
    examples = [json.loads(line) for line in (tmp_path / "corpus" / "dropped.jsonl").read_text().splitlines()]
    assert [example["whole"] for example in examples if example["reason"] == "evaluation_overlap"] == [False, True, True]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("quiz.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
    ("quiz.jsonl.gz", b"\x1f\x8b\x08\x00broken", "is damaged"),
    ("quiz.txt", b"\xff\xfe\x00x", "is damaged"),
    ("quiz.parquet", b"PAR1 no", "is damaged"),
])  # fmt: skip
def test_a_broken_evaluation_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        evaluation_runs([str(tmp_path / name)])


def test_evaluation_files_that_are_gone_are_named(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        evaluation_runs([str(tmp_path / "nothing.jsonl")])
