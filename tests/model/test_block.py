"""What a block adds beside mixer and feed-forward: gates, norms after, layers that know no positions, a scale of embeddings."""

import torch
from torch.testing import assert_close

from hagane.model.config import AttentionConfig, DenseConfig, LayerConfig, ModelConfig
from hagane.model.decoder import Decoder
from hagane.model.rope import rotate
from hagane.model.sequence import Sequence


def made(layer, **settings):
    model = Decoder(ModelConfig(vocabulary_size=61, width=24, layers=(layer,), context=64, init_std=0.3, **settings))
    model.init_weights(0)
    return model.requires_grad_(False)


def plain(**settings):
    return LayerConfig(mixer=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, **settings), ffn=DenseConfig(hidden=40))


def hidden(model, tokens):
    return model(tokens, Sequence.plain(*tokens.shape)).hidden_BTD


def test_a_gate_of_zero_halves_what_attention_adds():
    model = made(plain(gate="sigmoid"))
    model.layers[0].mixer.gate.weight.zero_()
    other = made(plain())
    other.load_state_dict(model.state_dict(), strict=False)
    other.layers[0].mixer.output.weight.mul_(0.5)
    tokens = torch.randint(0, 61, (2, 9))
    assert_close(hidden(model, tokens), hidden(other, tokens))


def test_norms_after_are_of_what_is_added_alone():
    layer = plain().model_copy(update={"post_mixer_norm": True, "post_ffn_norm": True})
    model = made(layer)
    block = model.layers[0]
    for norm in (block.post_mixer_norm, block.post_ffn_norm):
        norm.weight.normal_()
    tokens = torch.randint(0, 61, (2, 9))
    views, _ = model._views(Sequence.plain(2, 9), None, model.config.layers)
    stream = model.embedding(tokens)
    stream = stream + block.post_mixer_norm(block.mixer(block.mixer_norm(stream), views[layer.mixer])[0])
    stream = stream + block.post_ffn_norm(block.ffn(block.ffn_norm(stream)))
    assert_close(hidden(model, tokens), model.norm(stream))


def test_a_layer_without_positions_knows_only_what_came_before():
    """Earlier tokens in another order change nothing for the last one; with positions they do."""
    tokens = torch.randint(0, 61, (1, 9))
    shuffled = torch.cat([tokens[:, :8].flip(1), tokens[:, 8:]], dim=1)
    without, with_positions = made(plain(rope=None)), made(plain())
    assert_close(hidden(without, tokens)[:, -1], hidden(without, shuffled)[:, -1], atol=1e-5, rtol=1e-5)
    assert (hidden(with_positions, tokens)[:, -1] - hidden(with_positions, shuffled)[:, -1]).abs().max() > 1e-2


def test_dimensions_behind_the_rotated_ones_stay():
    heads, angle = torch.randn(2, 5, 3, 8), torch.randn(2, 5, 2)
    turned = rotate(heads, angle.cos(), angle.sin())
    assert torch.equal(turned[..., 4:], heads[..., 4:])
    assert_close(turned[..., :4], rotate(heads[..., :4], angle.cos(), angle.sin()))
    assert (turned[..., :4] - heads[..., :4]).abs().max() > 1e-2


def test_a_scale_of_embeddings_is_the_same_as_larger_embeddings():
    scaled, larger = made(plain(), embedding_scale=3.0), made(plain())
    larger.embedding.weight.mul_(3.0)
    tokens = torch.randint(0, 61, (2, 9))
    assert_close(hidden(scaled, tokens), hidden(larger, tokens))
