"""A ladder at toy size: real runs of a second, stopped and gone on with, and its law in the plan."""

import json
import math
import random
import shutil
import time

import pytest

from hagane import cli
from hagane.errors import RecipeError, RunError
from hagane.measure import small_runs
from hagane.measure.ladder import _design, climb, fit_law
from hagane.measure.rung import all_finished, finished, phase_of
from hagane.measure.small_runs import ground_of, train_all
from hagane.plan import ladder as design_module
from hagane.plan.kept import find_law, keep_law, law_folder, law_path
from hagane.plan.ladder import Rung
from hagane.plan.law import GENERAL
from hagane.preview import preview
from hagane.recipe.load import validate
from hagane.recipe.schema import PROBLEMS, Source
from hagane.recipe.types import Machine
from hagane.run import create, walk

MACHINE = Machine(name="test", device="cpu", num_cores=1, memory_bytes=8 << 30, matmul_flops=2e11, bandwidth=2e10, power_watts=31.0, power_source="test")
SPECS = [(16, 1, "dense", 2000), (16, 1, "dense", 4000), (32, 1, "dense", 2000), (32, 1, "experts", 4000), (16, 1, "dense", 8000)]
RUNGS = [Rung(width=w, num_layers=n, ffn=ffn, vocabulary_size=300, tokens=tokens, tilt=tokens == 8000) for w, n, ffn, tokens in SPECS]


