"""Every host agrees with the implementation that transformers publishes: hidden states, loss, every gradient, both directions."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from hagane.hosts import HOSTS, host_for, host_of
from hagane.model.config import (
    AttentionConfig,
    DeltaConfig,
    DenseConfig,
    ExpertsConfig,
    IndexConfig,
    LatentConfig,
    LayerConfig,
    ModelConfig,
    RopeConfig,
    YarnConfig,
)
from hagane.model.count import num_parameters
from hagane.model.decoder import Decoder
from hagane.model.extend import extended
from hagane.model.sequence import PADDING, Sequence

transformers = pytest.importorskip("transformers")

EXPERTS = ExpertsConfig(num_experts=6, top_k=2, hidden=20, aux_coefficient=0.05)


SIGMOID = EXPERTS.model_copy(update={"score": "sigmoid", "shared_hidden": 20, "balance": "bias"})
GROUPED = SIGMOID.model_copy(update={"num_groups": 3, "top_groups": 2, "scaling": 2.5, "shared_hidden": 40})


def tiny(layers, **settings):
    return ModelConfig(vocabulary_size=61, width=24, layers=tuple(layers), context=64, init_std=0.2, **settings)


def attention(qk_norm, window=None):
    return AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=10, qk_norm=qk_norm, window=window, rope=RopeConfig(theta=5e5))


def latent(query_rank=10, yarn=None, value_dim=7):
    return LatentConfig(
        num_heads=4, query_rank=query_rank, kv_rank=12, nope_dim=6, rope_dim=8, value_dim=value_dim, rope=RopeConfig(theta=500.0, yarn=yarn)
    )


def indexed(top_k=5, num_heads=8, head_dim=16, **settings):
    """Of few heads many keys score exactly zero, because all turn away from them; with many there are hardly any such ties."""
    return latent(**settings).model_copy(update={"index": IndexConfig(num_heads=num_heads, head_dim=head_dim, top_k=top_k)})


def gated(*ffns, rank=3, **settings):
    """Latent attention with an output gate, and gates on norms: before experts, not before dense feed-forwards."""
    mixer = indexed(**settings).model_copy(update={"gate": "sigmoid"})
    ranks = [rank if isinstance(ffn, ExpertsConfig) else None for ffn in ffns]
    return [LayerConfig(mixer=mixer, ffn=ffn, mixer_norm_rank=rank, ffn_norm_rank=of_ffn) for ffn, of_ffn in zip(ffns, ranks, strict=True)]


def sigmoid(**settings):
    return ExpertsConfig(**{
        "num_experts": 6, "top_k": 2, "hidden": 20, "score": "sigmoid", "balance": "bias", "aux_coefficient": 0.0, "shared_hidden": 20, **settings,
    })  # fmt: skip


def glm(*ffns, **settings):
    mixer = AttentionConfig(**{"num_heads": 4, "num_kv_heads": 2, "head_dim": 12, "partial_rotary": 6, "rope": RopeConfig(theta=5e5), **settings})
    return [LayerConfig(mixer=mixer, ffn=ffn) for ffn in ffns]


def afmoe(windows, ffns):
    """Positions in windowed layers only."""
    mixers = [attention(True, window).model_copy(update={"gate": "sigmoid", **({} if window else {"rope": None})}) for window in windows]
    return [LayerConfig(mixer=mixer, ffn=ffn, post_mixer_norm=True, post_ffn_norm=True) for mixer, ffn in zip(mixers, ffns, strict=True)]


YARN = YarnConfig(factor=4.0, original_context=16, beta_fast=2.0, beta_slow=0.5, mscale=0.8, mscale_all_dim=1.2)
DELTA = DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=12)
GATED = attention(True).model_copy(update={"gate": "sigmoid", "partial_rotary": 4})


SHARED = EXPERTS.model_copy(update={"shared_hidden": 12, "shared_gate": True})


def hybrid(*mixers, ffns=None, **settings):
    """What Gated DeltaNet reads is divided by its own size, which blows up rounding where a query meets a key at right angles: not with this epsilon."""
    ffns = ffns or [DenseConfig(hidden=40)] * len(mixers)
    return tiny([LayerConfig(mixer=mixer, ffn=ffn) for mixer, ffn in zip(mixers, ffns, strict=True)], norm_epsilon=1e-2, **settings)


CONFIGS = {
    "llama": tiny([LayerConfig(mixer=attention(False), ffn=DenseConfig(hidden=40))] * 3),
    "llama yarn": tiny([
        LayerConfig(
            mixer=attention(False).model_copy(update={"rope": RopeConfig(theta=500.0, yarn=YarnConfig(factor=4.0, original_context=16))}),
            ffn=DenseConfig(hidden=40),
        )
    ] * 2),
    "llama linear": extended(tiny([LayerConfig(mixer=attention(False), ffn=DenseConfig(hidden=40))] * 2), 4.0, "linear"),
    "qwen3_moe yarn": extended(tiny([LayerConfig(mixer=attention(True), ffn=EXPERTS)] * 2), 8.0, "yarn"),
    "llama tied": tiny([LayerConfig(mixer=attention(False), ffn=DenseConfig(hidden=40))] * 2, tied=True, norm_epsilon=1e-5),
    "qwen3": tiny([LayerConfig(mixer=attention(True), ffn=DenseConfig(hidden=40))] * 3),
    "qwen3 windows": tiny([LayerConfig(mixer=attention(True, window), ffn=DenseConfig(hidden=40)) for window in (5, None, 5)], tied=True),
    "qwen3_moe": tiny([LayerConfig(mixer=attention(True), ffn=EXPERTS)] * 3),
    "qwen3_moe mixed": tiny([LayerConfig(mixer=attention(True), ffn=ffn) for ffn in (DenseConfig(hidden=40), EXPERTS, EXPERTS)]),
    "qwen3_moe unnormalised": tiny([LayerConfig(mixer=attention(True), ffn=EXPERTS.model_copy(update={"normalise": False}))] * 2, tied=True),
    "glm4_moe": tiny(glm(DenseConfig(hidden=40), sigmoid(), sigmoid())),
    "glm4_moe groups": tiny(glm(*[sigmoid(num_experts=8, top_k=3, num_groups=4, top_groups=2, scaling=2.5, shared_hidden=40)] * 2, qk_norm=True)),
    "glm4_moe unnormalised": tiny(glm(*[sigmoid(normalise=False)] * 2, partial_rotary=None), tied=True, norm_epsilon=1e-5),
    "afmoe": tiny(afmoe((5, None, 5), (DenseConfig(hidden=40), sigmoid(), sigmoid())), norm_epsilon=1e-5),
    "afmoe scaled": tiny(afmoe((5, 5, 5, None), [sigmoid(scaling=2.0, shared_hidden=40)] * 4), tied=True, embedding_scale=24**0.5),
    "deepseek_v3 dense": tiny([LayerConfig(mixer=latent(), ffn=DenseConfig(hidden=40))] * 3),
    "deepseek_v3 whole queries": tiny([LayerConfig(mixer=latent(query_rank=None, value_dim=16), ffn=DenseConfig(hidden=40))] * 2, tied=True),
    "deepseek_v3": tiny([LayerConfig(mixer=latent(), ffn=ffn) for ffn in (DenseConfig(hidden=40), GROUPED, GROUPED)]),
    "deepseek_v3 all routed": tiny([LayerConfig(mixer=latent(), ffn=SIGMOID.model_copy(update={"normalise": False}))] * 2),
    "deepseek_v3 extended": extended(tiny([LayerConfig(mixer=latent(), ffn=DenseConfig(hidden=40))] * 2), 8.0, "yarn"),
    "glm4_moe linear": extended(tiny(glm(DenseConfig(hidden=40), sigmoid())), 8.0, "linear"),
    "qwen3_next yarn": extended(hybrid(DELTA, GATED), 8.0, "yarn"),
    "axk1": tiny([
        LayerConfig(mixer=latent(yarn=YARN), ffn=ffn, post_ffn_norm=ffn is GROUPED) for ffn in (DenseConfig(hidden=40), GROUPED, GROUPED)
    ]),
    "deepseek_v3 yarn": tiny([LayerConfig(mixer=latent(yarn=YARN), ffn=DenseConfig(hidden=40))] * 2, norm_epsilon=1e-5),
    "deepseek_v32": tiny([LayerConfig(mixer=indexed(), ffn=ffn) for ffn in (DenseConfig(hidden=40), GROUPED, GROUPED)]),
    "deepseek_v32 dense": tiny([LayerConfig(mixer=indexed(top_k=7, num_heads=1, head_dim=8, value_dim=16), ffn=DenseConfig(hidden=40))] * 2, tied=True),
    "deepseek_v32 yarn": tiny([LayerConfig(mixer=indexed(top_k=9, yarn=YARN), ffn=SIGMOID)] * 2, norm_epsilon=1e-5),
    "axk2": tiny(gated(DenseConfig(hidden=40), SIGMOID, SIGMOID)),
    "axk2 groups": tiny(gated(GROUPED, GROUPED, yarn=YARN), norm_epsilon=1e-5),
    "axk2 dense": tiny(gated(DenseConfig(hidden=40), DenseConfig(hidden=40), value_dim=16), tied=True),
    "qwen3_next": hybrid(DELTA, DELTA, DELTA, GATED, ffns=[SHARED] * 4),
    "qwen3_next dense": hybrid(DELTA, DELTA, DELTA, GATED),
    "qwen3_next mixed": hybrid(DELTA, GATED, ffns=[DenseConfig(hidden=40), SHARED.model_copy(update={"normalise": False})]),
    "qwen3_next attention first": hybrid(GATED, DELTA.model_copy(update={"num_value_heads": 2, "taps": 3}), tied=True),
    "qwen3_next whole heads": hybrid(DELTA, GATED.model_copy(update={"partial_rotary": None})),
}


def load_ours(folder):
    """What a caller does to start from a published checkpoint."""
    host_json = json.loads((folder / "config.json").read_text())
    host = host_of(host_json)
    config = host.config_from_host(host_json)
    model = Decoder(config)
    model.load_state_dict(dict(host.weights.weights_from_host(load_file(folder / "model.safetensors"), config)), strict=False)
    return with_their_ties(model)


def with_their_ties(model):
    for indexer in model.indexers():
        indexer.library_ties = True
    return model


def save_theirs(model, folder, special=None):
    """What a release does."""
    host = HOSTS[host_for(model.config)]
    (folder / "config.json").write_text(json.dumps(host.config_to_host(model.config, special or {})))
    save_file(dict(host.weights.weights_to_host(model.state_dict(), model.config)), folder / "model.safetensors", metadata={"format": "pt"})


def load_theirs(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not any(report.values()), report
    return model


def selection_biases(theirs):
    """Of transformers' model, buffers or parameters that are not trained: there is no gradient of them."""
    tensors = [*theirs.named_buffers(), *theirs.named_parameters()]
    return {name: tensor.detach() for name, tensor in tensors if name.endswith(("e_score_correction_bias", "expert_bias"))}


