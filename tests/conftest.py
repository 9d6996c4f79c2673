"""Shared by all tests: nothing reaches a network, profiles are kept in a folder of the test session's own."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    os.environ["HAGANE_CACHE"] = str(tmp_path_factory.getbasetemp() / "hagane-cache")
