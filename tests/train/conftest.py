import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for toy_training


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `encode` folder of toy shards."""
    from toy_training import write_data

    return write_data(tmp_path_factory.mktemp("encode"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