def random_theirs(config, folder):
    """A random model made by transformers, with norm weights that are not one, as it saves itself."""
    settings = HOSTS[host_for(config)].config_to_host(config, {})
    theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**settings), attn_implementation="eager")
    with torch.no_grad():
        for parameter in theirs.parameters():  # vectors around where they begin: norms around one or, stored as what is added to it, zero
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter if parameter.dim() == 1 else 0))
        for bias in selection_biases(theirs).values():
            bias.copy_(torch.randn_like(bias) * 0.1)
    theirs.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize("host", ["glm4_moe", "afmoe", "deepseek_v32", "axk2"])
def test_a_published_shape_is_counted_as_it_is_built(host):
    """The defaults of transformers are published shapes: GLM-4.5-Air, Trinity's family, DeepSeek-V3.2, and A.X-K2-Light."""
    settings = transformers.AutoConfig.for_model(host)
    settings.head_dim = 128  # as in both; one class has no default for it
    with torch.device("meta"):  # no memory
        theirs = transformers.AutoModelForCausalLM.from_config(settings)
    config = HOSTS[host].config_from_host(settings.to_dict())
    trained = [parameter for name, parameter in theirs.named_parameters() if not name.endswith("expert_bias")]
    assert num_parameters(config) == sum(parameter.numel() for parameter in trained)
    assert HOSTS[host].config_from_host(HOSTS[host].config_to_host(config, {})) == config


