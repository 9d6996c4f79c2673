"""What is released loads with the transformers that vLLM pins, too: 5.19, where ours is newer.

Two versions cannot be in one process or environment, so this one needs a folder, which `make test-slow` fills and names in HAGANE_OTHER_TRANSFORMERS.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hagane.engine.load import load_huggingface
from hagane.model.config import LayerConfig
from hagane.model.extend import extended
from hagane.model.sequence import Sequence
from hagane.release.huggingface import release_huggingface
from hagane.release.verify import conversations
from hagane.tokenizer.chat import render
from hagane.tokenizer.save import save_for_transformers
from toy_hosts import CONFIGS, DELTA, DENSE, GATED, NORMED, SHARED, masters, model
from toy_models import TEXTS, toy_tokenizer

transformers = pytest.importorskip("transformers")
OTHER = Path(os.environ.get("HAGANE_OTHER_TRANSFORMERS") or "nowhere")
SHORT = {host: config.model_copy(update={"context": 24}) for host, config in CONFIGS.items() if host != "axk1"}  # that one has YaRN already
MODELS = {
    **CONFIGS,
    **{f"{host} yarn": extended(config, 8.0, "yarn") for host, config in SHORT.items()},
    **{f"{host} linear": extended(SHORT[host], 8.0, "linear") for host in ("llama", "glm4_moe", "deepseek_v3")},
    **{f"{host} tied": CONFIGS[host].model_copy(update={"tied": True}) for host in ("llama", "deepseek_v3", "afmoe")},
    "qwen3 windows": model([LayerConfig(mixer=mixer, ffn=DENSE) for mixer in (NORMED.model_copy(update={"window": 6}), NORMED)]),
    "qwen3_next dense": model([LayerConfig(mixer=mixer, ffn=ffn) for mixer, ffn in ((DELTA, DENSE), (GATED, SHARED))]),
}


def released(folder, name):
    """A folder, and what it must be read as."""
    save_for_transformers(toy_tokenizer(), folder / "encode", 192)
    release = folder / name.replace(" ", "-")
    release_huggingface(masters(MODELS[name]), MODELS[name], folder / "encode", release, "float32")
    ours, _ = load_huggingface(release)
    for indexer in ours.indexers():
        indexer.library_ties = True
    text, messages = TEXTS[0] + TEXTS[2], conversations()[-1]
    ids = toy_tokenizer().encode(text).ids
    with torch.inference_mode():
        logits = ours.head.logits(ours(torch.tensor([ids]), Sequence.plain(1, len(ids))).hidden_BTD)[0]
    expected = {"text": text, "ids": ids, "logits": logits.tolist(), "messages": messages, "rendered": [render(messages, on) for on in (True, False)]}
    (release / "expected.json").write_text(json.dumps(expected))
    return release


def read_elsewhere(folders):
    command = [sys.executable, Path(__file__).with_name("other_transformers.py"), *folders]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(OTHER)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not OTHER.is_dir(), reason="HAGANE_OTHER_TRANSFORMERS names no folder; `make test-slow` makes one where it can fetch that version")
def test_every_host_is_read_the_same(tmp_path):
    folders = {name: released(tmp_path, name) for name in MODELS}
    found = read_elsewhere(folders.values())
    assert found["transformers"] != transformers.__version__, "another one than every other test asks"
    assert found["transformers"] == next(OTHER.glob("transformers-*.dist-info")).name.split("-")[1].removesuffix(".dist")
    for name, folder in folders.items():
        report = found["folders"][str(folder)]
        assert report["model_type"] == name.split()[0] and report["odd"] == {} and report["ids"] and report["template"], (name, report)
        assert report["gap"] < 1e-4, (name, report)