def texts(folder, languages=("sv", "smj"), documents=60):
    """Made-up words of two languages, in one file each."""
    for language in languages:
        draw = random.Random(language)
        words = ["".join(draw.choices("aeioukstnrldvmg", k=draw.randint(2, 7))) for _ in range(80)]
        (folder / language).mkdir(parents=True)
        lines = [json.dumps({"text": " ".join(draw.choices(words, k=120)), "lang": language}) for _ in range(documents)]
        (folder / language / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")


def recipe_of(folder, budget="90s"):
    return validate(
        {
            "name": "toy", "budget": budget, "corpus": {"sources": [{"name": "corpus", "path": str(folder)}], "held_out_share": 0.2},
            "tokenizer": {"candidates": [300], "sample_bytes": 50000}, "model": {"pattern": {"ffn": "experts", "num_experts": 4, "head_dim": 8}},
            "train": {"context": 64, "rows": 4, "dtype": "float32"}, "tune": {"share": 0.0},
            "execution": {"device": "cpu", "compile": False, "threads": 1, "tensorboard": False},
        },
        "test",
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    texts(folder / "texts")
    return folder


def opened(home, folder, budget="90s"):
    return create(folder, recipe_of(home / "texts", budget), "", MACHINE, (), started=time.monotonic(), say=lambda text: None)


@pytest.fixture(scope="module")
def ground(home):
    with opened(home, home / "run") as run:
        walk(run, until="tokenizer", report=False)
        yield ground_of(run)


def test_a_ladder_that_is_killed_keeps_what_is_finished(ground, monkeypatch):
    trained, real = [], small_runs.train_rung

    def killed_at_the_third(place, rung, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(rung)
        return real(place, rung, **options)

    monkeypatch.setattr(small_runs, "train_rung", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        train_all(ground, RUNGS)
    assert [finished(ground, rung) is not None for rung in RUNGS] == [True, True, False, False, False]
    kept = [finished(ground, rung) for rung in RUNGS[:2]]
    trained.clear()
    monkeypatch.setattr(small_runs, "train_rung", lambda place, rung, **options: (trained.append(rung), real(place, rung, **options))[1])
    train_all(ground, RUNGS)
    assert trained == RUNGS[2:] and [finished(ground, rung) for rung in RUNGS[:2]] == kept
    facts = all_finished(ground)
    assert len(facts) == 5 and all(0.5 < value < 9 for item in facts for value in item.bits_per_byte.values())
    assert all(set(item.bits_per_byte) == {"sv", "smj"} for item in facts)
    experts = finished(ground, RUNGS[3])
    assert experts.total > experts.active
    assert not list((ground.folder / "runs").glob("*/weights.safetensors"))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rung": {"width": 16}}', "\udcff"])
def test_a_leftover_that_cannot_be_read_counts_as_none(ground, text):
    train_all(ground, RUNGS[:1])
    before, path = all_finished(ground), ground.folder / "runs" / "w8-l1-dense-v300-1k-s0" / "rung.json"
    path.parent.mkdir()
    try:
        path.write_bytes(text.encode(errors="surrogateescape"))
        assert all_finished(ground) == before != []
    finally:
        shutil.rmtree(path.parent)


def test_a_tilted_run_reads_every_other_language_twice_as_often(ground):
    plain, tilted = (phase_of(ground, rung).mixture for rung in (RUNGS[0], RUNGS[4]))
    ratio = {name: tilted[name] / plain[name] for name in plain}
    assert ratio["corpus.sv"] / ratio["corpus.smj"] == pytest.approx(4.0)
    assert sum(tilted.values()) == pytest.approx(1)


def test_every_run_ends_its_own_decay(ground):
    phase = phase_of(ground, RUNGS[1])
    assert phase.final_share == 0.0 and phase.decay_share == ground.run.recipe.train.decay_share
    assert phase.num_steps * phase.tokens_per_step == pytest.approx(4000, abs=phase.tokens_per_step)


def test_what_does_not_fit_the_time_is_left_out(ground, monkeypatch):
    long = Rung(width=16, num_layers=1, ffn="dense", vocabulary_size=300, tokens=50_000_000)
    monkeypatch.setattr(type(ground.run), "remaining", lambda self, reserve=0.0: 1.0)
    train_all(ground, [long])
    assert finished(ground, long) is None


def test_the_law_is_used_by_the_plan_of_the_same_text_and_of_no_other(ground, home, tmp_path, monkeypatch):
    monkeypatch.setattr("hagane.preview.profile", lambda device, threads: MACHINE)  # at another one the larger of shapes that are alike may be a little worse
    train_all(ground, RUNGS)
    law = fit_law(ground, all_finished(ground))
    keep_law(law)
    recipe = recipe_of(home / "texts", "1h")
    assert find_law(recipe) == law
    lines, facts = preview(recipe, ())
    assert "fitted on 5 runs of this corpus" in facts["law"] and facts["low"] < facts["bits_per_byte"] < facts["high"]
    assert set(facts["languages"]) == {"sv", "smj"} and facts["languages"]["sv"]["repeats"] == pytest.approx(4, rel=0.01)
    assert any("10 MB more" in line for line in lines) and not any("they do here" in line for line in lines), "training ends before that"
    given = preview(recipe.model_copy(update={"budget": f"{2 * facts['tokens']}tokens"}), ())[0]
    assert sum(line.endswith("tokens: they do here") for line in given) == 2
    assert [point["bits_per_byte"] for point in facts["curve"]] == sorted((point["bits_per_byte"] for point in facts["curve"]), reverse=True)
    texts(tmp_path / "texts")
    assert find_law(recipe_of(tmp_path / "texts")) == GENERAL
    with create(tmp_path / "run", recipe, "", MACHINE, (), started=time.monotonic(), say=lambda text: None) as run:
        assert run.law.corpus == law.corpus  # frozen in the run's folder


def test_a_law_of_an_earlier_state_of_the_text_is_used_with_a_warning(ground, home, tmp_path):
    texts(tmp_path / "texts")
    recipe = recipe_of(tmp_path / "texts")
    law = fit_law(ground, all_finished(ground)).model_copy(update={"paths": (str(tmp_path / "texts"),), "corpus": "before"})
    keep_law(law)
    found = find_law(recipe)
    assert "the text has changed since" in found.source and found.noise > law.noise
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"context": 512})})
    assert "fitted with context 64 (this recipe: 512), so the interval is wider" in find_law(other).source


def test_law_files_that_cannot_be_used_are_refused_in_a_sentence(ground, home):
    law = fit_law(ground, all_finished(ground))
    recipe, path = recipe_of(home / "texts"), law_path(law.paths, law.corpus, law.pattern)
    path.parent.mkdir(parents=True, exist_ok=True)  # whichever test runs first
    try:
        path.write_text(law.model_copy(update={"corpus": "another"}).model_dump_json(), encoding="utf-8")
        with pytest.raises(RunError, match=r"is the law of another corpus .* Delete it, or run hagane ladder"):
            find_law(recipe)
        for broken in ("{", '{"format": 1}', law.model_dump_json()[:-200]):
            path.write_text(broken, encoding="utf-8")
            with pytest.raises(RunError, match=r"is damaged or of another version .* run hagane ladder again\.$"):
                find_law(recipe)
    finally:
        path.unlink()
    assert path.parent == law_folder() and math.isfinite(law.noise)


