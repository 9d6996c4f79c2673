"""Null experts: equal to experts of zeros, free, counted, and held at a budget."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.testing import assert_close

from hagane.hosts import null
from hagane.hosts.base import as_held
from hagane.model import experts as module
from hagane.model.config import ExpertsConfig
from hagane.model.count import flops_per_token, num_active_parameters, num_parameters
from hagane.model.decoder import Decoder
from hagane.model.experts import Experts, arrange
from hagane.model.grouped import grouped_linear
from hagane.model.router import Router
from hagane.model.sequence import Sequence

CHANGES = [{}, {"score": "sigmoid"}, {"normalise": False, "shared_hidden": 3}]
NULL = {"null_experts": 4, "mean_experts": 1.5, "top_k": 3}


def weights(decoder):
    return {name: tensor.detach() for name, tensor in decoder.named_parameters()} | decoder.selection_biases()


def held(decoder):
    """The same model with experts of zeros in the place of null ones."""
    config = as_held(decoder.config)
    other = Decoder(config)
    other.reset_state()
    state = null.as_held(weights(decoder), decoder.config)
    assert not other.load_state_dict(state, strict=False).unexpected_keys
    return other


@pytest.mark.parametrize("filled_to", [None, 4])
@given(st.sampled_from(CHANGES), st.integers(1, 4), st.integers(1, 5), st.integers(1, 30), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_null_experts_equal_experts_of_zeros(filled_to, change, top_k, num_null, num_tokens, seed):
    """Output and the gradients of everything both have; rows that nobody writes hold NaN here, and must not be seen."""
    torch.manual_seed(seed)
    config = ExpertsConfig(num_experts=4, top_k=top_k, hidden=5, null_experts=num_null, balance="bias", **change)
    ours = Experts(8, config)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours.router.bias_E.normal_(std=0.1)
    theirs = Experts(8, config.model_copy(update={"num_experts": config.num_outputs, "null_experts": 0}))
    zeros = {"gate_up": torch.zeros(num_null, 10, 8), "down": torch.zeros(num_null, 8, 5), "router.bias_E": torch.zeros(num_null)}
    state = {name: torch.cat([tensor, zeros[name]]) if name in zeros else tensor for name, tensor in ours.state_dict().items() if not name.endswith("load_E")}
    theirs.load_state_dict(state, strict=False)

    def poisoned(rows, weight, end, eager):
        result = grouped_linear(rows, weight, end, eager)
        unseen = torch.arange(len(rows))[:, None] >= end[-1]
        return torch.where(unseen, torch.nan, result) if unseen.any() else result

    hidden, out = torch.randn(1, num_tokens, 8, requires_grad=True), torch.randn(num_tokens, 8)
    found = []
    patch = {"FILLED_FROM": 0, "SHAPE_STEP": filled_to} if filled_to else {"FILLED_FROM": 10**6}
    with mock.patch.multiple(module, grouped_linear=poisoned, **patch):
        for experts in (ours, theirs):
            output, stats = experts(hidden, torch.ones(1, num_tokens))
            names = [name for name, _ in experts.named_parameters()]
            gradients = torch.autograd.grad((output[0] * out).sum() + stats.z_sum, [hidden, *experts.parameters()])
            found.append((output, stats, gradients[0], dict(zip(names, gradients[1:], strict=True))))
    assert_close(found[0][0], found[1][0])
    assert_close(found[0][2], found[1][2])
    for name, gradient in found[0][3].items():
        assert_close(gradient, found[1][3][name][: len(gradient)], msg=name)
    assert_close(found[0][1].entropy_sum, found[1][1].entropy_sum)
    assert_close(found[0][1].count_E, found[1][1].count_E[:4])


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 20), st.integers(1, 5), st.integers(0, 9))
@settings(deadline=None)
def test_no_row_of_an_expert_is_of_a_null_choice(num_experts, num_null, top_k, num_tokens, multiple, seed):
    chosen_NK = torch.randint(num_experts + num_null, (num_tokens, top_k), generator=torch.Generator().manual_seed(seed))
    order_M, row_NK, end_E = arrange(chosen_NK, num_experts, multiple, with_null=True)
    nothing, computed_NK = chosen_NK.numel(), chosen_NK < num_experts
    assert sorted(order_M[order_M < nothing].tolist()) == computed_NK.flatten().nonzero().flatten().tolist()
    assert order_M[row_NK[computed_NK]].tolist() == computed_NK.flatten().nonzero().flatten().tolist()
    assert (row_NK[~computed_NK] >= end_E[-1]).all() and len(set(row_NK.flatten().tolist())) == nothing
    assert (row_NK < max(1, len(order_M))).all()
    start = 0
    for expert, end in enumerate(end_E.tolist()):
        own = [choice for choice in order_M[start:end].tolist() if choice < nothing]
        assert (end - start) % multiple == 0 and own == (chosen_NK.flatten() == expert).nonzero().flatten().tolist()
        start = end


def test_null_choices_are_not_multiplied(tiny):
    """The groups that are multiplied hold exactly the choices that are not null."""
    model = tiny("experts", **NULL)
    seen = []

    def spy(rows, weight, end, eager):
        seen.append(int(end[-1]))
        return grouped_linear(rows, weight, end, eager)

    with mock.patch.multiple(module, grouped_linear=spy, FILLED_FROM=10**6), torch.no_grad():
        stats = model(torch.randint(0, 61, (2, 30)), Sequence.plain(2, 30)).stats
    used = [int(layer.used_N.sum()) for layer in stats.layers]
    assert seen == [used[0], used[0], used[1], used[1]] and 0 < used[0] < 2 * 30 * 3


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_the_model_equals_the_one_that_hosts_hold(tiny, score):
    model = tiny("experts", score=score, balance="bias", **NULL)
    model.layers[0].ffn.router.bias_E.normal_(std=0.1)
    other, tokens = held(model), torch.randint(0, 61, (2, 12))
    with torch.no_grad():
        assert_close(model(tokens, Sequence.plain(2, 12)).hidden_BTD, other(tokens, Sequence.plain(2, 12)).hidden_BTD)
    back = null.as_ours(null.as_held(weights(model), model.config), model.config)
    assert back.keys() == weights(model).keys() and all(torch.equal(back[name], tensor) for name, tensor in weights(model).items())


@torch.no_grad()
def test_decoding_step_by_step_equals_the_whole(tiny):
    model = tiny("experts", **NULL)
    tokens = torch.randint(0, 61, (2, 10))
    whole = model(tokens, Sequence.plain(2, 10)).hidden_BTD
    cache = model.new_cache(2, 10)
    steps = [model(tokens[:, place : place + 1], cache.sequence([1, 1]), cache).hidden_BTD for place in range(10)]
    assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_compiled_equals_eager(tiny):
    """Packed documents, forward and backward, with clamping beside."""
    from hagane.model.config import EntropyClamp

    position = torch.arange(40) % 13
    sequence = Sequence(position.expand(2, 40), (torch.arange(40) // 13).int().expand(2, 40))
    tokens, results = torch.randint(0, 61, (2, 40)), []
    for compiled in (False, True):
        model = tiny("experts", balance="bias", entropy_clamp=EntropyClamp(conditional_high=0.5), **NULL)
        if compiled:
            model.compile_parts()
        model.router_step(model(tokens, sequence).stats)
        outputs = model(tokens, sequence)
        (outputs.hidden_BTD.square().sum() + model.auxiliary_loss_sum(outputs.stats)).backward()
        results.append((outputs.hidden_BTD, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)))
    for eager, fused in zip(*results, strict=True):
        assert_close(fused, eager, atol=1e-4, rtol=1e-3)


def test_statistics_count_what_was_used():
    torch.manual_seed(0)
    router = Router(8, ExpertsConfig(num_experts=4, top_k=3, hidden=4, null_experts=3))
    torch.nn.init.normal_(router.weight)
    real = (torch.arange(40) < 30).float()
    choice, stats = router(torch.randn(40, 8), real)
    used = (choice.expert_NK < 4).sum(-1)
    assert stats.used_N.tolist() == used.tolist()
    assert stats.used_H.tolist() == [int((used[:30] == count).sum()) for count in range(4)]
    assert stats.count_E.tolist() == [int((choice.expert_NK[:30] == expert).sum()) for expert in range(4)]
    assert stats.probability_E.shape == (7,) and stats.probability_E.sum().item() == pytest.approx(30.0, abs=1e-4)


@pytest.mark.parametrize(("balance", "tolerance"), [("bias", 0.03), ("loss", 0.15)])
@pytest.mark.parametrize("budget", [0.8, 2.1])
def test_balancing_holds_the_budget_and_keeps_experts_even(balance, tolerance, budget):
    """From a router that likes two experts, on new tokens in every step; the bias holds it closely, the loss about."""
    torch.manual_seed(0)
    router = Router(8, ExpertsConfig(
        num_experts=6, top_k=3, hidden=4, null_experts=6, mean_experts=budget, balance=balance, bias_rate=0.01, aux_coefficient=1.0, z_coefficient=0.0,
    ))  # fmt: skip
    torch.nn.init.normal_(router.weight, std=0.3)
    with torch.no_grad():
        router.weight[:2, 0] += 1.0
    used, counts = [], []
    for _ in range(900):
        _, stats = router(torch.randn(256, 8) + torch.eye(8)[0], torch.ones(256))
        if balance == "loss":
            (gradient,) = torch.autograd.grad(router.auxiliary_loss_sum(stats) / 256, [router.weight])
            with torch.no_grad():
                router.weight -= 0.1 * gradient
        router.step(stats)
        used.append(float(stats.count_E.sum() / 256))
        counts.append(stats.count_E)
    assert sum(used[-200:]) / 200 == pytest.approx(budget, rel=tolerance)
    load = torch.stack(counts[-200:]).sum(0)
    assert load.max() / load.mean() < 1.3
    assert router.load_E.sum().item() == pytest.approx(1.0, abs=1e-5)
    if balance == "bias":
        assert abs(used[0] - budget) > 0.1 * budget


def test_the_balancing_loss_has_no_gradient_at_the_load_that_is_wanted():
    router = Router(8, ExpertsConfig(num_experts=4, top_k=2, hidden=4, null_experts=2, mean_experts=0.7, z_coefficient=0.0))
    torch.nn.init.normal_(router.weight)
    _, stats = router(torch.randn(20, 8), torch.ones(20))
    (gradient,) = torch.autograd.grad(router.auxiliary_loss_sum(stats), [router.weight])
    assert gradient.abs().max() < 1e-6
    assert router.load_E.tolist() == pytest.approx([0.7 / 8] * 4 + [1 - 0.35])


def test_active_parameters_are_counted_at_the_budget(config):
    plain, with_null = config("experts", top_k=3), config("experts", **NULL)
    one = 3 * 24 * 20 * 2  # an expert, in both layers
    assert num_parameters(with_null) - num_parameters(plain) == 2 * 4 * 24  # rows of the routers
    assert num_active_parameters(plain) - num_active_parameters(with_null) == 1.5 * one - 2 * 4 * 24
    assert flops_per_token(plain, 16) - flops_per_token(with_null, 16) == 2 * (1.5 * one - 2 * 4 * 24)
    assert sum(parameter.numel() for parameter in Decoder(with_null, device="meta").parameters()) == num_parameters(with_null)
    assert config("experts", top_k=3, null_experts=2).layers[0].ffn.mean_used == pytest.approx(3 * 6 / 8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"null_experts": 2, "num_groups": 2}, "leave num_groups at 1"),
        ({"mean_experts": 1.0}, "null_experts is 0"),
        ({"null_experts": 4, "mean_experts": 2.0}, "below top_k 2"),
        ({"null_experts": 1, "mean_experts": 1.0}, "above 1"),
    ],
)
def test_impossible_budgets_are_refused(change, reason):
    with pytest.raises(ValidationError, match=reason):
        ExpertsConfig(**{"num_experts": 8, "top_k": 2, "hidden": 4, **change})