def their_outputs(theirs, token_BT):
    output = theirs(token_BT, output_hidden_states=True)
    loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), token_BT[:, 1:].flatten(), reduction="sum")
    return output, loss


def our_loss(model, hidden_BTD, token_BT):
    return model.head.nll_sum(hidden_BTD[:, :-1], token_BT[:, 1:], torch.ones(token_BT[:, 1:].shape))


def our_hidden_states(model, token_BT, sequence):
    """The stream after every layer, the last one normed, as transformers lists them."""
    states = []
    hooks = [block.register_forward_hook(lambda module, inputs, outputs: states.append(outputs[0])) for block in model.layers]
    embedded = model.embedding(token_BT) * model.config.embedding_scale
    output = model(token_BT, sequence)
    for hook in hooks:
        hook.remove()
    return output, [embedded, *states[:-1], output.hidden_BTD]


def gradients_by_our_names(theirs, config):
    """Their gradients under our names, selection biases, which have none, left out. A host's way from its weights to ours may add a constant
    (norms around zero): what it makes of nothing is taken off again."""
    host, gradients = HOSTS[host_for(config)], {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    assert all(gradient is None for name, gradient in gradients.items() if ".indexer." in name)
    gradients = {name: torch.zeros_like(theirs.get_parameter(name)) if ".indexer." in name else gradient for name, gradient in gradients.items()}
    gradients |= {name: tensor for name, tensor in theirs.state_dict().items() if name.endswith(("e_score_correction_bias", "expert_bias"))}
    constant = dict(host.weights.weights_from_host({name: torch.zeros_like(gradient) for name, gradient in gradients.items()}, config))
    return {name: tensor - constant[name] for name, tensor in host.weights.weights_from_host(gradients, config) if not name.endswith("bias_E")}


def assert_same(theirs, ours):
    token_BT = torch.randint(0, 61, (2, 19), generator=torch.Generator().manual_seed(1))
    their_output, their_loss = their_outputs(theirs, token_BT)
    output, hidden_states = our_hidden_states(ours, token_BT, Sequence.plain(2, 19))
    for index, (our_state, their_state) in enumerate(zip(hidden_states, their_output.hidden_states, strict=True)):
        assert_close(our_state, their_state, atol=1e-5, rtol=1e-5, msg=lambda m, i=index: f"hidden state {i}: {m}")
    assert_close(ours.head.logits(output.hidden_BTD), their_output.logits, atol=1e-5, rtol=1e-5)
    loss = our_loss(ours, output.hidden_BTD, token_BT)
    assert_close(loss, their_loss, atol=0, rtol=1e-6)
    # mean losses, so that 1e-5 means the same for every size of batch
    (loss / token_BT.numel()).backward()
    (their_loss / token_BT.numel()).backward()
    wanted = {name: tensor for name, tensor in gradients_by_our_names(theirs, ours.config).items() if not name.endswith("bias_E")}
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        if ".indexer." in name:  # a choice has no gradient, theirs nor ours
            assert gradient is None or not gradient.any()
            continue
        assert gradient.abs().max() > 0, name
        assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"gradient of {n}: {m}")


