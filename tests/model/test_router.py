"""Router statistics, their losses, and that balancing balances."""

import copy

import pytest
import torch
from torch.testing import assert_close

from hagane.model.config import ExpertsConfig
from hagane.model.router import Router
from hagane.model.sequence import PADDING, Sequence


def make_router(**config):
    torch.manual_seed(0)
    router = Router(8, ExpertsConfig(num_experts=6, top_k=2, hidden=4, **config))
    torch.nn.init.normal_(router.weight)
    return router


def test_statistics_are_the_sums_they_say():
    router = make_router()
    hidden, real = torch.randn(20, 8), (torch.arange(20) < 15).float()
    choice, stats = router(hidden, real)
    logits = (hidden @ router.weight.t())[:15]
    probabilities = logits.softmax(-1)
    assert stats.count_E.tolist() == choice.expert_NK[:15].flatten().bincount(minlength=6).tolist()
    assert_close(stats.probability_E, probabilities.sum(0))
    assert_close(stats.z_sum, logits.logsumexp(-1).square().sum())
    assert_close(stats.entropy_sum, torch.distributions.Categorical(probabilities).entropy().sum())
    assert stats.num_tokens == 15
    assert_close(choice.weight_NK.sum(-1), torch.ones(20))


def test_sigmoid_scores_count_as_shares_of_their_sum():
    router = make_router(score="sigmoid", balance="bias")
    hidden = torch.randn(20, 8)
    choice, stats = router(hidden, torch.ones(20))
    score = (hidden @ router.weight.t()).sigmoid()
    shares = score / score.sum(-1, keepdim=True)
    assert_close(stats.probability_E, shares.sum(0))
    assert_close(stats.entropy_sum, torch.distributions.Categorical(shares).entropy().sum())
    assert_close(choice.weight_NK, score.gather(1, choice.expert_NK) / score.gather(1, choice.expert_NK).sum(-1, keepdim=True))


def test_sigmoids_that_are_all_zero_are_not_divided_by_zero():
    router = make_router(score="sigmoid")
    with torch.no_grad():
        router.weight.fill_(-100.0)
    choice, stats = router(torch.ones(3, 8), torch.ones(3))
    assert torch.isfinite(choice.weight_NK).all() and torch.isfinite(stats.probability_E).all() and torch.isfinite(stats.entropy_sum)


def test_padding_never_counts(tiny):
    """The same tokens with padding behind them: the same statistics and losses."""
    model = tiny("experts")
    tokens = torch.randint(0, 61, (2, 9))
    padded = torch.cat([tokens, torch.randint(0, 61, (2, 4))], dim=1)
    document = torch.zeros(2, 13, dtype=torch.int32)
    document[:, 9:] = PADDING
    plain = model(tokens, Sequence.plain(2, 9)).stats
    with_padding = model(padded, Sequence(torch.arange(13).expand(2, 13), document)).stats
    for a, b in zip(plain.layers, with_padding.layers, strict=True):
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)
    assert_close(model.auxiliary_loss_sum(plain), model.auxiliary_loss_sum(with_padding))


def test_losses_do_not_depend_on_the_split_into_micro_steps(tiny):
    model = tiny("experts")
    tokens = torch.randint(0, 61, (4, 9))
    model.router_step(model(tokens, Sequence.plain(4, 9)).stats)  # an uneven load to balance against
    whole = model(tokens, Sequence.plain(4, 9)).stats
    halves = [model(half, Sequence.plain(2, 9)).stats for half in tokens.split(2)]
    assert_close(model.auxiliary_loss_sum(whole), sum(model.auxiliary_loss_sum(half) for half in halves))
    for a, b in zip(whole.layers, (halves[0] + halves[1]).layers, strict=True):
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)


def test_forward_changes_nothing_and_a_step_does(tiny):
    model = tiny("experts", balance="bias")
    before = copy.deepcopy(model.state_dict())
    stats = model(torch.randint(0, 61, (2, 9)), Sequence.plain(2, 9)).stats
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.router_step(stats)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == set(model.router_state())
    assert_close(model.router_state()["layers.0.ffn.router.load_E"], stats.layers[0].count_E / 36)


