"""Threads are pinned only while all processors are used, and let go afterwards."""

import os
from pathlib import Path

import pytest
import torch

from hagane.kernels.threads import pinned


def affinities():
    return [os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir()]


def test_every_processor_gets_a_thread_and_all_are_let_go_again():
    everywhere = os.sched_getaffinity(0)
    if len(everywhere) < 2:
        pytest.skip("one processor")
    before = torch.get_num_threads()
    torch.set_num_threads(len(everywhere))
    try:
        with pinned(len(everywhere)) as done:
            torch.randn(4_000_000).sum()
            assert done
            assert {frozenset([processor]) for processor in everywhere} <= {frozenset(one) for one in affinities()}
        assert all(one == everywhere for one in affinities())
    finally:
        torch.set_num_threads(before)


def test_fewer_threads_than_processors_are_left_alone():
    everywhere = os.sched_getaffinity(0)
    with pinned(len(everywhere) + 1) as done:
        assert not done and os.sched_getaffinity(0) == everywhere
    with pinned(1) as done:
        assert not done and os.sched_getaffinity(0) == everywhere
