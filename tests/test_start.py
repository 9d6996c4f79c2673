"""A run that goes on from a published checkpoint: its shape, weights and tokenizer, and what it was worth before."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from hagane.hosts import HOSTS
from hagane.release.huggingface import write_config, write_weights
from hagane.tokenizer.bpe import cut
from hagane.tokenizer.save import save_for_transformers
from toy import hagane, write_recipe
from toy_models import toy_config, toy_decoder, toy_tokenizer

QUICK = ("--set", "train.rows=16", "--set", "release.gguf=false")
VOCABULARY = 330  # with unused ids, as published vocabularies have them


def quiet_weights():
    """Weights that know nothing and are sure of nothing, so that no text is stranger to them than chance."""
    parameters = dict(toy_decoder("experts", vocabulary_size=VOCABULARY).named_parameters())
    return {name: tensor * 0.05 if "embed" in name else tensor for name, tensor in parameters.items()}


def publish(folder, state):
    tokenizer, config = cut(toy_tokenizer(), VOCABULARY), toy_config("experts", vocabulary_size=VOCABULARY)
    special = {"eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    write_config(folder, HOSTS["qwen3_moe"].config_to_host(config, special), tokenizer, "float32")
    write_weights(folder, dict(HOSTS["qwen3_moe"].weights.weights_to_host(state, config)))
    save_for_transformers(tokenizer, folder, config.context)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published qwen3_moe, as other people's tools write it."""
    return publish(tmp_path_factory.mktemp("published"), quiet_weights())


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """The same with weights that are sure of something else than text."""
    return publish(tmp_path_factory.mktemp("stranger"), dict(toy_decoder("experts", vocabulary_size=VOCABULARY).named_parameters()))