def test_another_target_is_another_design_and_has_the_whole_budget_once_more(home, tmp_path, monkeypatch):
    monkeypatch.setattr(design_module, "FEWEST_TOKENS", 2000)
    monkeypatch.setattr(design_module, "FEWEST_STEPS", 8)
    recipe = recipe_of(home / "texts")
    with create(tmp_path, recipe, "", MACHINE, (), started=time.monotonic(), say=lambda text: None) as run:
        walk(run, until="tokenizer", report=False)
        first = _design(ground_of(run), None)
    with create(tmp_path, recipe, "", MACHINE, (), started=time.monotonic() - 80, say=lambda text: None) as run:
        assert _design(ground_of(run), None) == first and run.clock.spent() > 80
    with create(tmp_path, recipe, "", MACHINE, (), started=time.monotonic(), say=lambda text: None) as run:
        other = _design(ground_of(run), 1e6)
        assert other.key != first.key and other.expected_deviation > first.expected_deviation and run.clock.spent() < 40
        assert _design(ground_of(run), 1e6) == other


@pytest.mark.parametrize(("command", "works"), [("ladder", "hagane.measure.ladder.climb"), ("mix", "hagane.measure.mix.find")])
def test_a_target_of_flops_reaches_the_command_as_a_time(home, tmp_path, monkeypatch, capsys, command, works):
    given = []

    def asked(run, seconds):
        given.append(seconds)
        raise RecipeError("enough")

    monkeypatch.setattr(works, asked)
    monkeypatch.setattr(
        "sys.argv",
        ["hagane", command, "nordic", "--corpus", str(home / "texts"), "--budget", "10min", "--target", "1e17FLOP", "--out", str(tmp_path / "run")],
    )
    with pytest.raises(SystemExit):
        cli.main()
    assert "enough" in capsys.readouterr().err and given[0] > 600


def test_a_budget_of_tokens_and_a_corpus_that_is_too_small_are_refused(home, tmp_path):
    with opened(home, tmp_path / "small") as run, pytest.raises(RecipeError, match="smallest run of a ladder reads"):
        climb(run)
    with opened(home, tmp_path / "tokens", "300000tokens") as run, pytest.raises(RecipeError, match="bounded by time, and a budget of 300000tokens is not"):
        climb(run)


@pytest.mark.parametrize(
    ("alone", "reason"), [(True, "no text but generated problems, .* Give text with --corpus"), (False, r"the corpus has 0\.\d+ MB of text and the smallest")]
)
def test_generated_problems_are_no_text_to_climb_on(home, tmp_path, alone, reason):
    """Alone they are refused before anything is read, and beside a little text they do not count as text."""
    recipe, problems = recipe_of(home / "texts"), Source(name="problems", path=(PROBLEMS,))
    corpus = recipe.corpus.model_copy(update={"sources": (problems,) if alone else (*recipe.corpus.sources, problems), "sample_bytes": 3_000_000})
    recipe = recipe.model_copy(update={"corpus": corpus})
    with create(tmp_path / "run", recipe, "", MACHINE, (), started=time.monotonic(), say=lambda text: None) as run, pytest.raises(RecipeError, match=reason):
        climb(run)
    assert (tmp_path / "run" / "corpus").exists() != alone


@pytest.mark.slow
def test_the_whole_ladder_ends_in_time_and_again_only_fits(home, tmp_path, monkeypatch):
    """The machine is said to be slow, so that what is planned for half a minute takes a few seconds."""
    monkeypatch.setattr(design_module, "FEWEST_TOKENS", 2000)
    monkeypatch.setattr(design_module, "FEWEST_STEPS", 8)
    slow, said = MACHINE.model_copy(update={"matmul_flops": 3e10}), []

    def run():
        recipe = recipe_of(home / "texts", "90s")
        return create(tmp_path / "run", recipe, "", slow, (), started=time.monotonic(), say=said.append)

    with run() as opened_run:
        first = climb(opened_run, 600.0)
        assert opened_run.clock.spent() < 90
    assert first.fit.runs >= 6 and (tmp_path / "run" / "ladder" / "law.json").exists()
    assert any("to go" in line for line in said) and not list((tmp_path / "run" / "ladder").glob("text-*"))
    said.clear()
    with run() as opened_run:
        again = climb(opened_run, 600.0)
    assert again.constants == first.constants
    assert sum("finished before" in line for line in said) == first.fit.runs
