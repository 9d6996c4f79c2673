"""What we save, `transformers` reads as we do."""

import json

import pytest

from hagane.tokenizer.bpe import cut, load_tokenizer
from hagane.tokenizer.chat import render
from hagane.tokenizer.save import save_for_transformers

transformers = pytest.importorskip("transformers")

MESSAGES = [
    {"role": "system", "content": "Svara kort."},
    {"role": "user", "content": "湖 2 + 2?"},
    {"role": "assistant", "content": "4", "reasoning_content": "two and two\n"},
    {"role": "user", "content": "\n og 3 < 4?"},
    {"role": "assistant", "content": "\n\nja", "reasoning_content": ""},
]


@pytest.fixture(scope="module", params=[500, 700, 800])
def folder(request, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_for_transformers(cut(tokenizer, request.param), folder, context=512)
    return folder


def test_ids_and_text_agree(folder, texts):
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in [*texts, "", " x", "a<|im_end|>b<think>\n\n", "e\u0301 ﬁ \u200d 👩‍👩‍👧", "\r\n\t 12345"]:
        ids = theirs(text).input_ids
        assert ids == ours.encode(text).ids
        assert theirs.decode(ids) == text
    assert len(theirs) == ours.get_vocab_size()
    assert theirs.model_max_length == 512
    assert theirs.eos_token == "<|im_end|>"
    assert theirs.pad_token_id == ours.get_vocab_size() - 5
    assert theirs.bos_token is None


@pytest.mark.parametrize("count", range(1, 6))
def test_the_chat_template_gives_the_same_text(folder, count):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for prompt in (True, False):
        for thinking in (True, False):
            expected = theirs.apply_chat_template(MESSAGES[:count], tokenize=False, add_generation_prompt=prompt, enable_thinking=thinking)
            assert render(MESSAGES[:count], thinking, prompt) == expected
    assert render(MESSAGES[:count]) == theirs.apply_chat_template(MESSAGES[:count], tokenize=False, add_generation_prompt=True)  # default: thinking


def test_saving_again_through_transformers_changes_nothing(folder, tmp_path):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"] == json.loads((folder / "tokenizer.json").read_text())["model"]
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template == theirs.chat_template
