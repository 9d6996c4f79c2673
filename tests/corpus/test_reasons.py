"""What was dropped is shown with documents to look at."""

import json

import pytest

from hagane.corpus.reasons import show
from hagane.errors import DataError


@pytest.fixture
def corpus(build, make, tmp_path):
    """A corpus of which two documents are too short and one is there twice."""
    records = [make.record("en", number) for number in range(9)] + [make.record("en", 3, id="copy"), {"text": "short"}, {"text": "tiny"}]
    make.write_jsonl(tmp_path / "in" / "a.jsonl", records)
    facts = build(tmp_path / "in")
    (tmp_path / "corpus" / "facts.json").write_text(json.dumps({"facts": facts.model_dump(mode="json")}))
    return tmp_path / "corpus"


def test_every_reason_is_shown_with_its_documents(corpus):
    lines, facts = show(corpus)
    text = "\n".join(lines)
    assert "9 documents kept" in text and "of 12 looked at" in text
    assert "duplicate: 1 documents" in text and "  a.jsonl, document 10" in text and "| Once upon a time" in text
    assert "too_short: 2 documents" in text and "  a.jsonl, record 11" in text and "| short" in text
    assert set(facts["dropped"]) == {"duplicate", "too_short"}


def test_one_reason_shows_all_its_examples(corpus):
    lines, facts = show(corpus, "too_short", count=1)
    assert sum("a.jsonl, record" in line for line in lines) == 2
    assert not any("duplicate" in line for line in lines)
    assert list(facts["dropped"]) == ["too_short"]


def test_a_reason_that_nothing_was_dropped_for_is_named(corpus):
    with pytest.raises(DataError, match=r"'to_short'\. Did you mean too_short\? Reasons found there: duplicate, too_short\."):
        show(corpus, "to_short")
