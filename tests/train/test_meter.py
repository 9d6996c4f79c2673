"""Rates, utilisation and router health are what they say."""

import math

import pytest
import torch
from toy_training import settings

from hagane.model.router import RouterStats, Stats
from hagane.train.health import RouterSums, correlation, moments
from hagane.train.meter import Meter, memory_bytes, peak_memory_bytes

CPU = torch.device("cpu")


def stats(count: list[float], probability: list[float], entropy: float, tokens: float) -> RouterStats:
    return RouterStats(torch.tensor(count), torch.tensor(probability), torch.tensor(0.0), torch.tensor(entropy), torch.tensor(tokens))


def test_router_health_of_a_lopsided_layer() -> None:
    sums = RouterSums()
    for _ in range(2):  # two steps: 8 tokens each, top 1 of 4
        sums.add(Stats([None, stats([6.0, 2.0, 0.0, 0.0], [4.0, 2.0, 1.0, 1.0], 8 * 0.5, 8.0)]))
    health = sums.health()
    assert health.max_violation == pytest.approx(0.75 * 4 - 1)
    assert health.dead_share == 0.5
    assert health.effective_experts == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert health.conditional_entropy == pytest.approx(0.5)
    assert health.marginal_entropy == pytest.approx(-(0.5 * math.log(0.5) + 0.25 * math.log(0.25) + 2 * 0.125 * math.log(0.125)))


def test_router_health_of_even_layers_and_of_none() -> None:
    sums = RouterSums()
    assert sums.health() is None
    sums.add(Stats([None, None]))
    assert sums.health() is None
    sums.add(Stats([stats([4.0, 4.0], [4.0, 4.0], 0.0, 8.0), stats([8.0, 0.0], [8.0, 0.0], 0.0, 8.0)]))
    health = sums.health()
    assert health.max_violation == pytest.approx(1.0)  # the worst layer
    assert health.dead_share == pytest.approx(0.25)  # the mean of layers
    assert health.effective_experts == pytest.approx(1.5)


def test_experts_used_and_their_correlation_with_the_loss() -> None:
    used, loss = torch.tensor([0.0, 1.0, 2.0, 2.0, 1.0, 3.0]), torch.tensor([1.0, 2.5, 2.0, 4.0, 1.5, 3.0])
    weight = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0, 0.0])
    sums, one = RouterSums(), stats([4.0, 2.0], [4.0, 4.0], 0.0, 5.0)
    for part in (slice(0, 2), slice(2, 6)):
        histogram = used[part].long().bincount(weights=(weight[part] > 0).float(), minlength=4)
        sums.add(Stats([one._replace(used_H=histogram, used_N=used[part])]), moments(used[part], loss[part], weight[part]))
    health = sums.health()
    assert health.mean_experts == pytest.approx(1.2) and health.experts_used == pytest.approx((0.2, 0.4, 0.4, 0.0))
    assert health.loss_correlation == pytest.approx(torch.corrcoef(torch.stack([used[:5], loss[:5]]))[0, 1].item())
    assert correlation(moments(torch.ones(5), loss[:5], torch.ones(5))) is None


def test_rates_leave_out_first_steps_in_facts_but_not_in_lines(tmp_path, data) -> None:
    meter = Meter(CPU, matmul_flops=1000.0)
    meter.timed(seconds=10.0, data_seconds=0.0, tokens=100, flops=1000.0, planned=1200.0, first=True)
    meter.learned(4.0, 0.1, 5.0, 1.0)
    for _ in range(4):
        meter.timed(seconds=2.0, data_seconds=0.5, tokens=100, flops=1000.0, planned=1200.0, first=False)
        meter.learned(2.0, 0.2, 4.0, 3.0)
    line = meter.line(seconds=20.0, router=None)
    assert line["loss"] == pytest.approx(2.4)
    assert line["gradient_norm"] == pytest.approx(2.6)
    assert line["mtp_loss"] == pytest.approx(4.2)
    assert line["tokens"] == 500
    assert line["tokens_per_second"] == pytest.approx(500 / 18, abs=0.1)
    assert line["flop_utilisation"] == pytest.approx(5000 / 18 / 1000, abs=1e-4)
    assert line["data_seconds"] == 2.0
    facts = meter.facts(settings(tmp_path, data), seconds=20.0)
    assert facts.tokens_per_second == pytest.approx(50.0)
    assert facts.mean_utilisation == pytest.approx(0.5)
    assert facts.compile_seconds == 10.0
    assert facts.joules == pytest.approx(200.0)
    assert facts.final_loss == pytest.approx(2.4)


def test_an_open_window_survives_a_checkpoint() -> None:
    meter, again = Meter(CPU, 0.0), Meter(CPU, 0.0)
    for target in (meter, again):
        target.timed(seconds=1.0, data_seconds=0.0, tokens=10, flops=1.0, planned=1.0, first=True)
        target.learned(0.1 + 0.2, 0.0, None, 1.0)
    restored = Meter(CPU, 0.0)
    restored.restore(meter.state(seconds=5.0))
    for target in (restored, again):
        target.learned(0.7, 0.0, None, 1.0)
    assert restored.line(1.0, None)["loss"] == again.line(1.0, None)["loss"]
    assert restored.totals.seconds_before == 5.0


def test_memory_is_counted() -> None:
    assert 1e7 < memory_bytes(CPU) <= peak_memory_bytes(CPU) * 1.01
