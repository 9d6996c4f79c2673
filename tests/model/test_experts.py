"""Experts against a loop over tokens; the grouped product against a loop over groups; determinism."""

from copy import deepcopy
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.testing import assert_close

from hagane.model import experts as module
from hagane.model import grouped
from hagane.model.config import ExpertsConfig
from hagane.model.experts import Experts, arrange, local_dispatch
from hagane.model.grouped import grouped_linear
from hagane.model.router import Choice


def make_experts(num_experts, top_k, seed, **config):
    torch.manual_seed(seed)
    experts = Experts(8, ExpertsConfig(num_experts=num_experts, top_k=top_k, hidden=5, **config))
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return experts


def reference(experts, hidden_ND):
    """One token at a time, one expert at a time."""
    config, rows = experts.router.config, []
    for token in hidden_ND:
        logit = experts.router.weight @ token
        score = logit.softmax(0) if config.score == "softmax" else logit.sigmoid()
        rank = score + experts.router.bias_E
        groups = rank.view(config.num_groups, -1)
        if config.num_groups > 1:
            closed = [index for index in range(config.num_groups) if index not in groups.topk(2).values.sum(-1).topk(config.top_groups).indices]
            groups[closed] = -torch.inf
        chosen = groups.flatten().topk(config.top_k).indices
        total = score[chosen].sum() if config.normalise else 1.0
        total = total / config.scaling
        row = torch.zeros_like(token)
        for expert in chosen:
            gate, up = (experts.gate_up[expert] @ token).chunk(2)
            row = row + score[expert] / total * (experts.down[expert] @ (F.silu(gate) * up))
        if experts.shared is not None:
            gate, up = (experts.shared.gate_up.weight @ token).chunk(2)
            shared = experts.shared.down.weight @ (F.silu(gate) * up)
            row = row + (shared if experts.shared_gate is None else shared * (experts.shared_gate.weight @ token).sigmoid())
        rows.append(row)
    return torch.stack(rows)


sizes = st.integers(1, 6).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count)))


@given(sizes, st.integers(1, 20), st.booleans(), st.booleans(), st.sampled_from([None, 1, 2, 4]), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_experts_equal_a_loop_over_tokens(sizes, num_tokens, normalise, biased, filled_to, seed):
    experts = make_experts(*sizes, seed, normalise=normalise)
    if biased:
        experts.router.bias_E.normal_()
    hidden = torch.randn(1, num_tokens, 8, requires_grad=True)
    weight = torch.randn(num_tokens, 8)
    exact, exact_hidden = deepcopy(experts).double(), hidden.detach().double().requires_grad_()  # rounding of its own would count as ours
    results = []
    with mock.patch.multiple(module, FILLED_FROM=0, SHAPE_STEP=filled_to) if filled_to else mock.patch.multiple(module, FILLED_FROM=10**6):
        found = experts(hidden, torch.ones(1, num_tokens))[0][0]
    for output, inputs in ((found, [hidden, *experts.parameters()]), (reference(exact, exact_hidden[0]), [exact_hidden, *exact.parameters()])):
        gradients = torch.autograd.grad((output * weight).sum(), inputs)
        results.append((output.double(), *(gradient.double() for gradient in gradients)))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"score": "sigmoid"},
        {"score": "sigmoid", "scaling": 2.5, "shared_hidden": 6},
        {"shared_hidden": 3, "shared_gate": True, "normalise": False},
        {"score": "sigmoid", "num_groups": 4, "top_groups": 2, "shared_hidden": 5},
        {"score": "softmax", "num_groups": 2, "top_groups": 1, "scaling": 0.5},
    ],
)
@given(num_tokens=st.integers(1, 12), top_k=st.integers(1, 4), seed=st.integers(0, 9))
@settings(max_examples=8, deadline=None)
def test_every_way_to_choose_equals_a_loop_over_tokens(config, num_tokens, top_k, seed):
    experts = make_experts(8, top_k, seed, balance="bias", **config)
    experts.router.bias_E.normal_(std=0.3)
    hidden = torch.randn(1, num_tokens, 8, requires_grad=True)
    weight, results = torch.randn(num_tokens, 8), []
    for output in (experts(hidden, torch.ones(1, num_tokens))[0][0], reference(experts, hidden[0])):
        results.append((output, *torch.autograd.grad((output * weight).sum(), [hidden, *experts.parameters()])))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_groups": 3}, "multiple of num_groups"),
        ({"num_groups": 8}, "at least twice"),
        ({"num_groups": 4, "top_groups": 5}, "more than num_groups"),
        ({"top_groups": 2}, "more than num_groups"),
        ({"num_groups": 4, "top_groups": 1, "top_k": 3}, "more than the 2 experts"),
        ({"shared_gate": True}, "shared_hidden is 0"),
    ],
)
def test_impossible_experts_are_refused(change, reason):
    with pytest.raises(ValidationError, match=reason):
        ExpertsConfig(**{"num_experts": 8, "top_k": 2, "hidden": 4, **change})


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 20), st.integers(1, 5), st.integers(0, 9))
@settings(deadline=None)
def test_every_choice_has_one_row_among_those_of_its_expert(num_experts, top_k, num_tokens, multiple, seed):
    chosen_NK = torch.randint(num_experts, (num_tokens, top_k), generator=torch.Generator().manual_seed(seed))
    order_M, row_NK, end_E = arrange(chosen_NK, num_experts, multiple)
    assert order_M[row_NK.flatten()].tolist() == list(range(chosen_NK.numel()))
    assert (order_M == chosen_NK.numel()).sum() == len(order_M) - chosen_NK.numel()
    assert end_E[-1] <= len(order_M)
    start = 0
    for expert, end in enumerate(end_E.tolist()):
        assert (end - start) % multiple == 0
        own = [choice for choice in order_M[start:end].tolist() if choice < chosen_NK.numel()]
        assert own == (chosen_NK.flatten() == expert).nonzero().flatten().tolist()
        start = end


