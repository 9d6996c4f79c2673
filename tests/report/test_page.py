"""The page: whole HTML, nothing from outside, nothing executed, any state of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hagane.errors import RunError
from hagane.evaluate.facts import EvaluateFacts
from hagane.report.page import build_report, render

MakeRun = Callable[..., Path]
STAGES = ("corpus", "tokenizer", "plan", "encode", "pretrain", "converse", "tune", "evaluate", "release")
LANGUAGES = "ar bg bn ca cs cy da de el en es et eu fa fi fo fr ga he hi hr hu id is it ja ko se sv zh"
VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> ${7*7} {{ 7*7 }} $\\frac$ "\' & </style></svg>'


class Structure(HTMLParser):
    """Checks that tags nest, ids are unique and links inside the page lead somewhere; collects tags and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.errors: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        ids = [value for _, attributes in self.tags for name, value in attributes.items() if name == "id"]
        self.errors += [f"id {name} occurs twice" for name in set(ids) if ids.count(name) > 1]
        wanted = {(attributes.get("href") or "")[1:] for _, attributes in self.tags if (attributes.get("href") or "").startswith("#")}
        self.errors += [f"#{name} leads nowhere" for name in wanted - set(ids)]
        self.errors += [f"{name} is never closed" for name in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def references(page: str) -> Iterator[str]:
    """Everything a browser would fetch."""
    for _, attributes in Structure(page).tags:
        yield from (value or "" for name, value in attributes.items() if name in ("src", "href", "srcset", "action", "data", "poster"))
    yield from re.findall(r"url\(([^)]*)\)", page)
    yield from re.findall(r"@import[^;]*", page)


def check(page: str) -> None:
    structure = Structure(page)
    assert structure.errors == []
    assert page.startswith("<!DOCTYPE html>")
    assert [reference for reference in references(page) if not reference.startswith("#")] == []
    assert not [
        tag for tag, attributes in structure.tags if tag in ("script", "iframe", "object", "embed", "link") or any(name.startswith("on") for name in attributes)
    ]
    assert len(page.encode()) < 2_000_000


def test_the_finished_page_is_whole_and_self_contained(finished_run: Path) -> None:
    path = build_report(finished_run)
    assert path == finished_run / "report.html"
    page = path.read_text(encoding="utf-8")
    check(page)
    assert "http://" not in page and "https://" not in page
    for words in (
        "8.91 M",
        "4 min 58 s",
        "1.410",
        "Icelandic",
        "Effective experts",
        "Bits per parallel sentence",
        "PSF-2.0",
        "shorter than corpus.min_characters",
        "the classifier learned from labelled text 310",
        "label may be questioned",
        "steer",
        "7664",
    ):
        assert words in page
    assert [item.name for item in finished_run.glob("*report*")] == ["report.html"]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, make_run: MakeRun, finished_page: str) -> None:
    """Another folder at another time, the same facts: the same page."""
    assert render(make_run(tmp_path / "quickstart")) == finished_page


@pytest.mark.parametrize("until", ["corpus", "plan", "pretrain", "tune"])
def test_an_unfinished_run_shows_what_there_is(tmp_path: Path, make_run: MakeRun, until: str) -> None:
    page = render(make_run(tmp_path / "run", until=until))
    check(page)
    assert "not finished" in page


def test_an_empty_folder_has_a_report_and_a_missing_one_has_none(tmp_path: Path) -> None:
    check(render(tmp_path))
    with pytest.raises(RunError, match="no run folder"):
        build_report(tmp_path / "nothing")


def test_a_dense_model_has_no_router_section(tmp_path: Path, make_run: MakeRun) -> None:
    page = render(make_run(tmp_path / "run", dense=True))
    check(page)
    assert 'id="router"' not in page and "dense language model" in page


def test_null_experts_and_clamping_have_their_tables_and_pictures(finished_page: str) -> None:
    """Only the stage that had them is a line of them."""
    tables = {"Tokens by number of experts used": ("1.87", "8.0 %", "24.0 %", "0.31"), "Multipliers of entropy clamping": ("12.5 %", "0.0123")}
    for caption, cells in tables.items():
        table = finished_page.split(f"{caption}</caption>")[1].split("</table>")[0]
        assert table.count("<tr>") == 2 and all(cell in table for cell in cells)
    assert "Experts used per token" in finished_page


