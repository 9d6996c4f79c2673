"""The special tokens: always the last ids of a vocabulary, in this order, so that cutting it moves no other id."""

from __future__ import annotations

END_OF_TEXT = "<|endoftext|>"  # first token of every document of running text
IM_START = "<|im_start|>"  # begins a turn of a conversation
IM_END = "<|im_end|>"  # ends it
THINK = "<think>"
END_THINK = "</think>"

SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, THINK, END_THINK)