@given(sizes, st.integers(2, 20), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_the_order_of_tokens_does_not_matter(sizes, num_tokens, seed):
    experts = make_experts(*sizes, seed)
    hidden = torch.randn(1, num_tokens, 8)
    order = torch.randperm(num_tokens)
    with torch.no_grad():
        straight, shuffled = (experts(x, torch.ones(1, num_tokens))[0] for x in (hidden, hidden[:, order]))
    assert_close(straight[:, order], shuffled, atol=1e-6, rtol=1e-5)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(sum), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_grouped_product_and_its_gradients(counts, seed):
    torch.manual_seed(seed)
    rows = torch.randn(sum(counts), 3, requires_grad=True)
    weight = torch.randn(len(counts), 7, 3, requires_grad=True)
    out = torch.randn(sum(counts), 7)
    end = torch.tensor(counts).cumsum(0).int()
    wanted = torch.cat([part @ matrix.t() for part, matrix in zip(rows.split(counts), weight, strict=True)])
    result = grouped_linear(rows, weight, end)
    assert_close(result, wanted)
    for ours, theirs in zip(torch.autograd.grad((result * out).sum(), [rows, weight]), torch.autograd.grad((wanted * out).sum(), [rows, weight]), strict=True):
        assert_close(ours, theirs)
    expanded, *_ = torch.autograd.grad(grouped_linear(rows, weight, end).sum(), [weight])  # a gradient with zero strides
    assert_close(expanded, torch.stack([part.sum(0).expand(7, 3) for part in rows.split(counts)]))


@given(st.lists(st.integers(0, 700), min_size=1, max_size=5), st.sampled_from([1, 4, 64]))
@settings(max_examples=50, deadline=None)
def test_pieces_are_all_rows_of_few_sizes(counts, piece):
    end = torch.tensor(counts).cumsum(0).int()
    with mock.patch.object(grouped, "PIECE", piece):
        pieces = grouped._pieces(end)
    rows = [(expert, row) for expert, start, stop in pieces for row in range(start, stop)]
    assert rows == [(expert, row) for expert, (stop, count) in enumerate(zip(end.tolist(), counts, strict=True)) for row in range(stop - count, stop)]
    sizes = {stop - start for _, start, stop in pieces}
    assert all(size < piece or (size % piece == 0 and (size // piece).bit_count() == 1) for size in sizes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_in_pieces_are_those_of_all_rows(dtype):
    torch.manual_seed(0)
    rows, weight = torch.randn(3000, 16, dtype=dtype, requires_grad=True), torch.randn(3, 8, 16, dtype=dtype, requires_grad=True)
    end = torch.tensor([1800, 1800, 3000], dtype=torch.int32)
    found = []
    for piece in (256, 1 << 20):
        with mock.patch.object(grouped, "PIECE", piece):
            result = grouped_linear(rows, weight, end)
            found.append((result, *torch.autograd.grad(result.float().square().sum(), [rows, weight])))
    for ours, whole in zip(*found, strict=True):
        assert_close(ours, whole, atol=1e-5 * whole.abs().max().item() if dtype == torch.float32 else 0.02 * whole.abs().max().item(), rtol=0)


@pytest.mark.parametrize(("rows", "step"), [(400, 32), (96, 32), (95, 16), (24, 8), (6, 2), (5, 1)])
def test_small_groups_are_filled_in_small_steps(rows, step):
    assert module.row_step(torch.device("cpu"), 4 * rows, 4) == step and module.row_step(torch.device("cuda"), 4 * rows, 4) == 1


@given(st.lists(st.integers(0, 90), min_size=1, max_size=5), st.sampled_from([1, 2, 8]), st.sampled_from([8, 64]))
@settings(max_examples=50, deadline=None)
def test_products_are_built_for_all_pieces_and_no_others(counts, step, piece):
    end = (torch.tensor(counts) * step).cumsum(0).int()
    with mock.patch.object(grouped, "PIECE", piece):
        met = {stop - start for _, start, stop in grouped._pieces(end)}
        sizes, whole = grouped.piece_sizes(max(counts) * step, step), grouped._pieces(torch.tensor(range(0, 91 * step, step)).cumsum(0).int())
    assert met <= {*sizes} <= {stop - start for _, start, stop in whole} and len({*sizes}) == len(sizes)


def test_a_step_meets_no_product_that_was_not_built():
    """Sizes of rows that the library multiplies in, forward and backward, are among those built before the first step."""
    experts = make_experts(4, 2, 0).bfloat16()
    built, met = [], []
    with mock.patch.object(module, "build_products", lambda weight, sizes: built.extend(sizes)):
        experts.build_products(100)
    pieces = grouped._pieces

    def watched(end_E):
        found = pieces(end_E)
        met.extend(stop - start for _, start, stop in found)
        return found

    with mock.patch.object(grouped, "_pieces", watched):
        output, _ = experts(torch.randn(1, 100, 8, dtype=torch.bfloat16), torch.ones(1, 100))
        output.float().sum().backward()
    assert built and {*met} <= {*built}
    grouped.build_products(experts.gate_up[0], built)


def test_the_registered_operators_are_sound():
    """torch's own checks: schema, fake shapes, autograd registration, and the same under AOT."""
    rows, weight = torch.randn(6, 3, requires_grad=True), torch.randn(3, 4, 3, requires_grad=True)
    end = torch.tensor([2, 2, 6], dtype=torch.int32)
    torch.library.opcheck(torch.ops.hagane.grouped_linear.default, (rows, weight, end, False))
    torch.library.opcheck(torch.ops.hagane.grouped_linear.default, (torch.randn(6, 4), weight, end, True))
    torch.library.opcheck(torch.ops.hagane.grouped_outer.default, (torch.randn(6, 4), torch.randn(6, 3), end))


def test_no_token_is_dropped_when_all_choose_one_expert():
    """Identity experts with weights that sum to one give the input back, however uneven the load."""
    hidden = torch.randn(50, 8)
    choice = Choice(torch.tensor([[2, 0]]).expand(50, 2), torch.tensor([[0.75, 0.25]]).expand(50, 2).contiguous())
    assert_close(local_dispatch(hidden, choice, 4, lambda rows, end: rows), hidden)


def test_two_runs_are_bit_equal():
    experts = make_experts(6, 3, 0)
    hidden = torch.randn(4, 64, 8, requires_grad=True)

    def run():
        output, stats = experts(hidden, torch.ones(4, 64))
        loss = output.square().sum() + stats.probability_E.square().sum() + stats.z_sum
        return [output, *torch.autograd.grad(loss, [hidden, *experts.parameters()])]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
