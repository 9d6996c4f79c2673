"""Bits of whole held-out documents under any causal model, the same way for every contestant. Needs torch and nothing else.

A document is conditioned from its own start: a begin token, then its tokens. One longer than the context goes on in windows that do
not overlap, so every token is predicted exactly once. How a later window begins is scored both ways, and the caller takes the better:
`carry` begins with the last token of the window before, `fresh` with the begin token again (as a model knows it whose training rows
all begin so). The begin token itself is never predicted: bits are of the text's own bytes alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

STARTS = ("carry", "fresh")
BATCH_TOKENS = 4096
Nll = Callable[[Tensor, Tensor], Tensor]  # inputs_BT, targets_BT -> nats of every target, BT


def read_test(path: Path) -> list[dict[str, str]]:
    """Held-out documents `{"lang", "text"}`, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def windows(ids: Sequence[int], begin: int, context: int, start: str) -> list[tuple[list[int], list[int]]]:
    """(inputs, targets) of at most `context` tokens each; the targets of all of them are `ids`."""
    found = []
    for first in range(0, len(ids), context):
        targets = list(ids[first : first + context])
        before = begin if first == 0 or start == "fresh" else ids[first - 1]
        found.append(([before, *targets[:-1]], targets))
    return found


@torch.inference_mode()
def document_bits(nll: Nll, ids_D: Sequence[Sequence[int]], begin: int, context: int) -> dict[str, list[float]]:
    """Bits of each document, per way to begin its later windows."""
    return {start: _bits(nll, ids_D, begin, context, start) for start in STARTS}


def _bits(nll: Nll, ids_D: Sequence[Sequence[int]], begin: int, context: int, start: str) -> list[float]:
    rows = [(document, *window) for document, ids in enumerate(ids_D) for window in windows(ids, begin, context, start)]
    rows.sort(key=lambda row: -len(row[1]))  # rows of like length together: next to no padding
    bits_D, position = [0.0] * len(ids_D), 0
    while position < len(rows):
        length = len(rows[position][1])
        group = rows[position : position + max(1, BATCH_TOKENS // length)]
        position += len(group)
        # padded on the right: a causal model's earlier positions do not see it
        inputs_BT = torch.tensor([inputs + [0] * (length - len(inputs)) for _, inputs, _ in group])
        targets_BT = torch.tensor([targets + [0] * (length - len(targets)) for _, _, targets in group])
        nats_BT = nll(inputs_BT, targets_BT).double().cpu()
        for row, (document, inputs, _) in enumerate(group):
            bits_D[document] += float(nats_BT[row, : len(inputs)].sum()) / math.log(2)
    return bits_D


def write_scores(path: Path, test: Sequence[dict[str, str]], bits: dict[str, list[float]]) -> None:
    """Per way to begin a window: language -> bits of its documents, in the order of the test."""
    result: dict[str, dict[str, list[float]]] = {}
    for start, bits_D in bits.items():
        by_language = result.setdefault(start, {})
        for document, value in zip(test, bits_D):
            by_language.setdefault(document["lang"], []).append(round(value, 2))
    path.write_text(json.dumps(result), encoding="utf-8")


def check_lossless(test: Sequence[dict[str, str]], decoded: Sequence[str]) -> None:
    """A tokenizer that changes text would be scored on other bytes."""
    changed = [document["lang"] for document, text in zip(test, decoded) if document["text"] != text]
    if changed:
        raise ValueError(f"the tokenizer does not give {len(changed)} of {len(test)} documents back as they were (the first: {changed[0]})")
