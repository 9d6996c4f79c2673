"""The chat template: what `transformers` makes of it, and what is trained on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.errors import DataError
from hagane.tokenizer.chat import ChatEncoder, Conversation, render, render_for_training
from hagane.tokenizer.special import SPECIAL_TOKENS

HISTORY = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4", "reasoning_content": "two and two"},
    {"role": "user", "content": "\nand 3 < 4?\n"},
]


def test_prompts_end_where_the_model_goes_on():
    assert render(HISTORY[:2]) == ("<|im_start|>system\nAnswer briefly.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n<think>\n")
    assert render(HISTORY[1:2], thinking=False) == "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_earlier_answers_are_shown_without_their_thinking():
    assert "two and two" not in render(HISTORY)
    assert "<|im_start|>assistant\n4<|im_end|>\n" in render(HISTORY)
    assert "<think>\ntwo and two\n</think>\n\n4<|im_end|>\n" in render(HISTORY[:3], add_generation_prompt=False)


def test_an_answer_that_holds_its_thinking_in_the_text_is_taken_apart():
    inline = [HISTORY[1], {"role": "assistant", "content": "<think>\ntwo and two\n</think>\n\n4"}]
    assert render(inline, add_generation_prompt=False) == render(HISTORY[1:3], add_generation_prompt=False)


@pytest.mark.parametrize("thinking", [True, False])
def test_training_text_is_the_prompt_and_what_the_model_must_write(tokenizer, thinking):
    conversation = Conversation.single("2 + 2?", "4", "two and two" if thinking else None)
    pieces = render_for_training(conversation)
    assert pieces[0] == (render(conversation.messages[:1], thinking), False)
    assert all(target for _, target in pieces[1:])
    assert "".join(text for text, _ in pieces) + "\n" == render(conversation.messages, thinking, add_generation_prompt=False)
    ((ids, targets),) = ChatEncoder(tokenizer).training([conversation])
    learned = tokenizer.decode([number for number, target in zip(ids, targets) if target], skip_special_tokens=False)
    assert learned == ("two and two\n</think>\n\n4<|im_end|>" if thinking else "4<|im_end|>")
    assert ids[: targets.index(1)] == ChatEncoder(tokenizer).prompt(conversation.messages[:1], thinking)


@pytest.mark.parametrize("thinking", [True, False])
def test_ids_are_those_of_the_whole_text(tokenizer, thinking):
    assert ChatEncoder(tokenizer).prompt(HISTORY, thinking) == tokenizer.encode(render(HISTORY, thinking)).ids


@given(st.lists(st.one_of(st.sampled_from([*SPECIAL_TOKENS, "<", "\ue000", "\n"]), st.text(max_size=4)), max_size=8))
def test_what_a_user_writes_never_becomes_a_special_token(tokenizer, parts):
    text = "".join(parts).encode("utf-8", "ignore").decode()
    encoder = ChatEncoder(tokenizer)
    ids = encoder.prompt([{"role": "user", "content": text}])
    assert [number for number in ids if number in encoder.special.values()] == encoder.prompt([{"role": "user", "content": ""}])[:1] + [
        encoder.special[token] for token in ("<|im_end|>", "<|im_start|>", "<think>")
    ]
    assert tokenizer.decode(ids, skip_special_tokens=False) == render([{"role": "user", "content": text}])
    ((ids, targets),) = encoder.training([Conversation.single("q", text, text)])
    specials = [number for number, target in zip(ids, targets) if target and number in encoder.special.values()]
    assert specials == [encoder.special["</think>"], encoder.special["<|im_end|>"]]


def test_a_conversation_without_an_answer_is_refused():
    with pytest.raises(DataError, match="must end with an answer"):
        render_for_training(Conversation(HISTORY))
