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


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published qwen3_moe, as other people's tools write it."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer, settings = cut(toy_tokenizer(), VOCABULARY), {"vocabulary_size": VOCABULARY}
    decoder, config = toy_decoder("experts", **settings), toy_config("experts", **settings)
    special = {"eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    write_config(folder, HOSTS["qwen3_moe"].config_to_host(config, special), tokenizer, "float32")
    write_weights(folder, dict(HOSTS["qwen3_moe"].weights.weights_to_host(dict(decoder.named_parameters()), config)))
    save_for_transformers(tokenizer, folder, config.context)
    return folder


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
    before, after = evaluated["start_bits_per_byte"], evaluated["bits_per_byte"]
    assert before.keys() == after.keys() and all(after[tag]["value"] < before[tag]["value"] for tag in after), "toy weights are worse than any training"
    assert "bits per byte at the start" in (run / "report.html").read_text(encoding="utf-8")


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
    expected = dict(toy_decoder("experts", vocabulary_size=VOCABULARY).named_parameters())
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_unchanged_is_skipped_and_another_checkpoint_is_not(finished, published, tmp_path):
    run, _ = finished
    assert hagane("resume", run).stderr.count("unchanged") == 10
    weights = load_file(published / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, published / "model.safetensors")
    try:
        again = hagane("resume", run, check=False, timeout=300)
    finally:
        save_file(weights, published / "model.safetensors", metadata={"format": "pt"})
    assert again.returncode == 0 and again.stderr.count("unchanged") == 1, "only the corpus does not depend on it"


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
    assert not (tmp_path / "run" / "corpus").exists()
