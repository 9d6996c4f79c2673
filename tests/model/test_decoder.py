"""Building, initial weights, precision, and compiling the decoder."""

import copy

import pytest
import torch
from torch.testing import assert_close

from hagane.model.decoder import Decoder
from hagane.model.initial import initial_std, to_working, working_dtype
from hagane.model.sequence import PADDING, Sequence


def batch(seed=0):
    torch.manual_seed(seed)
    document = torch.tensor([[0] * 6 + [1] * 6, [0] * 9 + [PADDING] * 3], dtype=torch.int32)
    position = torch.tensor([[*range(6), *range(6)], [*range(9), 0, 1, 2]])
    return torch.randint(0, 61, (2, 12)), torch.randint(0, 61, (2, 12)), (document >= 0).float(), Sequence(position, document)


def loss_and_gradients(model):
    tokens, targets, weight, sequence = batch()
    outputs = model(tokens, sequence)
    loss = model.head.nll_sum(outputs.hidden_BTD, targets, weight) + model.auxiliary_loss_sum(outputs.stats)
    return loss, torch.autograd.grad(loss, list(model.parameters()))


def test_initial_weights_depend_on_seed_and_name_only(config):
    one, two, other = (Decoder(config("experts", num_layers=layers)) for layers in (2, 2, 3))
    one.init_weights(7)
    with torch.no_grad():
        torch.randn(5)
    two.init_weights(7)
    other.init_weights(7)
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(one.layers[1].mixer.qkv.weight, other.layers[1].mixer.qkv.weight)
    assert not torch.equal(one.layers[0].mixer.qkv.weight, one.layers[1].mixer.qkv.weight)
    two.init_weights(8)
    assert not torch.equal(one.embedding.weight, two.embedding.weight)


@pytest.mark.parametrize("kind", ["experts", "latent"])
def test_initial_weights_have_the_documented_spread(config, kind):
    settings = config(kind, num_layers=8, num_experts=32).model_copy(update={"init_std": 0.1})
    model = Decoder(settings)
    model.init_weights(0)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == 1).all()
        else:
            assert parameter.std().item() == pytest.approx(initial_std(name, settings), rel=0.2), name
    assert initial_std("layers.0.ffn.down", settings) == initial_std("layers.3.mixer.output.weight", settings) == pytest.approx(0.1 / 4)
    if kind == "latent":
        return
    assert initial_std("layers.0.ffn.router.weight", settings) == 0.1
    assert_close(model.layers[0].ffn.router.load_E, torch.full((32,), 1 / 32))


def test_embeddings_enter_the_first_layer_with_a_spread_of_their_own(config):
    own = config("dense").model_copy(update={"embedding_std": 1.5})
    assert initial_std("embedding.weight", own) == 1.5
    assert initial_std("head.weight", own) == own.init_std
    assert initial_std("embedding.weight", own.model_copy(update={"embedding_scale": 6.0})) == 0.25
    assert initial_std("embedding.weight", own.model_copy(update={"tied": True})) == own.init_std


def test_a_model_on_the_meta_device_comes_alive(config):
    model = Decoder(config("experts", tied=True), device="meta").to_empty(device="cpu")
    model.init_weights(3)
    wanted = Decoder(config("experts", tied=True))
    wanted.init_weights(3)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in wanted.named_parameters()]
    for a, b in zip(model.state_dict().values(), wanted.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert_close(loss_and_gradients(model)[0], loss_and_gradients(wanted)[0])


def test_the_working_copy_keeps_norms_and_routers_in_float32(tiny):
    model = tiny("experts")
    to_working(model, torch.bfloat16)
    for name, parameter in model.named_parameters():
        wide = "norm" in name or "router" in name
        assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
        assert working_dtype(name, parameter, torch.bfloat16) == parameter.dtype
    assert model.router_state()["layers.0.ffn.router.load_E"].dtype == torch.float32


@pytest.mark.parametrize("kind", ["dense", "experts", "delta"])
def test_bf16_stays_close_to_float32(tiny, kind):
    model = tiny(kind, tied=True)
    half = copy.deepcopy(model)
    to_working(half, torch.bfloat16)
    (wide_loss, wide), (half_loss, narrow) = loss_and_gradients(model), loss_and_gradients(half)
    assert half_loss.dtype == torch.float32
    assert half_loss.item() == pytest.approx(wide_loss.item(), rel=0.03)
    for (name, parameter), a, b in zip(half.named_parameters(), wide, narrow, strict=True):
        assert b.dtype == parameter.dtype
        assert (a - b.float()).norm() / a.norm() < (0.5 if kind == "experts" else 0.1), name  # a changed choice is a jump


def test_the_embedding_gradient_of_a_common_token_is_summed_in_float32(tiny):
    """300 equal contributions in bf16, added one by one, would stop growing at 256."""
    model = tiny().bfloat16()
    hidden = model.embedding(torch.full((1, 300), 5))
    hidden.sum().backward()
    assert (model.embedding.weight.grad[5] == 300).all()


def test_two_runs_are_bit_equal(tiny):
    model = tiny("experts", tied=True)
    (loss_a, a), (loss_b, b) = loss_and_gradients(model), loss_and_gradients(model)
    assert torch.equal(loss_a, loss_b)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "experts", "latent", "indexed", "gated", "sandwich"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_parts_equal_eager_ones(tiny, kind, dtype):
    """Whole graphs, one compilation for all blocks (two where only some know positions, or indexers differ), the same numbers, and the same bits every time."""
    torch._dynamo.reset()
    # one choice of experts that rounding changes moves a gradient by half: in bf16 there is nothing to choose
    choosing = {"top_k": 8, "num_groups": 1, "top_groups": 1} if kind == "sandwich" and dtype == torch.bfloat16 else {}
    model = tiny(kind, num_layers=4, query_ranks=(10, 10), window=5 if kind == "sandwich" else None, **choosing)
    to_working(model, dtype)
    eager_loss, eager = loss_and_gradients(model)
    model.compile_parts()
    with torch._dynamo.config.patch(**({"recompile_limit": 2} if kind in ("sandwich", "indexed") else {"error_on_recompile": True})):
        compiled_loss, compiled = loss_and_gradients(model)
        again_loss, again = loss_and_gradients(model)
    assert torch.equal(compiled_loss, again_loss)
    assert all(torch.equal(x, y) for x, y in zip(compiled, again, strict=True))
    tolerance = 1e-5 if dtype == torch.float32 else 0.1 if kind == "dense" else 0.5
    assert compiled_loss.item() == pytest.approx(eager_loss.item(), rel=tolerance)
    for (name, _), a, b in zip(model.named_parameters(), eager, compiled, strict=True):
        assert (a.float() - b.float()).norm() <= tolerance * a.float().norm(), name