def test_thirty_languages_fit(tmp_path: Path, make_run: MakeRun) -> None:
    tags = tuple(LANGUAGES.split())
    page = render(make_run(tmp_path / "run", languages=tags))
    check(page)
    assert "30 languages" in page


def test_figures_can_be_read_without_seeing_them_and_follow_the_colour_scheme(finished_page: str) -> None:
    page = finished_page
    pictures = [attributes for tag, attributes in Structure(page).tags if tag == "svg"]
    assert len(pictures) >= 8 and all(attributes["role"] == "img" and len(attributes["aria-label"] or "") > 20 for attributes in pictures)
    assert page.count("<figcaption>") == len(pictures)
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert re.findall(r"#[0-9a-fA-F]{6}", drawn) == [] and "var(--series-1)" in drawn
    assert "prefers-color-scheme: dark" in page


def test_numbers_found_again_are_shown_by_depth_and_length(tmp_path: Path, make_run: MakeRun) -> None:
    folder = make_run(tmp_path / "run")
    assert "Long texts" not in render(folder)
    path = folder / "evaluate" / "facts.json"
    record = json.loads(path.read_text())
    record["facts"]["retrieval"] = [
        {"kind": kind, "language": tag, "length": length, "depth": depth, "correct": int(length == 512), "total": 2, "low": 0.0, "high": 1.0}
        for kind in ("passkey", "needle") for tag in ("en", "sv") for length in (512, 4096) for depth in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    path.write_text(json.dumps(record))
    page = render(folder)
    check(page)
    for kind in ("Passkey", "Needle"):
        heat = re.search(rf"<caption>{kind}</caption>.*?</table>", page, flags=re.DOTALL)[0]
        assert re.findall(r'<th scope="row">(.*?)</th>', heat) == ["0 %", "50 %", "100 %", "all"]
        assert re.findall(r"<td style[^>]*>(\d+)</td>", heat) == ["50", "0"] * 4 and "4,096" in heat and "6 of 12" in heat
    assert "Languages: English, Swedish" in page


def test_hostile_text_stays_text(tmp_path: Path, make_run: MakeRun) -> None:
    folder = make_run(tmp_path / "run", languages=("en", HOSTILE))
    path = folder / "evaluate" / "facts.json"
    record = json.loads(path.read_text())
    for sample in record["facts"]["samples"]:
        sample |= dict.fromkeys(("prompt", "output", "expected", "language", "family", "mode"), HOSTILE)
    for row in record["facts"]["accuracy"]:
        row["family"] += HOSTILE
    path.write_text(json.dumps(record))
    (folder / "recipe.toml").write_text(f"name = '''{HOSTILE[:28]}'''\n# {HOSTILE}")
    (folder / "pretrain" / "events.jsonl").write_text(json.dumps({"time": 1e9, "step": 1, "event": HOSTILE, HOSTILE: HOSTILE}) + "\n")
    page = render(folder)
    check(page)
    assert "<script" not in page and "<img" not in page and "49" not in re.findall(r"\$\{[^}]*\}|\{\{[^}]*\}\}", page)
    assert any(HOSTILE in word for word in Structure(page).words)


@pytest.mark.parametrize("value", [None, float("nan"), "??", [], {}, -1, 10**400], ids=["null", "nan", "text", "list", "table", "negative", "huge"])
def test_facts_of_another_kind_do_no_harm(tmp_path: Path, make_run: MakeRun, value: Any) -> None:
    """A fact that is missing, or of a kind nobody expected, leaves a dash and not a traceback."""
    folder = make_run(tmp_path / "run")
    for path in folder.rglob("metrics.jsonl"):
        path.unlink()
    for stages in (("pretrain", "converse", "tune", "evaluate", "release"), ("corpus", "plan")):
        for stage in stages:
            path = folder / stage / "facts.json"
            record = json.loads(path.read_text())
            record["facts"] = dict.fromkeys(record["facts"], value)
            path.write_text(json.dumps(record))
        check(render(folder))


def test_damaged_files_are_named(finished_run: Path) -> None:
    (finished_run / "evaluate" / "facts.json").write_text('{"stage": "evaluate", "fac')
    (finished_run / "recipe.toml").write_text("name = [")
    (finished_run / "pretrain" / "events.jsonl").write_bytes(b"\xff\xfe\n")
    metrics = finished_run / "pretrain" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:50]) + "{broken\n" + "".join(lines[50:]) + '{"step": 9')
    page = render(finished_run)
    check(page)
    for words in (
        "evaluate/facts.json is damaged",
        "recipe.toml is not valid TOML",
        "pretrain/events.jsonl could not be read",
        "pretrain/metrics.jsonl has 1 damaged line;",
    ):
        assert words in page


