import json
import sys

import pytest
import torch
from safetensors import safe_open

from hagane.engine.load import load_huggingface
from hagane.errors import RunError
from hagane.release import huggingface, verify
from hagane.release.huggingface import release_huggingface, write_weights
from hagane.tokenizer.chat import CHAT_TEMPLATE, render
from hagane.tokenizer.save import save_for_transformers
from toy_models import randomised, toy_config, toy_decoder, toy_tokenizer

transformers = pytest.importorskip("transformers")
KINDS = {"qwen3_moe": ("experts", {}), "qwen3": ("dense", {}), "llama": ("dense", {"qk_norm": False, "tied": False}), "qwen3_next": ("delta", {})}


@pytest.fixture
def parts(tmp_path):
    """parts(host) -> (float32 masters, configuration, folder of the tokenizer)."""

    def make(host="qwen3_moe"):
        kind, settings = KINDS[host]
        save_for_transformers(toy_tokenizer(), tmp_path / "encode", 64)
        return dict(toy_decoder(kind, **settings).named_parameters()), toy_config(kind, **settings), tmp_path / "encode"

    return make


@pytest.mark.parametrize("host", KINDS)
def test_a_release_loads_as_any_model_does(tmp_path, parts, host):
    facts = release_huggingface(*parts(host), tmp_path / "release", card=lambda verdict: f"# A card of {verdict.prompts_checked} prompts\n")
    assert facts.host == host and facts.greedy_equal and facts.max_logit_gap <= 1e-4 * max(1, facts.largest_logit)
    assert facts.rounding_logit_gap > facts.max_logit_gap, "rounding to bf16 changes more than the order of sums"
    assert facts.prompts_checked == 16 and facts.greedy_tokens > 100
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "release")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "release")
    assert model.config.model_type == host and model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    for thinking in (True, False):
        assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=thinking, tokenize=False) == render(messages, thinking)
    assert (tmp_path / "release" / "README.md").read_text() == "# A card of 16 prompts\n"
    assert sum(file.stat().st_size for file in (tmp_path / "release").iterdir()) == facts.bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encode", "release"]


def test_modules_that_the_host_has_no_place_for_are_left_out_and_named(tmp_path, parts):
    _, config, tokenizer = parts("qwen3")
    further = config.model_copy(update={"mtp_layers": config.layers[-1:]})
    facts = release_huggingface(dict(randomised(further).named_parameters()), further, tokenizer, tmp_path / "release")
    assert facts.left_out == "qwen3 has no place for modules for multi-token prediction" and facts.greedy_equal
    assert load_huggingface(tmp_path / "release")[1].mtp_layers == ()


def test_norms_around_zero_are_rounded_as_they_are_stored(tmp_path, parts):
    """0.1 is stored as -0.9, which bfloat16 knows less well: what is verified and what is loaded is 1 - 0.8984."""
    state, config, tokenizer = parts("qwen3_next")
    state = {name: torch.full_like(tensor, 0.1) if name == "norm.weight" else tensor for name, tensor in state.items()}
    release_huggingface(state, config, tokenizer, tmp_path / "release")
    loaded, _ = load_huggingface(tmp_path / "release")
    assert (loaded.norm.weight == 1 + torch.tensor(-0.9).bfloat16().float()).all()


def test_a_float32_release_is_not_rounded(tmp_path, parts):
    state, config, tokenizer = parts()
    facts = release_huggingface(state, config, tokenizer, tmp_path / "release", dtype="float32")
    assert facts.rounding_logit_gap == 0
    loaded, loaded_config = load_huggingface(tmp_path / "release")
    assert all(torch.equal(parameter, state[name]) for name, parameter in loaded.named_parameters())
    assert loaded_config.layers[0].mixer == config.layers[0].mixer


def broken_weights(monkeypatch):
    original = huggingface.write_weights
    monkeypatch.setattr(
        huggingface, "write_weights", lambda folder, tensors: original(folder, tensors | {"model.norm.weight": tensors["model.norm.weight"] * 1.01})
    )


def broken_config(monkeypatch):
    original = huggingface.write_config
    monkeypatch.setattr(huggingface, "write_config", lambda folder, config, *rest: original(folder, config | {"rms_norm_eps": 0.1}, *rest))


def broken_shape(monkeypatch):
    original = huggingface.write_config
    monkeypatch.setattr(huggingface, "write_config", lambda folder, config, *rest: original(folder, config | {"hidden_size": 64}, *rest))


