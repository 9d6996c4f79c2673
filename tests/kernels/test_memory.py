"""What a step frees is there for the next one."""

import resource
import sys

import pytest
import torch

from hagane.kernels.memory import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library can be told")
def test_large_blocks_are_taken_again_without_page_faults():
    if not keep_freed_memory():
        pytest.skip("this is not the GNU C library")

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def use():
        """Two blocks of 8 MiB alive at once, as activations are: 4,096 pages."""
        return float(torch.ones(1 << 21).sum() + torch.ones(1 << 21).sum())

    use()
    use()
    before = faults()
    for _ in range(10):
        use()
    assert faults() - before < 3 * 4096  # ten times 4,096 where they are given back; the heap may still grow once or twice
