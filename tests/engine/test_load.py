import json

import pytest
import torch

from hagane.engine.generate import generate
from hagane.engine.load import build_decoder, load_config, load_decoder, load_huggingface
from hagane.errors import RunError
from toy_models import save_model, toy_decoder


@pytest.mark.parametrize("kind", ("dense", "experts"))
def test_a_saved_model_comes_back(tmp_path, kind):
    decoder = toy_decoder(kind)
    loaded, config = load_decoder(save_model(tmp_path, decoder))
    assert config == decoder.config
    assert all(torch.equal(one, two) for one, two in zip(decoder.parameters(), loaded.parameters(), strict=True))
    assert generate(loaded, [[1, 2, 3]], 5, []) == generate(decoder, [[1, 2, 3]], 5, [])


def test_bf16_keeps_norms_and_routers_in_float32(tmp_path):
    loaded, _ = load_decoder(save_model(tmp_path, toy_decoder("experts")), dtype=torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in loaded.named_parameters()}
    assert kinds["norm.weight"] == kinds["layers.0.ffn.router.weight"] == torch.float32
    assert kinds["embedding.weight"] == kinds["layers.0.ffn.gate_up"] == torch.bfloat16


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(RunError, match=r"model\.json cannot be read"):
        load_decoder(tmp_path)
    save_model(tmp_path, toy_decoder())
    (tmp_path / "weights.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(RunError, match=r"weights\.safetensors is damaged"):
        load_decoder(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(RunError, match=r"weights\.safetensors is missing"):
        load_decoder(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(RunError, match="not a model description"):
        load_config(tmp_path)
    with pytest.raises(RunError, match="not a complete Hugging Face folder"):
        load_huggingface(tmp_path)


def test_weights_of_another_model_are_refused():
    state = dict(toy_decoder("experts").named_parameters())
    with pytest.raises(RunError, match="do not belong to this model"):
        build_decoder(toy_decoder("dense").config, state)
    other = toy_decoder("dense", vocabulary_size=330)
    with pytest.raises(RunError, match=r"embedding\.weight"):
        build_decoder(toy_decoder("dense").config, dict(other.named_parameters()))


def test_descriptions_are_plain_json(tmp_path):
    save_model(tmp_path, toy_decoder())
    assert json.loads((tmp_path / "model.json").read_text())["width"] == 32
