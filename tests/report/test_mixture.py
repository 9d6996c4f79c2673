"""The found mixture and the quality buckets in the report; a folder without either, or with a damaged file, is shown without."""

import json

from hagane.plan.found import FoundMixture, LanguageMixture, ProxyResult
from hagane.report.mixture import mixture
from hagane.report.page import render
from hagane.report.provenance import data
from hagane.report.record import read_record

FOUND = FoundMixture(
    corpus="f", paths=("texts",), found="2026-11-23", objective="worst", weights={"sv": 1.5, "se": 0.5}, gain=0.03, low=0.012, high=0.048, measured_gain=0.025,
    pairs=3,
    languages={
        "sv": LanguageMixture(unimax=0.5, found=0.75, repeats=1.2, expected_unimax=3.0, expected_found=2.9),
        "se": LanguageMixture(unimax=0.5, found=0.25, repeats=3.9),
    },
    form="own text", error=0.004, constant_error=0.03, proxies=tuple(ProxyResult(kind=kind, objective=3.0) for kind in ("unimax", "sampled", "found")),
    width=64, num_layers=3, tokens=400_000, vocabulary_size=2048, target_bytes=1e7, context=256, optimizer="muon",
)  # fmt: skip


def test_a_found_mixture_is_told_drawn_and_tabled(finished_run):
    (finished_run / "mixture.json").write_text(FOUND.model_dump_json(), encoding="utf-8")
    shown = mixture(read_record(finished_run))
    assert "Expected off the worst language against UniMax: 3.00 % (95 % interval 1.20 to 4.80 %)" in shown["told"]
    assert shown["told"].endswith("The run uses it.")
    assert [row[0] for row in shown["table"].rows] == ["Swedish", "Northern Sami"] and shown["table"].rows[0][1:4] == ("50.0 %", "75.0 %", "1.2×")
    assert "Swedish 50.0 % to 75.0 %" in shown["pictures"][1].svg
    page = render(finished_run)
    assert "Mixture found by experiment" in page and "the found mixture: 3.000" in page


def test_a_run_without_one_or_with_a_damaged_file_is_shown_without(finished_run):
    assert mixture(read_record(finished_run)) is None and "Mixture found by experiment" not in render(finished_run)
    for damaged in ("{", '{"gain": 1}', "[]"):
        (finished_run / "mixture.json").write_text(damaged, encoding="utf-8")
        assert "Mixture found by experiment" not in render(finished_run)


def test_quality_buckets_are_tabled(finished_run):
    path = finished_run / "corpus" / "facts.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["facts"]["quality"] = {
        "good": ["law"], "repeats": [2, 1], "seconds": 1.0,
        "languages": {
            "sv": {"good_documents": 90, "other_documents": 300, "separation": 0.91, "divided": True, "bucket_bytes": [2_000_000, 1_000_000]},
            "se": {"good_documents": 2, "other_documents": 30, "separation": None, "divided": False, "bucket_bytes": []},
        },
    }  # fmt: skip
    path.write_text(json.dumps(record), encoding="utf-8")
    table = data(read_record(finished_run))["quality"]
    assert table.caption == "Quality: text most like law first; buckets are read 2, 1 times as often"
    assert table.rows[0] == ("Swedish", "2.00 MB, 1.00 MB; a good document scores higher than another one in 91 % of pairs")
    assert "too few to learn from" in table.rows[1][1] and "Quality: text most like law" in render(finished_run)
