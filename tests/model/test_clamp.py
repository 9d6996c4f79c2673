"""Entropy clamping: closed forms, no gradient inside the bands, the right one outside, dual ascent, and rescue from collapse."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.testing import assert_close

from hagane.model.clamp import BOUNDS, Clamp, token_entropy
from hagane.model.config import EntropyClamp, ExpertsConfig
from hagane.model.router import Router

NUM = 6


def sums(share_NE):
    """What a router says of tokens with these routing distributions."""
    return share_NE.sum(0), token_entropy(share_NE).sum(), torch.tensor(float(len(share_NE)))


def entropy(share):
    return -sum(p * math.log(p) for p in share if p > 0)


def clamp_at(marginal, conditional, **config):
    """A clamp whose running means are these."""
    clamp = Clamp(EntropyClamp(**config), NUM)
    clamp.entropy_2.copy_(torch.tensor([marginal, conditional]))
    return clamp


def router_with(score, **clamp):
    torch.manual_seed(0)
    plain = ExpertsConfig(num_experts=NUM, top_k=2, hidden=4, score=score, aux_coefficient=0.0, z_coefficient=0.0)
    router = Router(8, plain.model_copy(update={"entropy_clamp": EntropyClamp(**clamp)}))
    torch.nn.init.normal_(router.weight)
    return router


@given(st.lists(st.lists(st.floats(0.0, 1.0), min_size=NUM, max_size=NUM).filter(lambda row: sum(row) > 0.1), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_running_means_go_to_the_entropies_of_their_closed_forms(rows):
    share_NE = torch.tensor(rows)
    share_NE = share_NE / share_NE.sum(-1, keepdim=True)
    clamp = Clamp(EntropyClamp(), NUM)
    for _ in range(200):
        clamp.step(*sums(share_NE), share_NE.mean(0), lambda x: x)
    marginal, conditional = clamp.entropy_2.tolist()
    assert marginal == pytest.approx(entropy(share_NE.mean(0).tolist()) / math.log(NUM), abs=1e-4)
    assert conditional == pytest.approx(sum(entropy(row) for row in share_NE.tolist()) / len(rows) / math.log(NUM), abs=1e-4)
    assert -1e-5 <= conditional <= marginal + 1e-4 <= 1 + 2e-4  # their difference is mutual information
    assert_close(clamp.marginal_E, share_NE.mean(0))


def test_the_three_known_routers():
    """Even and undecided, even and decided, collapsed."""
    decided = torch.eye(NUM)
    for share_NE, wanted in ((torch.full((4, NUM), 1 / NUM), (1.0, 1.0)), (decided, (1.0, 0.0)), (decided[:1].expand(4, NUM), (0.0, 0.0))):
        clamp = Clamp(EntropyClamp(), NUM)
        for _ in range(200):
            clamp.step(*sums(share_NE), share_NE.mean(0), lambda x: x)
        assert clamp.entropy_2.tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_inside_the_bands_there_is_no_gradient_at_all(score):
    router = router_with(score, marginal_low=0.2, conditional_low=0.01, conditional_high=0.999)
    _, stats = router(torch.randn(40, 8), torch.ones(40))
    router.step(stats)
    _, stats = router(torch.randn(40, 8), torch.ones(40))
    loss = router.auxiliary_loss_sum(stats)
    assert loss == 0.0
    (gradient,) = torch.autograd.grad(loss, [router.weight])
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("outside", "which", "sign"),
    [((0.1, 0.5), "marginal", 1), ((1.0, 0.0), "conditional", 1), ((1.0, 1.0), "conditional", -1)],
)
def test_outside_a_step_down_the_gradient_moves_the_entropy_back(score, outside, which, sign):
    router, hidden = router_with(score, marginal_low=0.9), torch.randn(60, 8)

    def entropies():
        _, stats = router(hidden, torch.ones(60))
        marginal = torch.special.entr(stats.probability_E / 60).sum()
        return stats, {"marginal": marginal.item(), "conditional": stats.entropy_sum.item() / 60}

    stats, before = entropies()
    router.step(stats)  # the tangent is taken at this marginal
    router.clamp.entropy_2.copy_(torch.tensor(outside))
    (gradient,) = torch.autograd.grad(router.auxiliary_loss_sum(stats), [router.weight])
    assert gradient.abs().max() > 0
    with torch.no_grad():
        router.weight -= 1e-2 * gradient / gradient.norm()
    assert sign * (entropies()[1][which] - before[which]) > 0


def test_an_even_router_that_always_chooses_the_same_is_outside():
    """Probabilities alone look healthy; half of what is judged are choices. The pull goes from the chosen to the others."""
    share_NE, load_E = torch.full((4, NUM), 1 / NUM, requires_grad=True), torch.tensor([0.5, 0.5, 0, 0, 0, 0])
    clamp = Clamp(EntropyClamp(), NUM)
    for _ in range(200):
        clamp.step(*sums(share_NE), load_E, lambda x: x)
    mean = [1 / 3] * 2 + [1 / 12] * 4
    assert clamp.entropy_2[0].item() == pytest.approx(entropy(mean) / math.log(NUM), abs=1e-4)
    clamp.entropy_2[1] = 0.5
    (gradient,) = torch.autograd.grad(clamp.loss_sum(*sums(share_NE)), [share_NE])
    assert (gradient[:, :2].amin() > gradient[:, 2:].amax()).all()


def test_the_running_mean_says_whether_a_batch_is_pulled_and_the_batch_how_far():
    """A batch inside the band gives a negative term while the mean is outside; one outside gives nothing while the mean is inside."""
    decided, undecided = torch.eye(NUM), torch.full((NUM, NUM), 1 / NUM)  # conditional entropy 0 and 1
    outside, inside = clamp_at(1.0, 0.99, conditional_low=0.0), clamp_at(1.0, 0.5, conditional_low=0.0)
    each = outside.config.start * NUM
    assert float(outside.loss_sum(*sums(decided))) == pytest.approx(-0.95 * each, rel=1e-5)
    assert float(outside.loss_sum(*sums(undecided))) == pytest.approx(0.05 * each, rel=1e-4)
    assert float(inside.loss_sum(*sums(decided))) == float(inside.loss_sum(*sums(undecided))) == 0.0


def test_the_marginal_term_has_the_gradient_of_the_entropy_itself():
    """The tangent is linear in the batch, and at its own marginal has the slope of what it stands for."""
    share_NE = torch.softmax(torch.randn(9, NUM, generator=torch.Generator().manual_seed(0)), -1).requires_grad_()
    clamp = clamp_at(0.5, 0.5)
    clamp.marginal_E.copy_(share_NE.detach().mean(0))
    (ours,) = torch.autograd.grad(clamp.loss_sum(*sums(share_NE)), [share_NE])
    (exact,) = torch.autograd.grad(-0.01 * 9 * torch.special.entr(share_NE.mean(0)).sum() / math.log(NUM), [share_NE])
    centred = [gradient - gradient.mean(-1, keepdim=True) for gradient in (ours, exact)]  # along distributions: their sums do not change
    assert_close(*centred)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_a_multiplier_rises_outside_its_band_and_falls_inside(marginal, conditional, bound):
    clamp = clamp_at(marginal, conditional, rate=0.01)
    before = clamp.log_multiplier_B.clone()
    uniform = torch.full((4, NUM), 1 / NUM)
    clamp.step(*sums(uniform), uniform[0], lambda x: x)  # the running means move first, then the multipliers
    outside = clamp.violations()[bound]
    assert_close(clamp.log_multiplier_B[bound] - before[bound], 0.01 * outside, atol=1e-6, rtol=1e-3)
    now_marginal, now_conditional = clamp.entropy_2.tolist()
    assert (outside > 0) == [now_marginal < 0.98, now_conditional < 0.05, now_conditional > 0.95][bound]


def test_multipliers_stay_within_their_limits():
    clamp = clamp_at(0.0, 0.0, rate=10.0)
    for _ in range(50):
        clamp.step(*sums(torch.eye(NUM)[:1].expand(4, NUM)), torch.eye(NUM)[0], lambda x: x)
    assert clamp.log_multiplier_B.exp().tolist() == pytest.approx([1.0, 1.0, 1e-3])


def test_the_loss_does_not_depend_on_the_split_into_micro_steps():
    router, hidden = router_with("softmax"), torch.randn(40, 8)
    _, stats = router(hidden, torch.ones(40))
    router.step(stats)
    router.clamp.entropy_2.copy_(torch.tensor([0.3, 0.99]))
    whole = router.auxiliary_loss_sum(router(hidden, torch.ones(40))[1])
    parts = [router.auxiliary_loss_sum(router(part, torch.ones(len(part)))[1]) for part in hidden.split(15)]
    assert_close(whole, sum(parts))


def test_a_layout_can_make_it_global_and_a_step_without_tokens_changes_nothing():
    router = router_with("softmax")
    first, second = torch.randn(20, 8), torch.randn(12, 8)
    other = router(second, torch.ones(12))[1]
    pieces = iter([other.count_E, torch.cat([other.probability_E, other.entropy_sum[None], other.num_tokens[None]])])
    router.reduce = lambda mine: mine + next(pieces)
    router.step(router(first, torch.ones(20))[1])
    whole = router_with("softmax")
    whole.step(whole(torch.cat([first, second]), torch.ones(32))[1])
    for name, tensor in whole.named_buffers():
        assert_close(dict(router.named_buffers())[name], tensor)
    before = {name: tensor.clone() for name, tensor in whole.named_buffers()}
    whole.step(whole(first, torch.zeros(20))[1])
    assert all(torch.equal(before[name], tensor) for name, tensor in whole.named_buffers())


@pytest.mark.parametrize(
    ("change", "reason"), [({"conditional_low": 0.9, "conditional_high": 0.5}, "must be below"), ({"start": 2.0}, "must be between")]
)
def test_impossible_bands_are_refused(change, reason):
    with pytest.raises(ValidationError, match=reason):
        EntropyClamp(**change)


def test_the_bounds_have_the_names_that_metrics_give_them():
    assert BOUNDS == ("marginal_low", "conditional_low", "conditional_high")


@pytest.mark.parametrize("clamped", [True, False])
def test_a_collapsed_router_recovers_only_with_the_clamp(clamped):
    """A router born collapsed: two of its six experts take all tokens whatever they are. Nothing but the clamp's loss pulls here."""
    router = router_with("softmax", rate=0.3)
    if not clamped:
        router.clamp = None
    hidden = torch.cat([2 + 0.2 * torch.randn(256, 1), torch.randn(256, 7)], 1)
    with torch.no_grad():
        router.weight *= 0.5
        router.weight[:, 0] = torch.tensor([3.0, 3.0, 0.0, 0.0, 0.0, 0.0])
    dead = []
    for _ in range(400):
        _, stats = router(hidden, torch.ones(256))
        dead.append(int((stats.count_E == 0).sum()))
        if (loss := router.auxiliary_loss_sum(stats) / 256).requires_grad:
            (gradient,) = torch.autograd.grad(loss, [router.weight])
            with torch.no_grad():
                router.weight -= 0.3 * gradient
        router.step(stats)
    assert dead[0] >= 3
    assert (dead[-1] == 0) == clamped
    if clamped:
        assert router.clamp.entropy_2[0] > 0.95
