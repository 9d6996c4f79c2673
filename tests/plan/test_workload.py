"""What a model asks of a machine equals what counting by hand gives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, ExpertsConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.count import flops_per_token, num_active_parameters, num_parameters
from hagane.model.decoder import Decoder
from hagane.model.sequence import View
from hagane.plan.workload import from_shape, workload


def dense(width=64, heads=4, kv=2, head_dim=16, hidden=160, layers=3, qk_norm=False):
    mixer = AttentionConfig(num_heads=heads, num_kv_heads=kv, head_dim=head_dim, qk_norm=qk_norm)
    return ModelConfig(vocabulary_size=512, width=width, layers=(LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=hidden)),) * layers, context=128)


def routed(experts=8, top_k=2, hidden=96):
    mixer = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=16)
    ffn = ExpertsConfig(num_experts=experts, top_k=top_k, hidden=hidden)
    return ModelConfig(vocabulary_size=512, width=64, layers=(LayerConfig(mixer=mixer, ffn=ffn),) * 3, context=128)


def latent():
    mixer = LatentConfig(num_heads=4, query_rank=24, kv_rank=32, nope_dim=16, rope_dim=8, value_dim=12)
    return ModelConfig(vocabulary_size=512, width=64, layers=(LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=160)),) * 3, context=128)


def hybrid():
    delta = DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=16, value_dim=8)
    layers = [LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=160)) for mixer in (delta, delta, delta, dense().layers[0].mixer)]
    return dense().model_copy(update={"layers": tuple(layers)})


@pytest.mark.parametrize("config", [dense(), dense(qk_norm=True), routed(), latent(), hybrid()])
def test_counts_are_those_of_the_model(config):
    work = workload(config, 128)
    assert work.num_parameters == num_parameters(config)
    assert work.num_active_parameters == num_active_parameters(config)
    assert work.forward_flops == pytest.approx(flops_per_token(config, 128))


def test_kept_activations_of_a_dense_block_tensor_by_tensor():
    block = {  # values per token, two bytes each
        "input of the first norm": 64, "output of the first norm": 64, "q": 64, "k": 32, "v": 32, "output of attention": 64, "log-sum-exp": 2 * 64 / 128,
        "input of the second norm": 64, "output of the second norm": 64, "gate": 160, "up": 160, "product": 160,
    }  # fmt: skip
    kept = workload(dense(), 128).kept_bytes
    assert kept["none"] == 2 * sum(block.values())
    assert kept["selective"] == 2 * (sum(block.values()) - 64 - 64 - 160)
    assert kept["full"] == 2 * 64


def test_kept_activations_of_a_routed_block_tensor_by_tensor():
    block = {"norms": 4 * 64, "attention": 64 + 32 + 32 + 64 + 1, "scores of the router in float32": 2 * 8}
    per_choice = {"copy of the input": 64, "gate": 96, "up": 96, "product": 96}
    assert workload(routed(), 128).kept_bytes["none"] == 2 * (sum(block.values()) + 2 * sum(per_choice.values()))


def test_kept_activations_of_latent_attention_tensor_by_tensor():
    made = {"q": 4 * 24, "k": 4 * 24, "v": 4 * 12}
    rest = {"norms": 4 * 64, "output of attention": 4 * 12, "log-sum-exp": 2 * 4 * 12 / 128, "gate, up, product": 3 * 160}
    kept = workload(latent(), 128).kept_bytes
    assert kept["none"] == 2 * sum((made | rest).values())
    again = sum(made.values()) - (24 + 32 + 8)  # made again from the latents and the shared key, which are kept instead
    assert kept["selective"] == 2 * (sum((made | rest).values()) - 64 - 64 - 160 - again)
    assert workload(latent(), 128).kv_elements == 32 + 8  # what is sent around is what the cache holds
    assert workload(latent(), 128).cache_bytes == 3 * 2 * (32 + 8)


def test_explicit_numbers_agree_with_our_configuration():
    ours = workload(routed(), 128)
    explicit = from_shape(
        num_layers=3, width=64, context=128, vocabulary_size=512, num_heads=4, num_kv_heads=2, head_dim=16,
        num_experts=8, top_k=2, expert_hidden=96, routed_layers=3,
    )  # fmt: skip
    assert explicit.forward_flops == pytest.approx(ours.forward_flops)
    assert explicit.kept_bytes == pytest.approx(ours.kept_bytes)
    assert explicit.num_parameters == ours.num_parameters - 64 * 7  # norms, the only part that explicit numbers leave out


def test_published_totals_of_models_whose_mixers_we_do_not_have():
    deepseek = from_shape(
        num_layers=61, width=7168, context=4096, vocabulary_size=129280, num_heads=128, head_dim=128, query_head_dim=192, latent=2112,
        mixer_parameters=187107328, hidden=18432, shared_hidden=2048, num_experts=256, top_k=8, expert_hidden=2048, routed_layers=58,
    )  # fmt: skip
    assert deepseek.num_parameters == pytest.approx(671e9, rel=0.002)
    assert deepseek.num_active_parameters == pytest.approx(37.6e9, rel=0.01)


def test_a_layer_of_delta_keeps_what_autograd_saves():
    """Not compiled it saves up to twice as much as the plan says; compiled, what was measured: within a tenth at heads of 32 and 64."""
    config = hybrid().model_copy(update={"layers": hybrid().layers[:1]})
    block = Decoder(config).layers[0]
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    view = View(None, None, torch.ones(1, 128), torch.zeros(1, 128, dtype=torch.int32), None)
    own, saved = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}, {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(torch.randn(1, 128, 64, requires_grad=True), view)
    values = sum(storage.nbytes() for pointer, storage in saved.items() if pointer not in own) / 128
    assert 1 <= values / workload(config, 128).kept_bytes["none"] < 2.5


@given(st.integers(1, 64), st.booleans())
def test_fewer_activations_are_kept_the_more_is_made_again(hidden, qk_norm):
    kept = workload(dense(hidden=8 * hidden, qk_norm=qk_norm), 128).kept_bytes
    assert kept["none"] > kept["selective"] > kept["full"]


def test_scores_in_memory_cost_more_and_only_without_fused_attention():
    shape = {"num_layers": 2, "width": 64, "context": 128, "vocabulary_size": 512, "num_heads": 4, "head_dim": 16, "hidden": 160}
    fused, plain = from_shape(**shape), from_shape(**shape, fused_attention=False)
    assert plain.moved_bytes - fused.moved_bytes == 13 * 4 * 128
    assert plain.attention_flops == pytest.approx(2 * fused.attention_flops, rel=0.01)
    assert plain.kept_bytes["selective"] == fused.kept_bytes["selective"]
