"""The machine table is consistent, and clusters read back what they write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.errors import RecipeError
from hagane.plan.machines import accelerators, cluster

NAMES = list(accelerators())


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_dense_and_double_with_every_halving_of_the_width(name):
    device = accelerators()[name]
    assert device.source
    assert device.memory_bandwidth < device.rate("bf16"), "a matrix unit that memory could feed without reuse is a wrong unit"
    assert device.peak.get("fp8", device.rate("bf16")) <= 2.03 * device.rate("bf16"), "more than twice is the figure with sparsity"
    assert device.inter_bandwidth <= max(device.intra_bandwidth, device.inter_bandwidth * (device.devices_per_node == 1))
    assert device.watts is None or device.price_per_hour is None or 0.0003 < device.price_per_hour / device.watts < 0.02


@given(st.integers(1, 100_000), st.sampled_from(NAMES))
def test_a_cluster_reads_back_what_it_writes(count, name):
    read = cluster(f"{count}x{name}")
    assert cluster(str(read)) == read
    assert read.count == count
    assert read.accelerator.name == name
    assert read.node <= count


@pytest.mark.parametrize("text", ["64xH200", "64 x h200", "64×H200", "64*h-200", "64 H200-SXM"])
def test_ways_to_write_a_cluster(text):
    assert str(cluster(text)) == "64xH200"


def test_a_name_alone_is_one_device():
    assert str(cluster("H100")) == "1xH100"
    assert str(cluster("a100-80gb")) == "1xA100"
    assert str(cluster("4090")) == "1xRTX-4090"


def test_an_unknown_name_is_told_its_nearest():
    with pytest.raises(RecipeError, match=r"H10000 is not in the machine table. Nearest: .*H100"):
        cluster("8xH10000")
    with pytest.raises(RecipeError, match="There is: V100, A100-40GB"):
        cluster("8x?")
    with pytest.raises(RecipeError, match="at least one device"):
        cluster("0xH100")
    with pytest.raises(RecipeError, match="A100 has no fp8 matrix units"):
        cluster("A100").accelerator.rate("fp8")


def test_a_name_before_its_count_is_turned_round():
    with pytest.raises(RecipeError, match="COUNTxNAME: 8xH100, not H100x8"):
        cluster("H100x8")
    assert str(cluster("8xRTX-4090")) == "8xRTX-4090"
    with pytest.raises(RecipeError, match="1,000,000 devices at most"):
        cluster("10000000000xH100")
