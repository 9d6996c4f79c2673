"""A checkpoint of every host is gone on with: its shape and weights are taken, all of them learn, and a release of the same host comes out."""

import json

import pytest
import torch
from safetensors.torch import load_file

from hagane.release.huggingface import release_huggingface
from hagane.tokenizer.save import save_for_transformers
from toy import hagane, write_recipe
from toy_hosts import CONFIGS, masters
from toy_models import toy_tokenizer

pytest.importorskip("transformers")
SETTINGS = (
    "budget=204800tokens", "tune.share=0", "train.rows=32", "train.context=64", "train.learning_rate=0.0002", "evaluate.parallel_sentences=1",
    "evaluate.max_new_tokens=1", "evaluate.max_bytes=1000", "release.gguf=false", "release.dtype=float32",
)  # fmt: skip


def facts(run, stage):
    return json.loads((run / stage / "facts.json").read_text())["facts"]


@pytest.mark.slow
@pytest.mark.parametrize("host", CONFIGS)
def test_a_run_goes_on_from_a_checkpoint_of_every_host(tmp_path, host):
    start = masters(CONFIGS[host])
    save_for_transformers(toy_tokenizer(), tmp_path / "encode", CONFIGS[host].context)
    release_huggingface(start, CONFIGS[host], tmp_path / "encode", tmp_path / "published", "float32")
    run, settings = tmp_path / "run", [part for setting in SETTINGS for part in ("--set", setting)]
    hagane("run", write_recipe(tmp_path), "--from", tmp_path / "published", "--out", run, *settings, timeout=600)

    planned = facts(run, "plan")["model"]
    assert [layer["mixer"] for layer in planned["layers"]] == [layer.mixer.model_dump() for layer in CONFIGS[host].layers]
    weights = load_file(run / "pretrain" / "weights.safetensors")
    assert weights.keys() == start.keys()
    assert [name for name, tensor in weights.items() if torch.equal(tensor, start[name])] == []
    # a small rate leads a little way from where training began; matrices of initial weights would be 1.4 times their own size away
    far = {name: float((tensor - start[name]).norm() / start[name].norm()) for name, tensor in weights.items() if not name.endswith("bias_E")}
    assert max(far.values()) < 0.4, max(far, key=far.__getitem__)

    evaluated = facts(run, "evaluate")
    before, after = evaluated["start"]["before"], evaluated["bits_per_byte"]
    assert before.keys() == after.keys() and all(after[tag]["value"] < before[tag]["value"] for tag in after)
    assert facts(run, "release")["host"] == host  # compared with transformers before it counts
    configs = [json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "published", run / "release" / "huggingface")]
    assert configs[0] == configs[1]
