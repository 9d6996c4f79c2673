"""What a chat model answered: its thinking apart from its answer, whole or as a stream of tokens."""

from __future__ import annotations

from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from hagane.tokenizer.special import END_OF_TEXT, END_THINK, IM_END, THINK


class Reply(NamedTuple):
    """The parts of an answer. `answer` is None where thinking never ended; `finished` tells whether the model ended its turn."""

    thinking: str
    answer: str | None
    finished: bool


def parse(output: str, thinking: bool) -> Reply:
    """Take an output apart. `thinking`: the prompt opened `<think>`, so that the output begins inside of it."""
    ends = [output.index(token) for token in (IM_END, END_OF_TEXT) if token in output]
    turn = output[: min(ends)] if ends else output
    if turn.lstrip().startswith(THINK):
        turn, thinking = turn.lstrip().removeprefix(THINK), True
    thought, end, answer = turn.partition(END_THINK) if thinking else ("", END_THINK, turn)
    # a part opened again, or closed without having been opened, is no answer either
    if not end or THINK in answer or END_THINK in answer:
        return Reply(thought.strip(), None, bool(ends))
    return Reply(thought.strip(), answer.strip(), bool(ends))


def decode(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Text of ids, special tokens included: `parse` needs to see them."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


class ReplyStream:
    """Tokens of one answer as they come -> pieces of text, each of them thinking or answer.

    A character of several bytes appears once its last byte has come. Special tokens are not shown.
    """

    def __init__(self, tokenizer: Tokenizer, thinking: bool) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=False)
        self._tags = {tokenizer.token_to_id(THINK): True, tokenizer.token_to_id(END_THINK): False}
        self._ends = {tokenizer.token_to_id(IM_END), tokenizer.token_to_id(END_OF_TEXT)}
        self.thinking = thinking

    def step(self, token: int) -> tuple[str, bool]:
        """The text that this token completes, and whether it is thinking."""
        if token in self._tags:
            self.thinking = self._tags[token]
            return "", self.thinking
        if token in self._ends:
            return "", self.thinking
        return self._stream.step(self._tokenizer, token) or "", self.thinking