def router_gradient(model, aux_coefficient):
    model = copy.deepcopy(model)
    for block in model.layers:
        block.ffn.router.config = block.ffn.router.config.model_copy(update={"aux_coefficient": aux_coefficient, "z_coefficient": 0.0})
    tokens = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))
    outputs = model(tokens, Sequence.plain(2, 9))
    (outputs.hidden_BTD.square().mean() + model.auxiliary_loss_sum(outputs.stats) / 18).backward()
    return model.layers[0].ffn.router.weight.grad


def test_the_balancing_loss_reaches_the_router(tiny):
    """Fails when the auxiliary term has no effect: it pushes against a load it has seen, and against an even one not at all."""
    model = tiny("experts")
    assert_close(router_gradient(model, 0.0), router_gradient(model, 1.0), atol=1e-6, rtol=1e-5)
    model.router_step(model(torch.randint(0, 61, (2, 9)), Sequence.plain(2, 9)).stats)
    assert (router_gradient(model, 0.0) - router_gradient(model, 1.0)).abs().max() > 1e-3


def violation(count_E):
    return (count_E.max() / count_E.mean() - 1).item()


def collapsed_router(**config):
    """A router whose inputs share a direction that two experts like: a load that is very uneven."""
    router = make_router(**config)
    with torch.no_grad():
        router.weight[:2, 0] += 4.0
    return router, torch.randn(256, 8) + torch.eye(8)[0]


def test_descending_the_balancing_loss_evens_the_load():
    router, hidden = collapsed_router(aux_coefficient=1.0, z_coefficient=0.0)
    violations = []
    for _ in range(60):
        _, stats = router(hidden, torch.ones(256))
        violations.append(violation(stats.count_E))
        (gradient,) = torch.autograd.grad(router.auxiliary_loss_sum(stats) / 256, [router.weight])
        with torch.no_grad():
            router.weight -= 1.0 * gradient
        router.step(stats)
    assert violations[0] > 1.0
    assert violations[-1] < 0.5 * violations[0]


@pytest.mark.parametrize(("balance", "moves"), [("bias", True), ("loss", False)])
def test_the_selection_bias_evens_the_load_without_a_gradient(balance, moves):
    router, hidden = collapsed_router(balance=balance, bias_rate=0.005)
    violations = []
    for _ in range(200):
        _, stats = router(hidden, torch.ones(256))
        violations.append(violation(stats.count_E))
        if len(violations) == 1:
            favourite, weakest = int(stats.count_E.argmax()), int(stats.count_E.argmin())
        router.step(stats)
        if len(violations) == 1 and moves:
            assert router.bias_E[favourite] < 0 < router.bias_E[weakest]
    assert violations[0] > 1.0
    assert (violations[-1] < 0.4 * violations[0]) == moves
    assert router.bias_E.any() == moves


def test_the_bias_chooses_but_does_not_weigh():
    router = make_router(balance="bias")
    hidden = torch.randn(5, 8)
    router.bias_E += torch.tensor([0.0, 0.0, 0.0, 9.0, 9.0, 0.0])
    choice, _ = router(hidden, torch.ones(5))
    assert choice.expert_NK.sort(-1).values.tolist() == [[3, 4]] * 5
    score = (hidden @ router.weight.t()).softmax(-1).gather(1, choice.expert_NK)
    assert_close(choice.weight_NK, score / score.sum(-1, keepdim=True))


def test_a_layout_can_make_counts_global():
    router = make_router()
    router.reduce = lambda count: count + torch.tensor([6.0, 0, 0, 0, 0, 0])  # what another process counted
    _, stats = router(torch.randn(3, 8), torch.ones(3))
    router.step(stats)
    assert_close(router.load_E, (stats.count_E + torch.tensor([6.0, 0, 0, 0, 0, 0])) / 12)


def test_a_step_without_tokens_keeps_the_load():
    router = make_router(balance="bias")
    _, stats = router(torch.randn(3, 8), torch.zeros(3))
    router.step(stats)
    assert_close(router.load_E, torch.full((6,), 1 / 6))
    assert not router.bias_E.any()
