"""The page of a claim says what the terminal says: verdict, facts, arithmetic, what breaks it and the nearest possible plan."""

import re
from html import unescape

import pytest

from hagane.plan.claim import load_claim, shipped_claims
from hagane.plan.judge import judge
from hagane.report.verdict_page import verdict_page


def words(page):
    """The text of a page, one space between words."""
    return " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)).split())


@pytest.mark.parametrize("name", shipped_claims())
def test_everything_that_was_found_is_on_the_page(name):
    verdict = judge(load_claim(name))
    page = words(verdict_page(verdict))
    assert f"hagane plan {verdict.outcome} {verdict.claim.name}" in page
    for check in verdict.checks:
        for line in check.lines:
            assert " ".join(line.split()) in page
    for change in (*verdict.changes, *(remedy for check in verdict.breaks for remedy in check.remedies)):
        assert change.text.replace("->", "→") in page
    for said in (*verdict.conditions, *verdict.claim.source, *verdict.claim.unknown()):
        assert said in page
    assert ("nearest possible plan" in page) == (verdict.nearest is not None)


def test_the_first_sentence_is_the_verdict_and_what_breaks_it():
    lead = {name: re.search(r'<p class="lead">(.*?)</p>', verdict_page(judge(load_claim(name))))[1] for name in ("neurosynth-9", "neurosynth-7", "deepseek-v3")}
    broken = "impossible. It breaks at the share of its text that is ever read (short by a factor of 458,000)"
    assert lead["neurosynth-9"].startswith(f"What is said of this model is {broken}")
    assert "at the edge of what anybody has shown: " in lead["neurosynth-7"]
    assert lead["deepseek-v3"] == "What is said of this model is possible."


def test_what_changes_stands_beside_what_was_said():
    page = verdict_page(judge(load_claim("neurosynth-9")))
    rows = {row[0]: row[1:] for row in re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>', page)}
    assert rows["hardware"] == ("2,048 x A100-80GB", "2,312 x A100-80GB")
    assert rows["training time"] == ("49 days", "the same") and rows["tokens"] == ("unknown", "480B")