@pytest.mark.parametrize("name", CONFIGS)
def test_imported_model_equals_the_published_one(name, tmp_path):
    torch.manual_seed(0)
    theirs = random_theirs(CONFIGS[name], tmp_path)
    ours = load_ours(tmp_path)
    assert ours.config.layers[0].mixer == CONFIGS[name].layers[0].mixer
    assert_same(theirs, ours)


def with_biases(model):
    """Initial weights, and biases that choose other experts than the scores would."""
    model.init_weights(seed=0)
    for bias in model.selection_biases().values():
        bias.normal_(std=0.2, generator=torch.Generator().manual_seed(4))
    return with_their_ties(model)


@pytest.mark.parametrize("name", CONFIGS)
def test_exported_model_equals_ours(name, tmp_path):
    ours = with_biases(Decoder(CONFIGS[name]))
    save_theirs(ours, tmp_path, {"eos_token_id": 60})
    theirs = load_theirs(tmp_path)
    assert theirs.config.eos_token_id == 60
    assert theirs.config.bos_token_id is None
    trained = [parameter for parameter_name, parameter in theirs.named_parameters() if not parameter_name.endswith("expert_bias")]
    assert sum(parameter.numel() for parameter in trained) == sum(parameter.numel() for parameter in ours.parameters())
    assert_same(theirs, ours)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_exported_comes_back(name, tmp_path):
    ours = with_biases(Decoder(CONFIGS[name]))
    save_theirs(ours, tmp_path)
    again = load_ours(tmp_path)
    assert again.config == ours.config
    for bias_name, bias in ours.selection_biases().items():
        assert torch.equal(again.selection_biases()[bias_name], bias)
    for (name_a, a), (name_b, b) in zip(again.named_parameters(), ours.named_parameters(), strict=True):
        assert name_a == name_b
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "name", ["llama", "qwen3 windows", "qwen3_moe", "deepseek_v3", "deepseek_v32", "axk1", "axk2", "qwen3_next", "glm4_moe groups", "afmoe"]
)
def test_packed_documents_equal_separate_ones_of_transformers(name, tmp_path):
    """Three documents and padding in one row: each has the hidden states, and all have the gradients, of documents read alone."""
    torch.manual_seed(0)
    theirs = random_theirs(CONFIGS[name], tmp_path)
    ours = load_ours(tmp_path)
    lengths = [7, 4, 9]
    documents = [torch.randint(0, 61, (1, length)) for length in lengths]
    token_BT = torch.cat([*documents, torch.zeros(1, 3, dtype=torch.int64)], dim=1)
    document_BT = torch.tensor([[0] * 7 + [1] * 4 + [2] * 9 + [PADDING] * 3], dtype=torch.int32)
    position_BT = torch.cat([torch.arange(length) for length in [*lengths, 3]])[None]
    hidden_BTD = ours(token_BT, Sequence(position_BT, document_BT)).hidden_BTD
    ours_total, theirs_total = torch.zeros(()), torch.zeros(())
    for document, hidden in zip(documents, hidden_BTD.split([*lengths, 3], dim=1), strict=False):
        output, loss = their_outputs(theirs, document)
        assert_close(hidden, output.hidden_states[-1], atol=1e-5, rtol=1e-5)
        theirs_total = theirs_total + loss
        ours_total = ours_total + our_loss(ours, hidden, document)
    (ours_total / 20).backward()
    (theirs_total / 20).backward()
    wanted = gradients_by_our_names(theirs, ours.config)
    for parameter_name, parameter in ours.named_parameters():
        if ".indexer." in parameter_name:
            continue
        assert_close(parameter.grad, wanted[parameter_name], atol=1e-5, rtol=1e-5, msg=lambda m, n=parameter_name: f"gradient of {n}: {m}")