@pytest.fixture(scope="module")
def finished(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    # the recipe says dense: [model] of a file yields to the checkpoint
    settings = ("--set", "tune.share=0", "--set", "train.learning_rate=0.01", *QUICK)
    done = hagane("run", write_recipe(folder), "--from", published, "--out", folder / "run", *settings)
    return folder / "run", done


def facts(run, stage):
    return json.loads((run / stage / "facts.json").read_text())["facts"]


@pytest.mark.slow
def test_shape_and_tokenizer_are_those_of_the_checkpoint_and_the_plan_says_so(finished, published):
    run, _ = finished
    plan = facts(run, "plan")
    assert plan["vocabulary_size"] == VOCABULARY and plan["model"]["width"] == 32 and plan["model"]["layers"][0]["ffn"]["kind"] == "experts"
    assert str(published) in plan["reasons"]["model"] and "trained from nothing" in plan["reasons"]["law"]
    warmup = plan["phases"]["pretrain"][0]["warmup_steps"]
    assert warmup >= 1, "the learning rate is warmed up again"
    for stage in ("encode", "release/huggingface"):
        ours, theirs = (json.loads((place / "tokenizer.json").read_text()) for place in (run / stage, published))
        assert ours["model"] == theirs["model"] and ours["added_tokens"] == theirs["added_tokens"]


@pytest.mark.slow
def test_what_the_weights_were_worth_before_is_measured_and_reported(finished):
    run, _ = finished
    evaluated = facts(run, "evaluate")
    before, after = evaluated["start"]["before"], evaluated["bits_per_byte"]
    assert before.keys() == after.keys() and all(after[tag]["value"] < before[tag]["value"] for tag in after), "toy weights are worse than any training"
    assert all(evaluated["start"]["change"][tag]["value"] == pytest.approx(after[tag]["value"] - before[tag]["value"]) for tag in after)
    assert "forgot and gained" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_release_is_of_the_same_host_and_no_copy_of_the_weights_is_left(finished):
    run, done = finished
    assert "qwen3_moe: transformers agrees" in done.stderr and facts(run, "release")["host"] == "qwen3_moe"
    assert not [path.name for path in (run / "pretrain").iterdir() if "start" in path.name]


@pytest.mark.slow
def test_training_begins_with_the_weights_of_the_checkpoint(published, tmp_path):
    still = ("--set", "train.learning_rate=1e-12", "--set", "train.weight_decay=0", "--set", "tune.share=0", *QUICK)
    hagane("run", write_recipe(tmp_path), "--from", published, "--out", tmp_path / "run", "--until", "pretrain", *still)
    weights = load_file(tmp_path / "run" / "pretrain" / "weights.safetensors")
    expected = quiet_weights()
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_unchanged_is_skipped_and_another_checkpoint_is_not(finished, published, tmp_path):
    run, _ = finished
    assert hagane("resume", run).stderr.count("unchanged") == 11
    weights = load_file(published / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, published / "model.safetensors")
    try:
        again = hagane("resume", run, check=False, timeout=300)
    finally:
        save_file(weights, published / "model.safetensors", metadata={"format": "pt"})
    assert again.returncode == 0 and again.stderr.count("unchanged") == 1, "only the corpus does not depend on it"


@pytest.fixture(scope="module")
def templated(tmp_path_factory):
    """The same with a template of its own."""
    folder = publish(tmp_path_factory.mktemp("templated"), quiet_weights())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": TEMPLATE}))
    return folder


TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
KNOWN = ("--set", 'start.languages=["en"]')


@pytest.fixture(scope="module")
def extended(templated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended")
    settings = ("--set", "tune.share=0", *KNOWN, "--set", "start.new_tokens=60", "--set", "start.replay_share=0.4", "--set", "start.learning_rate_ratio=0.5")
    done = hagane("run", write_recipe(folder), "--from", templated, "--out", folder / "run", *settings, "--set", "start.rewarm_share=0.1", *QUICK)
    return folder / "run", done


@pytest.mark.slow
def test_new_tokens_are_appended_and_the_plan_says_what_becomes_of_the_start(extended):
    run, _ = extended
    plan, tokenizer = facts(run, "plan"), facts(run, "tokenizer")
    assert plan["vocabulary_size"] == plan["model"]["vocabulary_size"] == VOCABULARY + 60 and tokenizer["new_tokens"] == 60
    pieces = json.loads((run / "encode" / "pieces.json").read_text())
    assert sorted(map(int, pieces)) == list(range(VOCABULARY, VOCABULARY + 60))
    assert all(tokenizer["bytes_per_token"][str(VOCABULARY + 60)][tag] >= value for tag, value in tokenizer["bytes_per_token_at_start"].items())
    assert tokenizer["bytes_per_token"][str(VOCABULARY + 60)]["ja"] > 1.1 * tokenizer["bytes_per_token_at_start"]["ja"]
    assert "60 new tokens" in plan["reasons"]["vocabulary"] and "40% replay" in plan["reasons"]["mixture"]
    assert "warmed up again to 0.5 times" in plan["reasons"]["learning_rate"]
    (phase,) = plan["phases"]["pretrain"]
    assert sum(rate for shard, rate in phase["mixture"].items() if shard.endswith(".en")) == pytest.approx(0.4)
    assert phase["warmup_steps"] == round(0.1 * phase["num_steps"])


@pytest.mark.slow
def test_forgetting_and_gain_are_measured_reported_and_released(extended):
    run, done = extended
    start = facts(run, "evaluate")["start"]
    assert start["languages"] == ["en"] and start["known"]["value"] == pytest.approx(start["change"]["en"]["value"])
    assert start["new"]["low"] <= start["new"]["value"] <= start["new"]["high"] < 0
    assert "against the start: languages it knew " in done.stderr and "new languages -" in done.stderr
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "mean of the new ones" in page and "forgetting above 0" in page
    assert "qwen3_moe: transformers agrees" in done.stderr
    config = json.loads((run / "release" / "huggingface" / "config.json").read_text())
    assert config["vocab_size"] == VOCABULARY + 60


@pytest.mark.slow
def test_a_chat_template_stays_where_no_conversations_are_learned(extended, finished):
    for run in (extended[0], finished[0]):
        settings = json.loads((run / "release" / "huggingface" / "tokenizer_config.json").read_text())
        assert (settings["chat_template"] == TEMPLATE) == (run == extended[0])


@pytest.mark.slow
def test_a_change_of_replay_makes_the_plan_anew_and_keeps_the_tokenizer(extended, templated):
    run, _ = extended
    settings = ("--set", "tune.share=0", *KNOWN, "--set", "start.new_tokens=60", "--set", "start.learning_rate_ratio=0.4", "--set", "start.replay_share=0.4")
    recipe = write_recipe(run.parent)
    again = hagane("run", recipe, "--from", templated, "--out", run, "--until", "plan", *settings, "--set", "start.rewarm_share=0.1", *QUICK)
    assert again.stderr.count("unchanged") == 2 and "plan: settings or inputs changed" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("known", "message"), [
    (KNOWN, "bits for a token of text in en, and chance needs 8.4: tokenizer.json is that of another model"),
    ((), "and chance needs 8.4: tokenizer.json and weights do not belong together"),
])  # fmt: skip
def test_languages_that_it_cannot_know_are_one_sentence(stranger, tmp_path, known, message):
    settings = ("--set", "tune.share=0", *known, *QUICK, "--until", "plan")
    done = hagane("run", write_recipe(tmp_path), "--from", stranger, "--out", tmp_path / "run", *settings, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "run" / "plan").exists() and "Traceback" not in done.stderr


def test_settings_of_going_on_need_something_to_go_on_from(tmp_path):
    done = hagane("run", write_recipe(tmp_path), "--out", tmp_path / "run", *KNOWN, check=False)
    assert done.returncode == 2 and "start.languages says how to go on from a checkpoint, and none is given" in done.stderr
    done = hagane("run", write_recipe(tmp_path), "--out", tmp_path / "run", "--set", "start.new_tokens=-1", check=False)
    assert done.returncode == 2 and "a vocabulary cannot lose tokens" in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    (
        (("--set", "model.size.width=64"), "--set model.size.width contradicts start.from"),
        (("--set", "tokenizer.candidates=[400]"), "--set tokenizer.candidates contradicts start.from"),
        (("--set", "train.context=256"), "max_position_embeddings"),
    ),
)
def test_what_contradicts_the_checkpoint_is_one_sentence(published, tmp_path, settings, message):
    done = hagane("run", write_recipe(tmp_path), "--from", published, "--out", tmp_path / "run", *settings, check=False)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_checkpoint_stops_the_run_before_anything_is_read(published, tmp_path):
    (tmp_path / "model").mkdir()
    for path in published.iterdir():
        data = path.read_bytes()
        (tmp_path / "model" / path.name).write_bytes(data[: len(data) // 2] if path.suffix == ".safetensors" else data)
    done = hagane("run", write_recipe(tmp_path), "--from", tmp_path / "model", "--out", tmp_path / "run", check=False)
    assert done.returncode == 2 and "model.safetensors is damaged or ends too early" in done.stderr
    assert not (tmp_path / "run").exists()
