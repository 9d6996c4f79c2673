"""The chat template, Qwen-style with switchable thinking, and conversations as text and as ids.

A turn is `<|im_start|>role\\n…<|im_end|>\\n`. An answer begins with `<think>\\n`: in thinking mode the model goes on from there and
closes it itself; in plain mode the prompt closes it at once. Answers before the last question are shown without their thinking.
Special tokens are ids only where the template puts them; where a message spells one it stays text.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jinja2.sandbox
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hagane.errors import DataError
from hagane.tokenizer.bpe import plain, special_ids
from hagane.tokenizer.special import END_THINK, IM_END, SPECIAL_TOKENS

CHAT_TEMPLATE = """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content if message.content is string else '' %}
        {%- set reasoning = message.reasoning_content if message.reasoning_content is string else '' %}
        {%- if message.reasoning_content is not string and '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1] %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last %}
            {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content.lstrip('\\n') + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n<think>\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

Message = dict[str, str]  # role ("system", "user", "assistant"), content, and reasoning_content where an answer was thought through


@dataclass(frozen=True)
class Conversation:
    """A conversation to learn from; the last message is the answer to learn. `thinking`: with its `reasoning_content`, or without."""

    messages: Sequence[Message]
    thinking: bool = True
    language: str = "und"
    source: str = ""
    learn_prompt: bool = False  # the question is a target too, as in running text

    @classmethod
    def single(cls, question: str, answer: str, thinking: str | None = None, language: str = "und", source: str = "") -> Conversation:
        """One question and its answer; with `thinking` in thinking mode, without in plain mode."""
        reply = {"role": "assistant", "content": answer} | ({"reasoning_content": thinking} if thinking is not None else {})
        return cls([{"role": "user", "content": question}, reply], thinking is not None, language, source)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of what is said and thought, without roles and tags."""
        return sum(len(value.encode()) for message in self.messages for key, value in message.items() if key != "role")


class EncodedBatch(NamedTuple):
    """Conversations of one shard as ids, one after the other."""

    shard: str
    source: str
    language: str  # of the first of them
    ids_T: NDArray[np.uint32]
    targets_T: NDArray[np.uint8]  # 1 where the id is to be learned
    lengths_N: NDArray[np.int64]  # ids of each conversation
    num_bytes: int  # of what was said


@functools.cache
def _template() -> jinja2.Template:
    # as transformers compiles templates: blocks leave no line ends of their own
    return jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)


def render(messages: Sequence[Message], thinking: bool = True, add_generation_prompt: bool = True) -> str:
    """The conversation as text, the same as `apply_chat_template(..., enable_thinking=thinking)` of transformers."""
    return _template().render(messages=list(messages), enable_thinking=thinking, add_generation_prompt=add_generation_prompt)


def render_for_training(conversation: Conversation) -> list[tuple[str, bool]]:
    """Pieces of text and whether they are targets: the prompt is not; what the model must then write is, up to `<|im_end|>`."""
    *before, answer = conversation.messages
    if answer["role"] != "assistant":
        raise DataError(f"a conversation to learn from must end with an answer of the assistant; this one ends with {answer['role']!r}.")
    pieces = [(render(before, conversation.thinking), False)]
    if conversation.thinking:
        pieces.append((answer.get("reasoning_content", "").strip("\n"), True))
        pieces.append((f"\n{END_THINK}\n\n", True))
    pieces.append((answer["content"].lstrip("\n"), True))
    pieces.append((IM_END, True))
    return pieces


class ChatEncoder:
    """Conversations to ids with one tokenizer. Holds a copy of it without special tokens, for what people wrote."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.special = special_ids(tokenizer)
        self._plain = plain(tokenizer)

    def text(self, text: str) -> list[int]:
        """Ids of text in which nothing is special."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def prompt(self, messages: Sequence[Message], thinking: bool = True) -> list[int]:
        """Ids of the conversation up to where the model goes on."""
        hidden, mark = _hide(messages)
        ids: list[int] = []
        for part in self._parts(render(hidden, thinking), mark):
            ids += [part] if isinstance(part, int) else self.text(part)
        return ids

    def training(self, conversations: Sequence[Conversation]) -> list[tuple[list[int], list[int]]]:
        """Of each the ids, and for each id 1 where it is a target, else 0. Their text is encoded in one batch, on all cores."""
        layouts: list[list[tuple[int | str, bool]]] = []
        for conversation in conversations:
            hidden, mark = _hide(conversation.messages)
            pieces = _merged(render_for_training(Conversation(hidden, conversation.thinking)))
            layouts.append([(part, target or conversation.learn_prompt) for text, target in pieces for part in self._parts(text, mark)])
        texts = [part for layout in layouts for part, _ in layout if isinstance(part, str)]
        encodings = iter(self._plain.encode_batch_fast(texts, add_special_tokens=False))
        encoded = []
        for layout in layouts:
            ids: list[int] = []
            targets: list[int] = []
            for part, target in layout:
                ids += [part] if isinstance(part, int) else next(encodings).ids
                targets += [int(target)] * (len(ids) - len(targets))
            encoded.append((ids, targets))
        return encoded

    def batches(self, conversations: Sequence[Conversation], shard: Callable[[Conversation], str]) -> list[EncodedBatch]:
        """The conversations encoded, those of each shard together in their order."""
        members: dict[str, list[int]] = {}
        for index, conversation in enumerate(conversations):
            members.setdefault(shard(conversation), []).append(index)
        encoded = self.training(conversations)
        batches = []
        for name, indices in members.items():
            first = conversations[indices[0]]
            ids = np.fromiter(itertools.chain.from_iterable(encoded[index][0] for index in indices), np.uint32)
            targets = np.fromiter(itertools.chain.from_iterable(encoded[index][1] for index in indices), np.uint8)
            lengths = np.fromiter((len(encoded[index][0]) for index in indices), np.int64)
            num_bytes = sum(conversations[index].num_bytes for index in indices)
            batches.append(EncodedBatch(name, first.source or name.split(".")[0], first.language, ids, targets, lengths, num_bytes))
        return batches

    def _parts(self, text: str, mark: str) -> list[int | str]:
        """The ids of special tokens, and the text between them."""
        parts = [part for part in _SPECIAL.split(text) if part]
        return [self.special[part] if part in self.special else part.replace(mark, "<") if mark else part for part in parts]


_SPECIAL = re.compile("(" + "|".join(re.escape(token) for token in SPECIAL_TOKENS) + ")")


def _merged(pieces: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Neighbours of the same kind as one text: the model writes the whole of it, so it is encoded as a whole."""
    merged: list[tuple[str, bool]] = []
    for text, target in pieces:
        if merged and merged[-1][1] == target:
            merged[-1] = (merged[-1][0] + text, target)
        else:
            merged.append((text, target))
    return merged


def _hide(messages: Sequence[Message]) -> tuple[list[Message], str]:
    """Messages in which the `<` of every spelled special token is replaced by a mark that occurs nowhere in them, and the mark."""
    values = [value for message in messages for value in message.values()]
    if not any(_SPECIAL.search(value) for value in values):
        return list(messages), ""
    mark = next(chr(code) for code in range(0xE000, 0xF8FF) if not any(chr(code) in value for value in values))
    return [{key: _SPECIAL.sub(lambda found: mark + found[0][1:], value) for key, value in message.items()} for message in messages], mark
