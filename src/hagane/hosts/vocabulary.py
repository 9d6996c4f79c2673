"""A published checkpoint with more tokens than it was trained with: the tokenizer a run goes on with, and the rows of its new tokens.

The row of a new token, in the input embedding and in the output head, is the mean of the rows of its pieces: what the model would have
read, and on the mean expected, in its place.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hagane.hosts.checkpoint import Published, read_tokenizer
from hagane.hosts.published import read_config
from hagane.tokenizer.extend import Extended, Pieces, next_id, with_special_tokens
from hagane.tokenizer.special import END_OF_TEXT, IM_END

MAX_MULTIPLE = 128  # published vocabularies are padded to multiples of 64 or 128


def starting_tokenizer(folder: Path) -> Extended:
    """The checkpoint's tokenizer with the special tokens that documents and conversations need here.

    Where it lacks the one between documents or that of the end of a turn, those that config.json names stand in for them.
    """
    tokenizer, (_, _, description) = read_tokenizer(folder), read_config(folder)
    ends = description.get("eos_token_id")
    end = ends[0] if isinstance(ends, list) and ends else ends
    begin = description.get("bos_token_id", end)
    named = {END_OF_TEXT: end if begin is None else begin, IM_END: end}
    return with_special_tokens(tokenizer, {token: number for token, number in named.items() if isinstance(number, int)})


def rows_for(tokenizer_size: int, rows: int) -> int:
    """Rows of a vocabulary that has `rows` and must hold `tokenizer_size` ids; a multiple of 2, 4, … 128 stays one."""
    multiple = min(rows & -rows, MAX_MULTIPLE)
    return max(rows, -(-tokenizer_size // multiple) * multiple)


def grown(published: Published, vocabulary_size: int, pieces: Pieces) -> Published:
    """The checkpoint with `vocabulary_size` rows. Rows that no token has are the mean of all old ones."""
    old = published.config.vocabulary_size
    if vocabulary_size == old and not pieces:
        return published
    assert vocabulary_size >= old and all(number < old for ids in pieces.values() for number in ids)
    state = dict(published.state)
    for name in {"embedding.weight", "head.weight"} & state.keys():
        state[name] = _grown(state[name], vocabulary_size, pieces)
    config = published.config.model_copy(update={"vocabulary_size": vocabulary_size})
    return Published(published.host, config, state)


def _grown(weight_VD: Tensor, vocabulary_size: int, pieces: Pieces) -> Tensor:
    old = weight_VD.shape[0]
    mean_D = weight_VD.mean(0)
    grown_VD = torch.cat([weight_VD, mean_D.expand(vocabulary_size - old, -1)])
    for number, ids in pieces.items():
        grown_VD[number] = weight_VD[list(ids)].mean(0)
    return grown_VD


def starting_published(published: Published, start: Extended) -> Published:
    """The checkpoint as it was, before anything is learned: with the rows of the special tokens it lacked, if any."""
    return grown(published, rows_for(next_id(start.tokenizer), published.config.vocabulary_size), start.pieces)
