"""The order of the data: a function of the seed and a sample counter, and of nothing else.

Which shard a sample comes from is decided by a binary tree over the shards: of the first n samples that reach a node,
round(n * share) go left. Counts follow the rates closely at every moment, for any number of samples, and both the choice and
the number of earlier samples of the same shard are closed forms, so that there is no state to keep.

Which row of the shard: a permutation of its rows, drawn anew for each epoch (a Feistel network of keyed hashes with
cycle walking, Black & Rogaway 2002; numpy's own permutations may change between its versions and cost memory).

Where a stage goes from shorter to longer rows, the permutation is of the longest ones ("blocks"), and the shorter rows are drawn out of a
few blocks at a time: what a phase has read is then a number of blocks, and the next phase goes on in the blocks after them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hagane.errors import DataError

_ONE = 1 << 31  # shares are multiples of 2^-31: exact in 64 bits up to 2^32 samples
_MAX_SAMPLES = 1 << 32
_ROUNDS = 6
_MIXED, _MIXED_SHARE = 64, 1 / 16
"""Blocks whose shorter rows are mixed with each other, and the share of a shard they are at most.

A batch should not be made of the pieces of a few documents; but what is mixed counts as read together, so few blocks of a small shard.
"""


@dataclass(frozen=True)
class _Node:
    left: _Node | int  # a leaf is the index of a shard
    right: _Node | int
    share: int  # of the left side, in units of 1 / _ONE


def _tree(rates: Sequence[float]) -> _Node | int:
    """Join the two smallest until one is left (Huffman), so that shares stay near one half and the tree stays shallow."""
    parts: list[tuple[float, int, _Node | int]] = [(rate, index, index) for index, rate in enumerate(rates)]
    serial = len(parts)
    while len(parts) > 1:
        parts.sort(key=lambda part: part[:2])
        (small, _, left), (large, _, right) = parts[:2]
        parts[:2] = [(small + large, serial, _Node(left, right, round(small / (small + large) * _ONE)))]
        serial += 1
    return parts[0][2]


class Mixture:
    """Deals samples out to shards at fixed rates."""

    def __init__(self, rates: Mapping[str, float]) -> None:
        if not rates or min(rates.values()) < 0 or sum(rates.values()) <= 0:
            raise DataError(f"a mixture needs at least one shard with a positive share, not {dict(rates)}.")
        self.names = tuple(name for name, rate in rates.items() if rate > 0)
        self._tree = _tree([rates[name] for name in self.names])

    def deal(self, counter_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each sample: its shard, and how many samples of that shard came before it (int64 [N] each)."""
        if counter_N.size and int(counter_N.max()) >= _MAX_SAMPLES:
            raise DataError(f"a phase may read at most {_MAX_SAMPLES:,} rows. Use a longer context, or split the phase.")
        shard_N = np.zeros(counter_N.shape, np.int64)
        before_N = np.zeros(counter_N.shape, np.int64)
        todo = [(self._tree, np.arange(len(counter_N)), counter_N.astype(np.uint64))]
        while todo:
            node, which, counter = todo.pop()
            if isinstance(node, int):
                shard_N[which], before_N[which] = node, counter.astype(np.int64)
                continue
            went_left = _to_left(node, counter)
            left = _to_left(node, counter + np.uint64(1)) > went_left
            todo += [(node.left, which[left], went_left[left]), (node.right, which[~left], (counter - went_left)[~left])]
        return shard_N, before_N

    def counts(self, counter: int) -> dict[str, int]:
        """How many of the first `counter` samples come from each shard."""
        counts: dict[str, int] = {}
        todo: list[tuple[_Node | int, int]] = [(self._tree, counter)]
        while todo:
            node, arrived = todo.pop()
            if isinstance(node, int):
                counts[self.names[node]] = arrived
            else:
                left = (arrived * node.share + _ONE // 2) // _ONE
                todo += [(node.left, left), (node.right, arrived - left)]
        return counts


def _to_left(node: _Node, counter: np.ndarray) -> np.ndarray:
    left: np.ndarray = (counter * np.uint64(node.share) + np.uint64(_ONE // 2)) // np.uint64(_ONE)
    return left


def round_keys(name: str) -> np.ndarray:
    """The keys of the permutation of this name, uint64 [rounds]."""
    digest = hashlib.blake2b(name.encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def permute(index_N: np.ndarray, size_N: np.ndarray, key_NR: np.ndarray) -> np.ndarray:
    """Where index n goes in the permutation of [0, size_N[n]) that key_NR[n] names (int64 [N])."""
    half_N = np.maximum((np.ceil(np.log2(size_N)).astype(np.uint64) + np.uint64(1)) // np.uint64(2), np.uint64(1))
    value_N, size_N = index_N.astype(np.uint64), size_N.astype(np.uint64)
    outside = np.arange(len(value_N))
    while outside.size:  # the network permutes [0, 4^half); walk on until back inside [0, size)
        value_N[outside] = _feistel(value_N[outside], half_N[outside], key_NR[outside])
        outside = outside[value_N[outside] >= size_N[outside]]
    return value_N.astype(np.int64)


def _feistel(value_N: np.ndarray, half_N: np.ndarray, key_NR: np.ndarray) -> np.ndarray:
    mask_N = (np.uint64(1) << half_N) - np.uint64(1)
    left, right = value_N >> half_N, value_N & mask_N
    for key_N in key_NR.T:
        left, right = right, left ^ (_mix(right ^ key_N) & mask_N)
    value_N = (left << half_N) | right
    return value_N


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014): every input bit moves every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    value = value ^ (value >> np.uint64(31))
    return value


class Sampler:
    """Sample counter -> (shard, row). Two samplers with the same arguments agree for ever.

    `num_rows` gives the rows of each shard. `read` says how many blocks of each shard earlier phases read already, so that a
    phase goes on where the one before stopped instead of reading the same text again. A block is `part` rows: row b * part and those after it.
    """

    def __init__(
        self, mixture: Mapping[str, float], num_rows: Mapping[str, int], seed: int | str, read: Mapping[str, int] | None = None, part: int = 1
    ) -> None:
        self._mixture = Mixture(mixture)
        self.names = self._mixture.names
        for name in self.names:
            if not num_rows.get(name):
                raise DataError(f"shard {name} holds not one row to read. Give it more text, or take it out of the mixture.")
        self._num_rows_S = np.array([num_rows[name] for name in self.names], np.int64)
        self._num_blocks_S = -(-self._num_rows_S // part)
        self._mixed_S = np.clip((self._num_blocks_S * _MIXED_SHARE).astype(np.int64), 1, _MIXED)
        self._part = part
        self._read_S = np.array([(read or {}).get(name, 0) for name in self.names], np.int64)
        self._seed = seed
        self._drawn: dict[tuple[int, ...], np.ndarray] = {}

    def rows(self, counter: int, count: int, rank: int = 0, num_ranks: int = 1) -> list[tuple[int, int]]:
        """The (index into names, row) of samples counter .. counter + count, or the slice of them that is `rank`'s."""
        if count % num_ranks:
            raise DataError(f"a global batch of {count} rows cannot be shared equally by {num_ranks} processes.")
        share = count // num_ranks
        first = counter + rank * share
        shard_N, order_N = self._mixture.deal(np.arange(first, first + share, dtype=np.int64))
        size_N = self._num_blocks_S[shard_N]
        epoch_N, within_N = np.divmod(order_N + self._part * self._read_S[shard_N], self._part * size_N)
        block_N, rest_N = (within_N, within_N) if self._part == 1 else self._mixed(shard_N, epoch_N, within_N)
        key_NR = np.stack([self._keys(shard, epoch) for shard, epoch in zip(shard_N.tolist(), epoch_N.tolist())])
        row_N = permute(block_N, size_N, key_NR)
        if self._part > 1:  # the last block may lack rows: in their place others come a second time
            row_N = (row_N * self._part + rest_N) % self._num_rows_S[shard_N]
        return list(zip(shard_N.tolist(), row_N.tolist()))

    def _mixed(self, shard_N: np.ndarray, epoch_N: np.ndarray, within_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Block (in the order of the epoch) and row inside of it: the rows of some blocks at a time, in an order of their own."""
        mixed_N = self._mixed_S[shard_N]
        group_N, inside_N = np.divmod(within_N, mixed_N * self._part)
        size_N = np.minimum(mixed_N, self._num_blocks_S[shard_N] - group_N * mixed_N) * self._part
        key_NR = np.stack([self._keys(*which) for which in zip(shard_N.tolist(), epoch_N.tolist(), group_N.tolist())])
        block_N, rest_N = np.divmod(permute(inside_N, size_N, key_NR), self._part)
        return group_N * mixed_N + block_N, rest_N

    def _keys(self, shard: int, epoch: int, *group: int) -> np.ndarray:
        which = (shard, epoch, *group)
        if which not in self._drawn:
            self._drawn = {key: value for key, value in self._drawn.items() if key[1] >= epoch - 1 or key[0] != shard}
            self._drawn[which] = round_keys("/".join([str(self._seed), self.names[shard], str(epoch), *map(str, group)]))
        return self._drawn[which]

    def read(self, counter: int) -> dict[str, int]:
        """Blocks of each shard read after `counter` samples, those of earlier phases included; one that is begun counts, and those mixed with it."""
        counts, read = self._mixture.counts(counter), {}
        for name, before, num_blocks, mixed in zip(self.names, self._read_S.tolist(), self._num_blocks_S.tolist(), self._mixed_S.tolist()):
            epoch, within = divmod(counts[name] + self._part * before, self._part * num_blocks)
            mixed = 1 if self._part == 1 else mixed
            read[name] = epoch * num_blocks + min(num_blocks, -(-within // (self._part * mixed)) * mixed)
        return read