@pytest.mark.parametrize(
    "name",
    [
        "llama", "qwen3", "qwen3_moe", "qwen3_next", "deepseek_v3", "deepseek_v3 yarn", "deepseek_v32", "deepseek_v32 yarn", "axk1", "axk2", "glm4_moe",
        "afmoe", "afmoe scaled",
    ],
)  # fmt: skip
def test_a_bfloat16_export_keeps_the_greedy_text(name, tmp_path):
    """Token by token from our cache, in the form that decodes, against generation by transformers."""
    ours = with_biases(Decoder(CONFIGS[name]))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(parameter.bfloat16())
    host = HOSTS[host_for(ours.config)]
    (tmp_path / "config.json").write_text(json.dumps(host.config_to_host(ours.config, {})))
    state = {key: tensor if key.endswith("_E") else tensor.bfloat16() for key, tensor in ours.state_dict().items()}
    save_file(dict(host.weights.weights_to_host(state, ours.config)), tmp_path / "model.safetensors", metadata={"format": "pt"})
    prompt = torch.randint(0, 61, (1, 7), generator=torch.Generator().manual_seed(5))
    theirs = load_theirs(tmp_path).generate(prompt, max_new_tokens=16, do_sample=False)[0, 7:].tolist()
    cache, token_BT, greedy = ours.new_cache(1, 24), prompt, []
    with torch.no_grad():
        while len(greedy) < 16:
            hidden_BTD = ours(token_BT, cache.sequence([token_BT.shape[1]]), cache).hidden_BTD
            token_BT = ours.head.logits(hidden_BTD[:, -1:]).argmax(-1)
            greedy.append(int(token_BT))
    assert greedy == theirs


def test_balancing_loss_equals_theirs_where_the_definitions_agree(tmp_path):
    """One layer, the load of this very batch: transformers' loss is top_k times ours, because its shares sum to top_k; gradients too."""
    torch.manual_seed(0)
    config = CONFIGS["qwen3_moe"].model_copy(update={"layers": CONFIGS["qwen3_moe"].layers[:1]})
    theirs = random_theirs(config, tmp_path)
    ours = load_ours(tmp_path)
    token_BT = torch.randint(0, 61, (2, 19))
    stats = ours(token_BT, Sequence.plain(2, 19)).stats
    ours.router_step(stats.detached())
    z_only = EXPERTS.z_coefficient * stats.layers[0].z_sum
    balance = (ours.auxiliary_loss_sum(stats) - z_only) / token_BT.numel() / EXPERTS.aux_coefficient
    their_loss = theirs(token_BT, output_router_logits=True).aux_loss
    assert_close(balance * EXPERTS.top_k, their_loss, atol=1e-6, rtol=1e-5)
    (balance * EXPERTS.top_k).backward()
    their_loss.backward()
    assert_close(ours.layers[0].ffn.router.weight.grad, theirs.model.layers[0].mlp.gate.weight.grad, atol=1e-6, rtol=1e-5)
