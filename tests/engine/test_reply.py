import pytest
from hypothesis import given
from hypothesis import strategies as st

from hagane.engine.reply import Reply, ReplyStream, decode, parse
from hagane.tokenizer.bpe import plain
from toy_models import toy_tokenizer

CASES = [
    ("24 + 18 = 42\n</think>\n\n42<|im_end|>", True, Reply("24 + 18 = 42", "42", True)),
    ("42<|im_end|>", False, Reply("", "42", True)),
    ("42", False, Reply("", "42", False)),
    ("never ends", True, Reply("never ends", None, False)),
    ("42<|im_end|>", True, Reply("42", None, True)),  # the turn ended inside of the thinking
    ("<think>\nhm\n</think>\n\n7<|im_end|>", False, Reply("hm", "7", True)),  # it thought although it need not
    ("<think>\nhm<|im_end|>", False, Reply("hm", None, True)),
    ("a</think>b</think>c<|im_end|>", True, Reply("a", None, True)),
    ("a</think>7<think>b<|im_end|>", True, Reply("a", None, True)),
    ("a</think>7<|im_end|>8", True, Reply("a", "7", True)),
    ("a</think>7<|endoftext|>8<|im_end|>", True, Reply("a", "7", True)),
    ("", False, Reply("", "", False)),
]


@pytest.mark.parametrize(("output", "thinking", "reply"), CASES)
def test_outputs_are_taken_apart(output, thinking, reply):
    assert parse(output, thinking) == reply


def tokens_of(text):
    tokenizer = toy_tokenizer()
    ids = []
    for index, part in enumerate(text):
        ids += [tokenizer.token_to_id("</think>")] if index else []
        ids += plain(tokenizer).encode(part, add_special_tokens=False).ids
    return [*ids, tokenizer.token_to_id("<|im_end|>")]


@given(st.text(max_size=40), st.text(max_size=40))
def test_streamed_pieces_add_up_to_the_parts(thinking, answer):
    stream, parts = ReplyStream(toy_tokenizer(), thinking=True), {True: "", False: ""}
    for token in tokens_of([thinking, answer]):
        piece, is_thinking = stream.step(token)
        parts[is_thinking] += piece
    assert parts == {True: thinking, False: answer}


def test_a_character_of_several_bytes_comes_at_once():
    stream = ReplyStream(toy_tokenizer(), thinking=False)
    pieces = [stream.step(token)[0] for token in plain(toy_tokenizer()).encode("🙂é", add_special_tokens=False).ids]
    assert "".join(pieces) == "🙂é" and "🙂" in pieces and "\ufffd" not in "".join(pieces)


def test_decoding_shows_special_tokens():
    assert decode(toy_tokenizer(), tokens_of(["a", "b"])) == "a</think>b<|im_end|>"
