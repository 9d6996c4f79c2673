"""Bytes, traffic and seconds of a layout against counting and simulating by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.errors import RecipeError
from hagane.plan.footprint import FRAGMENTATION, RESERVED_BYTES, footprint, kept_micro_batches, share
from hagane.plan.layout import FITTED, assemble, estimate, units
from hagane.plan.machines import cluster
from hagane.plan.traffic import exchange, gather, traffic
from hagane.plan.workload import from_shape
from hagane.recipe.types import Layout

DENSE = from_shape(num_layers=16, width=1024, context=2048, vocabulary_size=32000, num_heads=16, num_kv_heads=8, head_dim=64, hidden=2816)
ROUTED = from_shape(
    num_layers=16, width=1024, context=2048, vocabulary_size=32000, num_heads=16, head_dim=64, num_experts=64, top_k=4, expert_hidden=512, routed_layers=16
)
H100 = {count: cluster(f"{count}xH100") for count in (1, 2, 4, 8, 16, 32, 64)}


def test_one_device_holds_eighteen_bytes_a_parameter():
    found = footprint(DENSE, Layout(), H100[1], num_micro=1)
    assert found.weights + found.gradients + found.states == pytest.approx(18 * DENSE.num_parameters)
    assert found.activations == 2048 * 16 * DENSE.kept_bytes["none"]
    assert found.working == 2048 * 32000 * 6
    assert found.allowance == RESERVED_BYTES + FRAGMENTATION * H100[1].accelerator.memory_bytes


@pytest.mark.parametrize("layout", [Layout(data=8, zero=1), Layout(data=2, tensor=4, expert=8), Layout(data=2, tensor=2, pipeline=2, expert=4)])
def test_parameters_are_held_once_by_every_replica(layout):
    """Tensor, pipeline and expert shares of all devices of one replica add up to the model."""
    mine = share(ROUTED, layout)
    body = (mine.dense - (ROUTED.embedding_parameters * (1 if layout.pipeline > 1 else 2)) / layout.tensor) * layout.tensor * layout.pipeline
    assert body == pytest.approx(ROUTED.dense_parameters)
    assert mine.experts * layout.expert * layout.pipeline == pytest.approx(ROUTED.expert_parameters)
    assert mine.expert_shards * layout.expert * layout.pipeline == layout.devices


@given(st.sampled_from([1, 2, 4, 8, 16, 32]), st.sampled_from(["none", "selective", "full"]))
def test_more_devices_never_need_more_memory_each_under_full_sharding(count, mode):
    fewer = footprint(DENSE, Layout(data=count, zero=3, checkpointing=mode), H100[count], 4)
    more = footprint(DENSE, Layout(data=2 * count, zero=3, checkpointing=mode), H100[2 * count], 4)
    assert more.total <= fewer.total


def kept_at_once(stages: int, num_micro: int) -> int:
    """Simulate one forward, one backward on the first stage: warm up `stages` forwards, then a backward before every forward."""
    kept = most = done = 0
    for _ in range(min(stages, num_micro)):
        kept, done = kept + 1, done + 1
        most = max(most, kept)
    while done < num_micro:
        kept, done = kept - 1 + 1, done + 1
        most = max(most, kept)
    return most


def pipelined(stages: int, num_micro: int, forward: float, backward: float) -> float:
    """Seconds of one forward, one backward, simulated: each stage works through its order as soon as its inputs are there."""
    orders = []
    for stage in range(stages):
        warm = min(stages - stage, num_micro)
        order = [("f", i) for i in range(warm)]
        for i in range(num_micro):
            order.append(("b", i))
            if warm + i < num_micro:
                order.append(("f", warm + i))
        orders.append(order)
    done: dict[tuple[str, int, int], float] = {}
    clock, place = [0.0] * stages, [0] * stages
    while any(place[s] < len(orders[s]) for s in range(stages)):
        for s in range(stages):
            while place[s] < len(orders[s]):
                kind, i = orders[s][place[s]]
                before = ("f", i, s - 1) if kind == "f" else ("b", i, s + 1)
                needs = [] if (kind == "f" and s == 0) else [("f", i, s)] if (kind == "b" and s == stages - 1) else [before]
                if any(need not in done for need in needs):
                    break
                start = max([clock[s], *(done[need] for need in needs)])
                clock[s] = done[kind, i, s] = start + (forward if kind == "f" else backward)
                place[s] += 1
    return max(clock)


@given(st.integers(1, 8), st.integers(1, 12))
def test_micro_batches_kept_at_once(stages, num_micro):
    assert kept_micro_batches(Layout(pipeline=stages), num_micro) == kept_at_once(stages, num_micro)


@given(st.integers(1, 6), st.integers(1, 10))
def test_the_bubble_is_that_of_a_simulated_pipeline(stages, num_micro):
    assert pipelined(stages, num_micro, 1.0, 2.0) == pytest.approx((num_micro + stages - 1) * 3.0)
    unit = units(DENSE, Layout(pipeline=stages), H100[1], num_micro, 1.0)
    step = assemble(unit, FITTED)
    assert step.bubble * num_micro == pytest.approx((step.total - step.bubble - step.optimizer - step.data_links) * (stages - 1))


def ring(num_bytes: float, size: int) -> float:
    """Bytes one device sends in a ring all-gather: its own slice, then those it was sent, until everyone has all."""
    have, sent = {rank: {rank} for rank in range(size)}, 0.0
    last = list(range(size))
    while any(len(slices) < size for slices in have.values()):
        last = [last[(rank - 1) % size] for rank in range(size)]
        sent += num_bytes / size
        for rank in range(size):
            have[rank].add(last[rank])
    return sent


@given(st.integers(1, 16))
def test_a_gather_sends_what_a_ring_does(size):
    assert gather(1000.0, size, 8, H100[16]).bytes == pytest.approx(ring(1000.0, size))


def test_between_nodes_all_ports_work_and_the_slower_level_counts():
    device = H100[16].accelerator
    assert gather(1e9, 16, 8, H100[16]).seconds == pytest.approx(max(1e9 * 15 / 16 / device.intra_bandwidth, 1e9 / 2 / 8 / device.inter_bandwidth))
    assert gather(1e9, 2, 1, H100[16]).seconds == pytest.approx(0.5e9 / device.inter_bandwidth)


@given(st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_an_exchange_sends_once_to_every_place_that_was_chosen(choices, size):
    """Against all ways to choose, each place as likely as another."""
    ways = [()]
    for _ in range(choices):
        ways = [(*way, place) for way in ways for place in range(size)]
    mean = sum(len({place for place in way if place != 0}) for way in ways) / len(ways)
    assert exchange(1000.0, choices, size, 8, H100[8]).bytes == pytest.approx(1000.0 * mean)


def test_degree_one_sends_nothing():
    for work in (DENSE, ROUTED):
        for zero in (0, 1, 2, 3):
            assert all(leg.bytes == 0 and leg.seconds == 0 for leg in traffic(work, Layout(zero=zero), H100[1]))


def test_one_kind_of_parallelism_causes_its_own_traffic_only():
    cases = {
        "tensor": Layout(tensor=8), "context": Layout(context=8, zero=0), "pipeline": Layout(pipeline=8), "sharded": Layout(data=8, zero=3),
        "step": Layout(data=8, zero=1),
    }  # fmt: skip
    for name, layout in cases.items():
        found = traffic(DENSE, layout, H100[8])._asdict()
        busy = {kind for kind, leg in found.items() if leg.bytes > 0}
        assert busy == {name} | ({"step"} if name == "context" else set()), name  # ranks of a row share its weights


def test_sharded_traffic_is_weights_twice_and_gradients_once():
    work, layout = DENSE, Layout(data=8, zero=3)
    assert traffic(work, layout, H100[8]).sharded.bytes == pytest.approx(work.num_parameters * (2 + 2 + 4) * 7 / 8)


def test_tensor_traffic_is_eight_collectives_a_layer():
    tokens = 2048
    assert traffic(DENSE, Layout(tensor=4), H100[4]).tensor.bytes == pytest.approx(16 * 8 * tokens * 1024 * 2 * 3 / 4)


def test_a_step_is_never_faster_than_its_products_at_the_peak():
    for layout in (Layout(data=8, zero=3), Layout(tensor=8), Layout(data=2, pipeline=4)):
        found = estimate(DENSE, layout, H100[8], 2**20)
        assert found.seconds > found.tokens * 3 * DENSE.forward_flops / (8 * H100[8].accelerator.rate("bf16"))
        assert found.seconds == pytest.approx(sum(found.parts))


def test_uneven_routing_and_recomputation_cost_time():
    even = estimate(ROUTED, Layout(data=8, expert=8), H100[8], 2**18, balanced=True)
    assert estimate(ROUTED, Layout(data=8, expert=8), H100[8], 2**18).seconds > even.seconds
    assert estimate(ROUTED, Layout(data=8, expert=8, checkpointing="full"), H100[8], 2**18, balanced=True).seconds > even.seconds


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(data=4), "the layout is for 4 devices and the cluster has 8"),
        (Layout(tensor=16), "for 16 devices"),
        (Layout(data=8, expert=3), "does not divide the 64 experts"),
        (Layout(expert=64, data=8), "does not divide the 8 devices"),
        (Layout(pipeline=8, interleave=4), "more than the 16 layers"),
    ],
)
def test_impossible_layouts_say_why(layout, message):
    with pytest.raises(RecipeError, match=message):
        estimate(ROUTED, layout, H100[8], 2**20)


def test_a_layout_reads_as_people_write_it():
    layout = Layout(data=8, zero=3, tensor=4, pipeline=2, interleave=3, micro_batch=2, checkpointing="full", precision="fp8")
    assert str(layout) == "data 8, fully sharded (ZeRO-3), tensor 4, pipeline 2 with 3 interleaved stages each, micro-batch 2, full checkpointing, fp8"
    assert Layout.model_validate_json(layout.model_dump_json()) == layout