def broken_template(monkeypatch):
    monkeypatch.setattr(verify, "render", lambda messages, thinking: render(messages, True))


@pytest.mark.parametrize(
    ("damage", "message"),
    ((broken_weights, "logits differ"), (broken_config, "logits differ"), (broken_shape, "cannot load it"), (broken_template, "chat template")),
)
def test_a_release_that_transformers_reads_differently_does_not_happen(tmp_path, parts, monkeypatch, damage, message):
    state, config, tokenizer = parts()
    release = tmp_path / "release"
    damage(monkeypatch)
    with pytest.raises(RunError, match=message):
        release_huggingface(state, config, tokenizer, release)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encode"]


def test_a_failed_release_leaves_the_one_before(tmp_path, parts, monkeypatch):
    state, config, tokenizer = parts()
    release_huggingface(state, config, tokenizer, tmp_path / "release")
    before = (tmp_path / "release" / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(RunError):
        broken_weights(patch)
        release_huggingface(state, config, tokenizer, tmp_path / "release")
    assert (tmp_path / "release" / "model.safetensors").read_bytes() == before
    release_huggingface(state, config, tokenizer, tmp_path / "release", dtype="float32")
    assert (tmp_path / "release" / "model.safetensors").read_bytes() != before


def test_without_transformers_the_remedy_is_named(tmp_path, parts, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RunError, match=r"pip install 'hagane\[hf\]'"):
        release_huggingface(*parts(), tmp_path / "release")


NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"


@pytest.mark.parametrize(("start", "count"), [("{# of another maker #}", 16), (NO_SYSTEM, 14)], ids=["takes all", "takes no system"])
def test_prompts_are_made_by_a_kept_chat_template(tmp_path, parts, start, count):
    state, config, tokenizer = parts()
    save_for_transformers(toy_tokenizer(), tokenizer, 64, start + CHAT_TEMPLATE)
    assert release_huggingface(state, config, tokenizer, tmp_path / "release").prompts_checked == count


@pytest.mark.parametrize("template", ["{{ raise_exception('never') }}", "{% for", "{# nothing #}"])
def test_a_kept_chat_template_that_gives_nothing_is_found(tmp_path, parts, template):
    state, config, tokenizer = parts()
    save_for_transformers(toy_tokenizer(), tokenizer, 64, template)
    with pytest.raises(RunError, match="the chat template kept from the checkpoint gives no text") as error:
        release_huggingface(state, config, tokenizer, tmp_path / "release")
    assert "\n" not in str(error.value)


def test_a_difference_in_greedy_text_is_found(tmp_path, parts, monkeypatch):
    monkeypatch.setattr(verify, "generate", lambda decoder, prompts, *_, **__: [[1] * 32 for _ in prompts])
    with pytest.raises(RunError, match="other words"):
        release_huggingface(*parts(), tmp_path / "release")


def test_prompts_that_part_at_a_tie_are_counted(tmp_path, parts, monkeypatch):
    state, config, tokenizer = parts()
    with monkeypatch.context() as patch:
        patch.setattr(verify, "generate", lambda decoder, prompts, *_, **__: [[1] * 32 for _ in prompts])
        patch.setattr(verify, "_tied", lambda *_: True)
        facts = release_huggingface(state, config, tokenizer, tmp_path / "release")
    assert facts.greedy_parted == facts.prompts_checked == 16 and not facts.greedy_equal
    assert release_huggingface(state, config, tokenizer, tmp_path / "release").greedy_parted == 0


def test_large_models_are_cut_into_slices_that_load(tmp_path, parts):
    state, config, tokenizer = parts()
    facts = release_huggingface(state, config, tokenizer, tmp_path / "whole", dtype="float32")
    host = huggingface.HOSTS[facts.host]
    sliced = tmp_path / "sliced"
    sliced.mkdir()
    tensors = dict(host.weights.weights_to_host(state, config))
    write_weights(sliced, tensors, max_bytes=20_000)
    index = json.loads((sliced / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in sliced.glob("*.safetensors"))
    assert len(files) > 2 and set(index["weight_map"].values()) == set(files) and set(index["weight_map"]) == set(tensors)
    for name in ("config.json", "generation_config.json"):
        (sliced / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    with safe_open(sliced / files[0], "pt") as file:
        assert file.metadata() == {"format": "pt"}
    model = transformers.AutoModelForCausalLM.from_pretrained(sliced, dtype=torch.float32)
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), whole.parameters(), strict=True))
    assert all(torch.equal(parameter, state[name]) for name, parameter in load_huggingface(sliced)[0].named_parameters())
