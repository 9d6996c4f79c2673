"""The rules at work in a whole corpus: reasons, examples, thresholds; the same bytes from one and from eight processes, in any case."""

import json

import numpy as np
import pytest

from hagane.corpus.reasons import show
from hagane.errors import RecipeError
from hagane.recipe.load import validate

NOTICE = "Den här sidan använder kakor, läs mer om dem här."
WORDS = np.array(["en", "liten", "stuga", "vid", "sjön", "där", "gammal", "man", "bodde", "länge", "skogen", "fåglar", "sjunger", "morgon", "vatten", "över"])


def article(draws, sentences=40):
    return "\n".join(" ".join(draws.choice(WORDS, 9)).capitalize() + "." for _ in range(sentences))


@pytest.fixture
def folder(tmp_path, make):
    """Swedish articles of three sites, one of which has a notice on every page, and pages that no rule should let pass."""
    draws = np.random.default_rng(0)
    records = [{"id": f"https://site{number % 3}.se/{number}", "text": article(draws), "lang": "sv"} for number in range(240)]
    for record in records[::3]:
        record["text"] += f"\n\n{NOTICE}\n"
    sentence = "Köp nu, köp här, köp billigt hos oss i dag. "
    records += [
        {"id": "repetition", "text": sentence * 60, "lang": "sv"},
        {"id": "lists", "text": "\n".join(f"{number} {number * 7919}" for number in range(300)), "lang": "sv"},
        {"id": "signs", "text": "\n".join(" ".join(f"{{{word}}}=<>[]\\{word}|" for word in draws.choice(WORDS, 5)) for _ in range(60)), "lang": "sv"},
        {"id": "broken_text", "text": " ".join(" ".join(word) for word in draws.choice(WORDS, 300)), "lang": "sv"},
        {"id": "cut_lines", "text": "\n".join(" ".join(draws.choice(WORDS, 9)) + " …" for _ in range(40)), "lang": "sv"},
        {"id": "boilerplate", "text": f"{NOTICE}\n", "lang": "sv", "source": "https://site0.se/x"},
        {"id": "markup", "text": f"<div class='x'>{article(draws)}</div>", "lang": "sv"},
        {"id": "contents", "text": "".join(f"Kapitel {number} ........ {number}\n" for number in range(9)) + article(draws), "lang": "sv"},
        {"id": "twice", "text": "\n\n".join([article(draws, 12)] * 2), "lang": "sv"},
        {"id": "dumps", "text": f"{article(draws, 9)}\n```json\n{json.dumps({word: {'id': None} for word in WORDS}, indent=4)}\n```\n", "lang": "sv"},
        {"id": "code", "text": "x = 1\n" * 200, "lang": "code-python"},
    ]
    for part in range(8):
        make.write_jsonl(tmp_path / "in" / f"{part}.jsonl", records[part::8])
    return tmp_path / "in"


def test_every_rule_has_its_document_and_good_ones_stay(folder, build, make, tmp_path):
    facts = build(folder)
    assert {reason: count.documents for reason, count in facts.dropped.items()} == {
        "boilerplate": 1, "broken_text": 1, "cut_lines": 1, "lists": 1, "repetition": 1, "signs": 1,
    }  # fmt: skip
    assert facts.repaired == {"boilerplate": 80, "contents": 1, "dumps": 1, "markup": 1, "twice": 1}
    texts = "".join(text for split in make.texts_of(tmp_path / "corpus", facts).values() for text in split)
    assert NOTICE not in texts
    assert "<div" not in texts
    assert "Kapitel" not in texts
    assert "x = 1" in texts  # code is not prose, and not judged
    assert facts.rules.languages["sv"].taken_from == "sv"


def test_examples_and_thresholds_are_shown(folder, build, tmp_path):
    facts = build(folder)
    (tmp_path / "corpus" / "facts.json").write_text(json.dumps({"facts": facts.model_dump(mode="json")}))
    text = "\n".join(show(tmp_path / "corpus")[0])
    assert "repetition: 1 documents" in text
    assert "boilerplate: 80 documents mended" in text
    assert "of sv): list_lines >" in text
    lines, _ = show(tmp_path / "corpus", "markup")
    assert any("| <div" in line for line in lines)
    assert any("single_letters" in line and "beyond" in line for line in show(tmp_path / "corpus", "broken_text")[0])


@pytest.mark.parametrize("rule", ["markup", "contents", "dumps", "twice", "boilerplate", "repetition", "lists", "signs", "broken_text", "cut_lines"])
def test_a_rule_can_be_switched_off(folder, build, rule):
    facts = build(folder, rules={rule: False})
    assert rule not in facts.dropped
    assert rule not in facts.repaired


def test_an_unknown_rule_is_an_error_that_names_the_nearest():
    with pytest.raises(RecipeError, match=r"corpus\.rules\.boilerplat is not a setting\. Did you mean boilerplate\?"):
        validate({"name": "x", "corpus": {"rules": {"boilerplat": False}}}, "recipe x")


@pytest.mark.parametrize("sample", [pytest.param(None, marks=pytest.mark.slow), 100_000])
def test_eight_processes_write_the_same_bytes_as_one(folder, build, tmp_path, spread, sample):
    for out, workers in (("one", 1), ("eight", 8)):
        build(folder, out=out, workers=workers, sample_bytes=sample, near_duplicates=0.75)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) >= 6
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "eight" / path).read_bytes(), path
