"""Which licences may be learned from, who is to be named, and an account of every document."""

import json

import pytest

from hagane.corpus.licenses import allowed, wants_attribution
from hagane.recipe.schema import LicenseSettings


@pytest.mark.parametrize(
    ("license", "settings", "expected"),
    [
        ("CC-BY-4.0", {}, True),
        ("unknown", {}, True),
        ("unknown", {"unknown": "drop"}, False),
        ("unknown", {"allow": ["CC0*"]}, True),  # what happens to these is said by `unknown` alone
        ("CC-BY-NC-4.0", {"deny": ["*-nc-*"]}, False),
        ("cc-by-4.0", {"allow": ["CC-BY-*", "CC0-1.0"]}, True),
        ("GPL-3.0", {"allow": ["CC-BY-*"]}, False),
        ("CC-BY-NC-4.0", {"allow": ["CC-BY-*"], "deny": ["*NC*"]}, False),
        ("CC-BY-4.0 / Apache-2.0", {"allow": ["Apache-*"]}, True),
        ("MIT OR GPL-3.0", {"deny": ["GPL*"]}, True),
        ("MIT AND GPL-3.0", {"deny": ["GPL*"]}, False),
        ("PSF-2.0 (originals), CC0-1.0 (translation)", {"allow": ["PSF-2.0", "CC0-1.0"]}, True),
        ("PSF-2.0 (originals), CC0-1.0 (translation)", {"allow": ["CC0-1.0"]}, False),
        ("public domain; markup CC-BY-4.0", {"allow": ["public domain*"]}, True),
    ],
)
def test_policy(license, settings, expected):
    assert allowed(license, LicenseSettings(**settings)) == expected


def test_attribution_is_asked_for_by_any_part():
    assert wants_attribution("public domain, CC-BY-SA-4.0", LicenseSettings())
    assert not wants_attribution("CC0-1.0", LicenseSettings())


def test_accounts_add_up_and_a_denied_licence_is_dropped(build, make, tmp_path):
    records = [make.record("en", number, license=("CC0-1.0", "CC-BY-4.0", "GPL-3.0")[number % 3], source=f"press:{number}") for number in range(30)]
    records += [make.record("en", 0, id="copy"), {"id": "short", "text": "tiny", "lang": "sv"}]
    make.write_jsonl(tmp_path / "in" / "a.jsonl", records)
    facts = build(tmp_path / "in", licenses={"deny": ["gpl*"]})
    assert facts.dropped["license"].documents == 10
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    rows = {(row["license"], row["language"]): row for row in manifest["accounts"]}
    assert sum(row["in"]["documents"] for row in rows.values()) == facts.documents_in == 32
    assert sum(row["kept"]["documents"] for row in rows.values()) == facts.documents_kept == 20
    assert rows["GPL-3.0", "en"]["dropped"]["license"]["documents"] == 10
    assert rows["CC0-1.0", "en"]["repeated"]["documents"] == 1
    assert rows["unknown", "sv"]["dropped"]["too_short"]["documents"] == 1
    for row in rows.values():
        assert row["in"]["documents"] == row["kept"]["documents"] + row["repeated"]["documents"] + sum(own["documents"] for own in row["dropped"].values())
    assert manifest["attribution"] == [{"license": "CC-BY-4.0", "origin": "press", "documents": 10}]
    card = (tmp_path / "corpus" / "data_card.md").read_text()
    assert "| text | CC-BY-4.0 | en | 10 | 10 |" in card
    assert "deny: gpl*" in card
