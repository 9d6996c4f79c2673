"""Modules for multi-token prediction go to the hosts that have them and come back; transformers drafts with them as we do."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from hagane.engine.generate import generate
from hagane.errors import DataError
from hagane.hosts import HOSTS, host_for
from hagane.hosts.checkpoint import read_published
from hagane.hosts.mtp import held_state
from hagane.model.config import AttentionConfig, DenseConfig, ExpertsConfig, IndexConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.sequence import Sequence
from hagane.release.huggingface import write_weights
from toy_models import randomised, toy_config

SIGMOID = ExpertsConfig(num_experts=4, top_k=2, hidden=16, score="sigmoid", balance="bias", shared_hidden=16, aux_coefficient=0.0)
MIXERS = {
    "deepseek_v3": LatentConfig(num_heads=4, query_rank=12, kv_rank=16, nope_dim=8, rope_dim=4, value_dim=8),
    "deepseek_v32": LatentConfig(
        num_heads=4, query_rank=12, kv_rank=16, nope_dim=8, rope_dim=4, value_dim=8, index=IndexConfig(num_heads=8, head_dim=8, top_k=5)
    ),
    "glm4_moe": AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, partial_rotary=4),
}


def shape(host, count=1, tied=False):
    layers = tuple(LayerConfig(mixer=MIXERS[host], ffn=ffn) for ffn in (DenseConfig(hidden=40), SIGMOID))
    return ModelConfig(vocabulary_size=61, width=24, layers=layers, mtp_layers=layers[-1:] * count, tied=tied, context=64, init_std=0.3)


def everything(decoder):
    return {**{name: parameter.detach() for name, parameter in decoder.named_parameters()}, **decoder.selection_biases()}


def written(folder, host, **settings):
    config = shape(host, **settings)
    decoder = randomised(config)
    for place, bias_E in enumerate(decoder.selection_biases().values()):
        bias_E.copy_(torch.linspace(-0.1, 0.1, 4).roll(place))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(HOSTS[host].config_to_host(config, {})))
    write_weights(folder, dict(HOSTS[host].weights.weights_to_host(everything(decoder), config)))
    return decoder


def change(folder, edit):
    path = folder / "model.safetensors"
    save_file(edit(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("host", MIXERS)
def test_modules_come_back_as_they_went(tmp_path, host, count, tied):
    decoder = written(tmp_path / "model", host, count=count, tied=tied)
    published, state = read_published(tmp_path / "model"), everything(decoder)
    assert len(published.config.mtp_layers) == count and published.config.mtp_layers[0].mixer == decoder.config.layers[-1].mixer
    assert published.state.keys() == state.keys() and all(torch.equal(published.state[name], state[name]) for name in state)


@pytest.mark.parametrize("host", sorted(MIXERS.keys() - {"deepseek_v32"}))  # of which transformers reads no modules
def test_transformers_drafts_what_we_draft(tmp_path, host):
    transformers = pytest.importorskip("transformers", minversion="5.20")
    from transformers.modeling_layers import MtpModel

    decoder = written(tmp_path / "model", host)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    theirs._keys_to_ignore_on_load_unexpected = [r"model\.layers\.2.*"]  # it knows the numbers of published models only
    module = MtpModel.from_pretrained(theirs).eval()
    ids = torch.randint(0, 61, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = theirs.model(ids[:, :-1]).last_hidden_state
        place = torch.arange(1, 12)[None]
        drafted = module.forward_layer(0, hidden, place, None, input_ids=ids[:, 1:])
        ours = decoder(ids, Sequence.plain(1, 12), further=True)
        assert_close(ours.hidden_BTD[:, :-1], hidden, atol=1e-5, rtol=1e-5)
        assert_close(ours.further[0][:, :-1], drafted, atol=1e-5, rtol=1e-5)
        text = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, use_mtp=True, pad_token_id=0, eos_token_id=None)
    assert text[0, 12:].tolist() == generate(decoder, ids.tolist(), 20, [])[0]


@pytest.mark.parametrize("host", MIXERS)
def test_a_folder_that_speaks_of_modules_and_has_none_is_a_model_without(tmp_path, host):
    """As transformers writes one: the number stays in config.json, the weights do not."""
    decoder = written(tmp_path / "model", host)
    change(tmp_path / "model", lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith("model.layers.2.")})
    published = read_published(tmp_path / "model")
    assert published.config.mtp_layers == () and len(published.config.layers) == 2
    assert published.state.keys() == held_state(everything(decoder), published.config).keys()


def test_a_part_of_a_module_is_missed_by_name_and_one_with_its_own_head_refused(tmp_path):
    written(tmp_path / "model", "glm4_moe")
    whole = load_file(tmp_path / "model" / "model.safetensors")
    change(tmp_path / "model", lambda tensors: {name: tensor for name, tensor in whole.items() if "hnorm" not in name})
    with pytest.raises(DataError, match=r"no tensor model\.layers\.2\.hnorm\.weight"):
        read_published(tmp_path / "model")
    own = "model.layers.2.shared_head.head.weight"
    change(tmp_path / "model", lambda tensors: {**whole, own: whole[own] + 1})
    with pytest.raises(DataError, match=re.escape(f"{own} is not the same as lm_head.weight")):
        read_published(tmp_path / "model")


def test_other_hosts_leave_the_modules_out_and_say_so():
    config = toy_config("experts")
    further = config.model_copy(update={"mtp_layers": config.layers[-1:]})
    host = HOSTS[host_for(further)]
    assert host.modules_reason(further) == "qwen3_moe has no place for modules for multi-token prediction"
    assert host.held(further) == config and host.modules_reason(config) is None
    names = {name for name, _ in host.weights.weights_to_host(dict(randomised(further).named_parameters()), host.held(further))}
    assert names == {name for name, _ in host.weights.weights_to_host(dict(randomised(config).named_parameters()), config)}


def test_a_host_that_has_routed_modules_only_holds_no_others():
    dense = shape("deepseek_v3").model_copy(update={"mtp_layers": shape("deepseek_v3").layers[:1]})
    host = HOSTS["deepseek_v3"]
    assert host.can_hold(dense) is None
    assert host.modules_reason(dense) == "deepseek_v3 has routed layers like its last one as modules for multi-token prediction"
    assert host.held(dense).mtp_layers == () and host.held(shape("deepseek_v3")) == shape("deepseek_v3")
