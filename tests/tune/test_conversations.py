import itertools

import numpy as np
import pytest

from hagane.errors import RecipeError
from hagane.recipe.schema import TuneSettings
from hagane.tokenizer.bpe import train_tokenizer
from hagane.tokenizer.chat import ChatEncoder
from hagane.tune.conversations import BATCH, Wanted, encoded_problems, problem_conversations

SETTINGS = TuneSettings(languages=("en", "ko"), families=("comparison", "dates"))
WANTED = [
    Wanted("1/practice.thinking", "practice.thinking", True, True, 0, BATCH + 300),
    Wanted("1/answers.plain", "answers.plain", False, False, 0, 500),
]


@pytest.fixture(scope="module")
def tokenizer():
    made = itertools.islice(problem_conversations(SETTINGS, "0", True, "practice"), 200)
    return train_tokenizer((message["content"] for one in made for message in one.messages), 400)


def test_batches_are_the_conversations_in_order(tokenizer):
    encoder = ChatEncoder(tokenizer)
    batches = list(encoded_problems(WANTED, SETTINGS, tokenizer, workers=1))
    assert [(batch.shard, len(batch.lengths_N)) for batch in batches] == [("practice.thinking", BATCH), ("practice.thinking", 300), ("answers.plain", 500)]
    for wanted in WANTED:
        made = problem_conversations(SETTINGS, wanted.seed, wanted.thinking, wanted.shard, wanted.learn_prompt)
        expected = encoder.training(list(itertools.islice(made, wanted.num)))
        own = [batch for batch in batches if batch.shard == wanted.shard]
        assert np.concatenate([batch.ids_T for batch in own]).tolist() == [token for ids, _ in expected for token in ids]
        assert np.concatenate([batch.targets_T for batch in own]).tolist() == [target for _, targets in expected for target in targets]
        assert np.concatenate([batch.lengths_N for batch in own]).tolist() == [len(ids) for ids, _ in expected]


def test_two_processes_make_the_same_as_one(tokenizer):
    one, two = (list(encoded_problems(WANTED, SETTINGS, tokenizer, workers)) for workers in (1, 2))
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        assert first[:3] == second[:3] and first.num_bytes == second.num_bytes
        assert all(np.array_equal(left, right) for left, right in zip(first[3:6], second[3:6], strict=True))


def test_an_unknown_family_is_named(tokenizer):
    with pytest.raises(RecipeError, match=r"tune\.families names 'chess'; problems are made for: number_words, "):
        list(encoded_problems(WANTED, TuneSettings(families=("chess",)), tokenizer, workers=2))
