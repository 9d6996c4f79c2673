"""The order of the data is a function of seed and counter, follows the rates, and reads every row once an epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.data.sampler import Mixture, Sampler, permute, round_keys
from hagane.errors import DataError

RATES = st.lists(st.floats(1e-5, 1.0), min_size=1, max_size=20).map(lambda values: {f"s{i}": value for i, value in enumerate(values)})


@settings(max_examples=60, deadline=None)
@given(rates=RATES)
def test_counts_follow_the_rates_at_every_moment(rates: dict[str, float]) -> None:
    shard_N, before_N = Mixture(rates).deal(np.arange(1500))
    seen = np.eye(len(rates))[shard_N].cumsum(0)
    expected = np.outer(np.arange(1, 1501), np.array(list(rates.values())) / sum(rates.values()))
    assert np.abs(seen - expected).max() <= 1.5
    # the closed form for "how many came before" is the count
    assert (seen[np.arange(1500), shard_N] - 1 == before_N).all()


def test_two_and_ten_equal_sources_alternate_within_one_row() -> None:
    for count in (2, 10):
        shard_N, _ = Mixture({f"s{i}": 1.0 for i in range(count)}).deal(np.arange(1000))
        seen = np.eye(count)[shard_N].cumsum(0)
        assert np.abs(seen - np.arange(1, 1001)[:, None] / count).max() < 1.0


@given(rates=RATES, counter=st.integers(0, 1 << 31))
def test_counts_are_the_same_far_out(rates: dict[str, float], counter: int) -> None:
    mixture = Mixture(rates)
    before, after = mixture.counts(counter), mixture.counts(counter + 1)
    shard_N, before_N = mixture.deal(np.array([counter]))
    name = mixture.names[int(shard_N[0])]
    assert sum(before.values()) == counter
    assert {key: after[key] - before[key] for key in before} == {key: int(key == name) for key in before}
    assert before[name] == before_N[0]


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 400), name=st.text(max_size=8))
def test_a_permutation_is_one(size: int, name: str) -> None:
    keys = np.tile(round_keys(name), (size, 1))
    assert sorted(permute(np.arange(size), np.full(size, size), keys).tolist()) == list(range(size))


def test_permutations_of_few_rows_are_spread_evenly() -> None:
    first = Counter(int(permute(np.array([0]), np.array([6]), round_keys(str(seed))[None])[0]) for seed in range(3000))
    assert min(first.values()) > 400 and max(first.values()) < 600  # 500 expected, standard deviation 20


def test_each_epoch_reads_each_row_once_in_another_order() -> None:
    sampler = Sampler({"a": 1.0}, {"a": 50}, seed=1)
    first, second = (  # two epochs
        [row for _, row in sampler.rows(counter, 50)] for counter in (0, 50)
    )
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != [row for _, row in Sampler({"a": 1.0}, {"a": 50}, seed=2).rows(0, 50)]


@given(counter=st.integers(0, 10_000), num_ranks=st.sampled_from([1, 2, 4, 8]))
def test_ranks_share_the_global_batch(counter: int, num_ranks: int) -> None:
    sampler = Sampler({"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 100, "b": 7, "c": 1000}, seed=0)
    slices = [sampler.rows(counter, 16, rank, num_ranks) for rank in range(num_ranks)]
    assert [row for part in slices for row in part] == sampler.rows(counter, 16)


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(1, 3000), part=st.sampled_from([2, 4, 8]), chunks=st.lists(st.integers(1, 200), min_size=1, max_size=4), shares=st.booleans()
)
def test_longer_rows_go_on_where_shorter_ones_stopped(num_rows: int, part: int, chunks: list[int], shares: bool) -> None:
    mixture = {"a": 0.7, "b": 0.3} if shares else {"a": 1.0}
    rows = {"a": num_rows, "b": 5 * num_rows}
    short = Sampler(mixture, rows, seed="x", part=part)
    counter = sum(chunks)
    seen = [row for chunk, first in zip(chunks, np.cumsum([0, *chunks]).tolist()) for which, row in short.rows(first, chunk) if which == 0]
    whole = (num_rows // part) * part  # the last block may be short
    blocks = -(-num_rows // part)
    epoch = [row for row in seen[: blocks * part] if row < whole]
    assert all(0 <= row < num_rows for row in seen)
    assert max(Counter(epoch).values(), default=1) <= (1 if num_rows % part == 0 else 2), "in an epoch no row comes twice, but to fill the last block"
    read = short.read(counter)
    assert read["a"] * part >= min(len(seen), 1)
    if read["a"] >= blocks:
        return
    long = Sampler({"a": 1.0}, {"a": blocks}, seed="x", read=read)
    following = [row for _, row in long.rows(0, blocks - read["a"])]
    assert not {row // part for row in epoch if num_rows % part == 0} & set(following), "what was read on short rows is not read again on long ones"
    assert len(set(following)) == len(following)


def test_a_whole_epoch_of_shorter_rows_reads_every_row() -> None:
    sampler = Sampler({"a": 1.0}, {"a": 800}, seed=1, part=8)
    rows = [row for _, row in sampler.rows(0, 800)]
    assert sorted(rows) == list(range(800))
    # a batch is no run of pieces of the same text
    many = Sampler({"a": 1.0}, {"a": 80_000}, seed=1, part=8).rows(0, 64)
    assert len({row // 8 for _, row in many}) > 30
    assert sampler.read(48) == {"a": 6} and sampler.read(49) == {"a": 12} and sampler.read(800) == {"a": 100} and sampler.read(801) == {"a": 106}


def test_any_stretch_can_be_asked_for() -> None:
    sampler = Sampler({"a": 0.6, "b": 0.4}, {"a": 13, "b": 7}, seed=5)
    whole = sampler.rows(0, 100)
    assert [sampler.rows(counter, 1)[0] for counter in range(100)] == whole
    assert Sampler({"a": 0.6, "b": 0.4}, {"a": 13, "b": 7}, seed=5).rows(40, 30) == whole[40:70]


def test_a_later_phase_goes_on_where_the_earlier_one_stopped() -> None:
    sizes = {"a": 40, "b": 40}
    first = Sampler({"a": 1.0, "b": 1.0}, sizes, seed=0)
    later = Sampler({"a": 3.0, "b": 1.0}, sizes, seed=0, read=first.read(40))
    read = first.rows(0, 40) + later.rows(0, 26)
    assert len(set(read)) == len(read)
    assert later.read(26) == {name: first.read(40)[name] + later._mixture.counts(26)[name] for name in sizes}


def test_bad_mixtures_are_refused() -> None:
    with pytest.raises(DataError, match="positive share"):
        Mixture({})
    with pytest.raises(DataError, match=r"shard a holds not one row.*more text"):
        Sampler({"a": 1.0}, {"a": 0}, seed=0)
    with pytest.raises(DataError, match="cannot be shared equally"):
        Sampler({"a": 1.0}, {"a": 1}, seed=0).rows(0, 10, 0, 4)
    assert Mixture({"a": 1.0, "b": 0.0}).names == ("a",)
