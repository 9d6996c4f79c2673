"""A published folder is read whole, or refused in one sentence that names the file, field or tensor."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from hagane.errors import HaganeError
from hagane.hosts import HOSTS, checkpoint
from hagane.hosts.checkpoint import read_chat_template, read_published, read_tokenizer
from hagane.model.config import ExpertsConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.decoder import Decoder
from hagane.release.huggingface import write_config, write_weights
from toy_hosts import CONFIGS, masters
from toy_models import toy_config, toy_decoder, toy_tokenizer

KINDS = {"qwen3_moe": ("experts", {}), "qwen3": ("dense", {}), "llama": ("dense", {"qk_norm": False, "tied": False})}


@pytest.fixture(params=KINDS)
def host(request):
    return request.param


def write(folder, host="qwen3", max_bytes=1 << 30):
    kind, settings = KINDS[host]
    folder.mkdir()
    state, config, tokenizer = dict(toy_decoder(kind, **settings).named_parameters()), toy_config(kind, **settings), toy_tokenizer()
    special = {"eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    write_config(folder, HOSTS[host].config_to_host(config, special), tokenizer, "float32")
    write_weights(folder, dict(HOSTS[host].weights.weights_to_host(state, config)), max_bytes)
    tokenizer.save(str(folder / "tokenizer.json"))
    return state, config


def test_what_was_written_is_read_again(tmp_path, host):
    state, config = write(tmp_path / "model", host, max_bytes=20_000)
    published = read_published(tmp_path / "model")
    assert published.host.name == host and published.config.layers[0].mixer == config.layers[0].mixer
    assert published.state.keys() == state.keys() and all(torch.equal(published.state[name], state[name]) for name in state)
    assert read_tokenizer(tmp_path / "model").to_str() == toy_tokenizer().to_str()


def test_selection_biases_are_read_with_the_weights(tmp_path):
    mixer = LatentConfig(num_heads=4, query_rank=12, kv_rank=16, nope_dim=8, rope_dim=4, value_dim=8)
    ffn = ExpertsConfig(num_experts=4, top_k=2, hidden=16, score="sigmoid", balance="bias", shared_hidden=16)
    config = ModelConfig(vocabulary_size=61, width=24, layers=(LayerConfig(mixer=mixer, ffn=ffn),) * 2, context=64)
    decoder = Decoder(config)
    decoder.init_weights(0)
    state = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    state |= {name: torch.arange(4.0) / 10 for name in decoder.selection_biases()}
    host = HOSTS["deepseek_v3"]
    (tmp_path / "config.json").write_text(json.dumps(host.config_to_host(config, {})))
    write_weights(tmp_path, dict(host.weights.weights_to_host(state, config)))
    read = read_published(tmp_path).state
    assert read.keys() == state.keys() and sum(name.endswith("bias_E") for name in read) == 2
    assert all(torch.equal(read[name], state[name]) for name in state)


def edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def field(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def tokenizer(folder, change):
    """Without merges: they may not name a token that is gone."""
    description = json.loads((folder / "tokenizer.json").read_text())
    description["model"]["merges"] = []
    change(description)
    (folder / "tokenizer.json").write_text(json.dumps(description))


def truncate(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) * 2 // 3])


NORM, UP = "model.norm.weight", "model.layers.0.mlp.up_proj.weight"
DAMAGES = {
    "layers counted twice": (lambda f: field(f, num_hidden_layers=1), "layer_types names 2 layers, num_hidden_layers = 1"),
    "other shape": (lambda f: edit(f, lambda t: t.update({"model.norm.weight": torch.ones(5)})), r"norm.weight has shape \(5,\)"),
    "parts that do not fit": (lambda f: edit(f, lambda t: t.update({"model.layers.0.mlp.up_proj.weight": torch.ones(48, 5)})), "shapes"),
    "not a number": (lambda f: edit(f, lambda t: t["model.embed_tokens.weight"].fill_(float("nan"))), "embedding.weight holds"),
    "truncated": (truncate, "model.safetensors is damaged or ends too early"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no \\*.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json cannot be read"),
    "contradiction": (lambda f: field(f, num_key_value_heads=3), "num_kv_heads"),
    "unknown host": (lambda f: field(f, model_type="mamba"), "mamba"),
    "FP8 by its description": (lambda f: field(f, quantization_config={"quant_method": "fp8"}), "config.json: quantization_config"),
    "four bits by its description": (lambda f: field(f, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "quantization_config"),
    "a whole-numbered norm": (lambda f: edit(f, lambda t: t.update({NORM: torch.ones(32, dtype=torch.int64)})), f"tensor {NORM} is of type I64"),
    "an FP8 matrix": (lambda f: edit(f, lambda t: t.update({UP: t[UP].to(torch.float8_e4m3fn)})), f"tensor {UP} is of type F8_E4M3"),
    "float64": (lambda f: edit(f, lambda t: t.update({UP: t[UP].double()})), f"tensor {UP} is of type F64"),
}  # fmt: skip


def one_layer_fewer(folder):
    """As config.json says; the weights keep it."""
    description = json.loads((folder / "config.json").read_text())
    kinds = {name: description[name][:-1] for name in ("layer_types", "mlp_layer_types") if name in description}
    field(folder, num_hidden_layers=description["num_hidden_layers"] - 1, **kinds)


BIAS = "model.layers.0.self_attn.q_proj.bias"
WHOLE_OR_NOT = {
    "missing tensor": (lambda f: edit(f, lambda t: t.pop(max(name for name in t if ".layers.1." in name))), r"has no tensor model\.layers\.1\."),
    "extra tensor": (lambda f: edit(f, lambda t: t.update({BIAS: torch.zeros(3)})), f"tensor {BIAS} is not part of a .* 1 such"),
    "extra layer": (one_layer_fewer, r"tensor model\.layers\.\d\.\S+ is not part of a .* such in all"),
}  # fmt: skip


def write_host(folder, host):
    state = masters(CONFIGS[host])
    (folder / "config.json").write_text(json.dumps(HOSTS[host].config_to_host(CONFIGS[host], {})))
    write_weights(folder, dict(HOSTS[host].weights.weights_to_host(state, CONFIGS[host])))
    return state


@pytest.mark.parametrize("damage", WHOLE_OR_NOT)
@pytest.mark.parametrize("host", CONFIGS)
def test_of_every_host_what_is_missing_or_left_over_is_named(tmp_path, host, damage):
    change, message = WHOLE_OR_NOT[damage]
    write_host(tmp_path, host)
    change(tmp_path)
    with pytest.raises(HaganeError, match=message) as error:
        read_published(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(), (5,)], ids=["no dimension", "one dimension"])
@pytest.mark.parametrize("host", CONFIGS)
def test_of_every_host_a_tensor_with_too_few_dimensions_is_one_sentence(tmp_path, monkeypatch, host, shape):
    write_host(tmp_path, host)
    whole = load_file(tmp_path / "model.safetensors")
    for name in whole:
        monkeypatch.setattr(checkpoint, "_tensors", lambda folder, name=name: {**whole, name: torch.ones(shape)})
        with pytest.raises(HaganeError, match="shape") as error:
            read_published(tmp_path)
        assert "\n" not in str(error.value), name


@pytest.mark.parametrize(("name", "text"), [("chat_template.jinja", b"{{ \xff }}"), ("tokenizer_config.json", b"{")])
def test_a_damaged_chat_template_is_named(tmp_path, name, text):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(HaganeError, match=rf"{name} cannot be read .*: fetch it again") as error:
        read_chat_template(tmp_path)
    assert "\n" not in str(error.value)


UNUSED = {
    "axk1": ("model.layers.0.post_mlp_layernorm.weight", "model.layers.3.eh_proj.weight", "model.layers.3.mlp.experts.0.up_proj.weight"),
    "qwen3_next": ("mtp.fc.weight", "mtp.layers.0.input_layernorm.weight"),
}


@pytest.mark.parametrize("host", UNUSED)
def test_what_published_files_hold_beside_the_model_is_known(tmp_path, host):
    state = write_host(tmp_path, host)
    edit(tmp_path, lambda tensors: tensors.update({name: torch.zeros(3) for name in UNUSED[host]}))
    published = read_published(tmp_path)
    read = published.state
    assert read.keys() == state.keys() and all(torch.allclose(read[name], state[name], atol=1e-6) for name in state)
    assert set(UNUSED[host]) <= set(published.left), "and told"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_read(tmp_path, dtype):
    state, _ = write(tmp_path / "model")
    edit(tmp_path / "model", lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    read = read_published(tmp_path / "model").state
    assert all(torch.equal(read[name], tensor.to(dtype).float()) for name, tensor in state.items())


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_the_weights_is_named(tmp_path, damage):
    change, message = DAMAGES[damage]
    write(tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(HaganeError, match=message) as error:
        read_published(tmp_path / "model")
    assert "\n" not in str(error.value)


def test_a_slice_that_the_index_names_and_is_not_there_is_named(tmp_path):
    write(tmp_path / "model", max_bytes=20_000)
    (lost, *_) = sorted((tmp_path / "model").glob("model-00002*.safetensors"))
    lost.unlink()
    with pytest.raises(HaganeError, match=lost.name):
        read_published(tmp_path / "model")


def test_a_tied_head_that_is_written_all_the_same_is_no_surplus(tmp_path):
    write(tmp_path / "model")
    edit(tmp_path / "model", lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    assert "head.weight" not in read_published(tmp_path / "model").state


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "damaged"),
        (lambda f: field(f, vocab_size=300), "vocab_size = 300"),
        (lambda f: field(f, vocab_size=900), "ends at id 319, and config.json says vocab_size = 900"),
        (lambda f: field(f, eos_token_id=7), "eos_token_id"),
        (lambda f: (f / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|eot|>"}}'), "has no token <|eot|>"),
        (lambda f: (f / "tokenizer_config.json").write_text("{"), "tokenizer_config.json cannot be read"),
        (lambda f: (f / "tokenizer_config.json").write_text("[]"), "is not a table of settings"),
        (lambda f: tokenizer(f, lambda d: d.update(pre_tokenizer=None)), "does not turn text into bytes"),
        (lambda f: tokenizer(f, lambda d: d["model"].update(dropout=0.1)), "dropout"),
        (lambda f: tokenizer(f, lambda d: d["model"]["vocab"].pop("z")), "lacks byte 122"),
        (lambda f: tokenizer(f, lambda d: d.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"})), "its model is WordLevel"),
    ),
)
def test_a_tokenizer_of_another_model_is_refused(tmp_path, change, message):
    write(tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(HaganeError, match=message) as error:
        read_tokenizer(tmp_path / "model")
    assert "\n" not in str(error.value)
