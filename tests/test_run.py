"""The main job at toy size: every stage, skipped when unchanged, done again when its settings change."""

import json

import pytest

from toy import SETTINGS, hagane, write_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    done = hagane("run", write_recipe(folder), "--out", folder / "run", *SETTINGS)
    return folder, done


def test_a_run_leaves_everything_a_user_needs(finished):
    folder, done = finished
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["run"] == str(folder / "run")
    for path in (
        "report.html",
        "plan.json",
        "recipe.toml",
        "environment.json",
        "release/huggingface/model.safetensors",
        "release/huggingface/tokenizer.json",
        "corpus/manifest.json",
    ):
        assert (folder / "run" / path).stat().st_size > 0, path


def test_training_on_text_does_not_wait_for_conversations(finished):
    folder, done = finished
    order = [line.split()[1] for line in done.stderr.splitlines() if line.strip()[:1].isdigit()]
    assert order.index("pretrain") < order.index("converse") < order.index("tune")
    facts = {stage: json.loads((folder / "run" / stage / "facts.json").read_text())["facts"] for stage in ("encode", "converse")}
    assert list(facts["encode"]["collections"]) == ["text"]
    assert list(facts["converse"]["collections"]) == ["tune"] and facts["converse"]["collections"]["tune"]["tokens"] > 0


def test_an_unchanged_run_does_nothing(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("facts.json")}
    again = hagane("resume", folder / "run")
    assert again.stderr.count("unchanged") == 11
    assert {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("facts.json")} == before


def test_status_and_chat_answer(finished):
    folder, _ = finished
    status = hagane("status", folder / "run")
    assert "pretrain" in status.stdout
    answer = hagane("chat", folder / "run", "--prompt", "1 + 1?")
    assert answer.returncode == 0


def test_a_changed_setting_redoes_what_depends_on_it_and_keeps_the_old(finished, tmp_path):
    folder, _ = finished
    recipe = write_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("items_per_cell = 1", "items_per_cell = 2"))
    changed = hagane("run", recipe, "--out", folder / "run", *SETTINGS, "--until", "evaluate")
    assert changed.stderr.count("unchanged") == 9  # everything up to tuning: nothing is trained again to be evaluated otherwise
    assert any((folder / "run" / "superseded").iterdir())
    facts = json.loads((folder / "run" / "evaluate" / "facts.json").read_text())["facts"]
    assert {row["total"] for row in facts["accuracy"]} == {2}


def test_a_changed_budget_makes_a_new_plan_and_trains_again(finished):
    folder, _ = finished
    changed = hagane("run", folder / "toy.toml", "--out", folder / "run", *SETTINGS, "--budget", "300000tokens", "--until", "pretrain")
    assert "pretrain   unchanged" not in changed.stderr and "encode     unchanged" not in changed.stderr
    assert list((folder / "run" / "superseded").glob("pretrain-*/weights.safetensors"))


def test_execution_settings_change_no_key(finished):
    folder, _ = finished
    recipe = folder / "toy.toml"
    done = hagane("run", recipe, "--out", folder / "other", *SETTINGS, "--until", "tokenizer")
    again = hagane("run", recipe, "--out", folder / "other", *SETTINGS, "--set", "execution.log_every=5", "--set", "corpus.workers=1", "--until", "tokenizer")
    assert done.returncode == 0 and again.stderr.count("unchanged") == 2


@pytest.mark.slow
def test_a_run_on_longer_and_longer_texts(tmp_path):
    """A curriculum, an extension of the model, tuning of what it became, numbers found again, and a release whose positions transformers reads."""
    recipe = write_recipe(tmp_path)
    longer = "context = 128\ncurriculum = [{context = 32, share = 0.4}, {context = 64, share = 0.2}]\n[extend]\nshare = 0.2\nfactor = 4\n[train]\n"
    head, _, rest = recipe.read_text().partition("[train]\ncontext = 128\nrows = 8\n")
    text = f"{head}[train]\nrows = 8\n{longer.removesuffix('[train]' + chr(10))}{rest}"
    recipe.write_text(f"{text}\n[evaluate.retrieval]\nlengths = [128, 512]\ndepths = 2\nitems = 1\n")
    run = tmp_path / "run"
    hagane("run", recipe, "--out", run, *SETTINGS)

    def lines(path):
        return [json.loads(line) for line in (run / path).read_text().splitlines()]

    told = [line for line in lines("pretrain/events.jsonl") if line["event"] == "phase"]
    assert [(line["context"], line["rows"]) for line in told] == [(32, 32), (64, 16), (128, 8)]
    assert lines("pretrain/metrics.jsonl")[-1]["loss"] < lines("pretrain/metrics.jsonl")[0]["loss"] - 0.5
    assert [json.loads((run / stage / "model.json").read_text())["context"] for stage in ("pretrain", "extend", "tune/supervised")] == [128, 512, 512]
    cells = json.loads((run / "evaluate/facts.json").read_text())["facts"]["retrieval"]
    assert {(cell["length"], cell["depth"]) for cell in cells} == {(128, 0.0), (128, 1.0), (512, 0.0), (512, 1.0)}
    config = json.loads((run / "release/huggingface/config.json").read_text())
    assert config["rope_parameters"]["rope_type"] == "yarn" and config["max_position_embeddings"] == 512
    assert "Long texts" in (run / "report.html").read_text()
    assert hagane("resume", run).stderr.count("unchanged") == 11


@pytest.mark.slow
def test_a_hybrid_run_is_planned_trained_and_released(tmp_path):
    """Gated DeltaNet and gated attention 3:1 from the recipe to a release that transformers agrees with."""
    pattern = ("deltas=3", "attention_gate=sigmoid", "rotary_share=0.25")
    settings = [part for value in pattern for part in ("--set", f"model.pattern.{value}")]
    hagane("run", write_recipe(tmp_path), "--out", tmp_path / "run", "--set", "model.size.width=64", *settings)
    config = json.loads((tmp_path / "run" / "release" / "huggingface" / "config.json").read_text())
    assert config["model_type"] == "qwen3_next" and config["layer_types"] == ["linear_attention"] * 3 + ["full_attention"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "quickstart", "--budget", "5s"), "too small to learn anything"),
        (("run", "quikstart"), "Did you mean quickstart"),
        (("run", "nordic", "--budget", "5min", "--corpus", "nowhere"), "nowhere"),
        (("run", "quickstart", "--from", "nowhere"), "config.json cannot be read"),
        (("run", "llm-jp-4-8b", "--budget", "5min"), "names no corpus"),
        (("run", "quickstart", "--set", 'tune.families=["chess"]'), "problems are made for"),
        (("status", "nowhere"), "there is no run folder"),
        (("resume", "nowhere"), "there is no run folder"),
        (("recipe", "show", "quickstart", "--set", "train.contxt=1"), "Did you mean context"),
        (("run", "quickstart", "--set", "model.pattern.balance=bias", "--set", "model.pattern.ffn=experts"), "can hold"),
    ],
)
def test_bad_input_is_one_sentence_and_no_traceback(arguments, message, tmp_path):
    extra = ("--out", tmp_path / "run") if arguments[0] == "run" else ()
    done = hagane(*arguments, *extra, check=False)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_an_empty_corpus_folder_is_refused(tmp_path):
    (tmp_path / "texts").mkdir()
    done = hagane("run", "nordic", "--corpus", tmp_path / "texts", "--budget", "2min", "--out", tmp_path / "run", check=False)
    assert done.returncode == 2 and "is empty" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    done = hagane("run", "quickstart", "--out", tmp_path / "mine", check=False)
    assert done.returncode == 2 and "not empty and not a run folder" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