def test_a_long_run_is_sampled_not_read_whole(finished_run: Path) -> None:
    path = finished_run / "pretrain" / "metrics.jsonl"
    lines = path.read_text()
    path.write_text(lines * 50)
    page = render(finished_run)
    check(page)
    assert len(page) < 300_000


def test_a_page_that_cannot_be_written_is_a_sentence(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr("hagane.report.page.page_of", lambda record: "page")
    with pytest.raises(RunError, match="report\\.html"):
        build_report(finished_run)


def test_what_a_starting_model_forgot_and_gained_is_a_table(finished_run: Path) -> None:
    path = finished_run / "evaluate" / "facts.json"
    record = json.loads(path.read_text())
    after = record["facts"]["bits_per_byte"]
    change = {"en": 0.021, "is": -0.75}
    record["facts"]["start"] = {
        "before": {tag: after[tag] | {"value": after[tag]["value"] - value} for tag, value in change.items()},
        "change": {tag: {"value": value, "low": value - 0.004, "high": value + 0.003} for tag, value in change.items()},
        "languages": ["en"], "known": {"value": 0.021, "low": 0.017, "high": 0.024}, "new": {"value": -0.75, "low": -0.754, "high": -0.747},
    }  # fmt: skip
    EvaluateFacts.model_validate(record["facts"])
    path.write_text(json.dumps(record))
    page = render(finished_run)
    check(page)
    for words in ("What the starting model forgot and gained", "+0.021 (+0.017 to +0.024)", "-0.750 (-0.754 to -0.747)", "forgetting above 0"):
        assert words in page
    for odd in (None, "??", 7, [], {"before": {"en": {"value": 1}}, "languages": 7}):
        record["facts"]["start"] = odd
        path.write_text(json.dumps(record))
        check(render(finished_run))


def test_the_proof_of_a_release_is_told_as_it_was(finished_run: Path) -> None:
    path = finished_run / "release" / "facts.json"
    assert "the same greedy text on 8 of 8 prompts;" in render(finished_run)
    record = json.loads(path.read_text())
    record["facts"] |= {"greedy_equal": False, "greedy_parted": 3, "form_logit_gap": 0.321}
    path.write_text(json.dumps(record))
    assert re.search(r"; with a fixed number of keys \S+ from our own form;", render(finished_run))
    assert "the same greedy text on 5 of 8 prompts and on 3 up to where two tokens tie;" in render(finished_run)


def test_what_was_reached_is_the_mean_that_the_plan_spoke_of(tmp_path: Path, make_run: MakeRun) -> None:
    """Over all that is scored, code among it: a mean over other languages would be held against the wrong interval."""
    path = make_run(tmp_path / "run") / "evaluate" / "facts.json"
    record = json.loads(path.read_text())
    scored = record["facts"]["bits_per_byte"]
    scored["code-python"]["value"] = 2.9
    path.write_text(json.dumps(record))
    mean, page = sum(item["value"] for item in scored.values()) / len(scored), render(tmp_path / "run")
    assert f">{mean:.2f}<" in page and f"mean of {len(scored)} languages, code among them" in page
