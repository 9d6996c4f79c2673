"""One small tokenizer for all tests of the room."""

import argparse
import inspect

import pytest

from hagane.tokenizer.bpe import train_tokenizer

TEXTS = [
    "Once upon a time there was a small cottage by the lake, and an old man lived there; he'd counted 1234 boats, 56 of them red.\n\n" * 3,
    "Det var en gång en liten stuga vid sjön, och där bodde en gammal man som hade räknat 1234 båtar, 56 av dem röda.\n" * 3,
    "湖のほとりに小さな家があり、老人が住んでいました。老人は船を1234隻数えました。\n" * 3,
    "호숫가에 작은 집이 있었고 노인이 살았습니다. 노인은 배 1234척을 세었습니다.\n" * 3,
    "def count(boats):\n    return sum(1 for boat in boats if boat.red)\n\n\nprint(count(boats))\n" * 3,
]


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer([*TEXTS, inspect.getsource(argparse)], 700)


@pytest.fixture(scope="session")
def texts():
    return TEXTS
