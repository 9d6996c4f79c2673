"""Does the model find a number in a long text? Passkeys and needles by length and depth, in several languages.

A text has exactly `length` tokens with its answer: <|endoftext|>, lines of text with the sentence that holds the number among them, and the
beginning of that sentence once more. Right is an answer whose every digit is the model's first choice: greedy decoding then gives it, and one
forward pass tells.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from hagane.corpus.embedded import documents, filler, hidden
from hagane.errors import RecipeError
from hagane.evaluate.bits_per_byte import BATCH_TOKENS, HeldOut
from hagane.evaluate.facts import Retrieval, RetrievalCell
from hagane.evaluate.intervals import wilson
from hagane.model.decoder import Decoder
from hagane.model.linear import stepped
from hagane.model.sequence import Sequence as Placement
from hagane.recipe.schema import RetrievalSettings
from hagane.tokenizer.bpe import plain, special_ids
from hagane.tokenizer.special import END_OF_TEXT

KINDS: tuple[Retrieval, ...] = ("passkey", "needle")


@dataclass(frozen=True)
class Item:
    """Ids of a text with its answer; the last `num_answer` of them are the answer."""

    kind: Retrieval
    language: str
    length: int
    depth: float
    ids: list[int]
    num_answer: int


class Haystack:
    """Lines of text as ids, read in a circle from anywhere."""

    def __init__(self, lines: Sequence[Sequence[int]]) -> None:
        self._lines = [list(line) for line in lines if line]

    def take(self, first: int, num_tokens: int) -> tuple[list[int], list[int]]:
        """`num_tokens` ids from the beginning of a line on, and where lines begin among them; the last line may be cut."""
        ids: list[int] = []
        begins: list[int] = []
        for index in itertools.count(first):
            if len(ids) >= num_tokens:
                return ids[:num_tokens], begins
            begins.append(len(ids))
            ids += self._lines[index % len(self._lines)]
        raise AssertionError("an endless count ends nowhere")


def depths(count: int) -> list[float]:
    """Evenly from 0 to 1."""
    return [0.5] if count == 1 else [index / (count - 1) for index in range(count)]


def make_item(tokenizer: Tokenizer, haystack: Haystack, kind: Retrieval, language: str, length: int, depth: float, number: int) -> Item:
    """The text of this number. Raises RecipeError where `length` is too short for it."""
    encoder, found = plain(tokenizer), hidden(kind, language, f"{length}/{depth:.3f}/{number}")

    def encoded(text: str) -> list[int]:
        ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
        return ids

    needle, question, answer = encoded(f"{found.sentence}\n"), encoded(f"\n{found.question}"), encoded(found.answer)
    body = length - 1 - len(needle) - len(question) - len(answer)
    if body < 1:
        raise RecipeError(f"evaluate.retrieval.lengths has {length}, but the {kind} in {language} alone takes {length - body} tokens. Take longer ones.")
    ids, begins = haystack.take(7919 * number, body)  # a large prime: every text begins elsewhere
    places = [*begins, len(ids)]
    after = bisect_right(places, depth * len(ids))
    place = min(places[max(0, after - 1) : after + 1], key=lambda begin: abs(begin - depth * len(ids)))
    if place == len(ids):  # the last line may have been cut in the middle
        place = begins[-1]
    whole = [special_ids(tokenizer)[END_OF_TEXT], *ids[:place], *needle, *ids[place:], *question, *answer]
    return Item(kind, language, length, depth, whole, len(answer))


def haystacks(tokenizer: Tokenizer, languages: Iterable[str], held_out: Sequence[HeldOut], num_tokens: int) -> dict[tuple[Retrieval, str], Haystack]:
    """For passkeys a line that says nothing; for needles held-out text of the language, or what the generator writes where there is none."""
    encoder = plain(tokenizer)
    made: dict[tuple[Retrieval, str], Haystack] = {}
    for language in languages:
        texts = [text for part in held_out if part.language == language for text in part.texts]
        if sum(len(text.encode()) for text in texts) < num_tokens:
            texts = [record["text"] for record in documents(0, language, 4 * num_tokens)]
        lines = [f"{line}\n" for text in texts for line in text.splitlines() if line.strip()]
        encodings = encoder.encode_batch_fast(lines, add_special_tokens=False)
        made["needle", language] = Haystack([encoding.ids for encoding in encodings])
        made["passkey", language] = Haystack([encoder.encode(f"{filler(language)}\n", add_special_tokens=False).ids])
    return made


def retrieval(
    decoder: Decoder, tokenizer: Tokenizer, settings: RetrievalSettings, languages: Sequence[str], held_out: Sequence[HeldOut] = ()
) -> tuple[RetrievalCell, ...]:
    """One cell per kind, language, length and depth; none where the settings name no length."""
    if not settings.lengths:
        return ()
    wanted = tuple(settings.languages or languages)
    stacks = haystacks(tokenizer, wanted, held_out, max(settings.lengths))
    items = [
        make_item(tokenizer, stacks[kind, language], kind, language, length, depth, number)
        for length, kind, language, depth, number in itertools.product(settings.lengths, KINDS, wanted, depths(settings.depths), range(settings.items))
    ]
    right = find(decoder, items)
    cells = []
    for key, group in itertools.groupby(zip(items, right, strict=True), key=lambda pair: (pair[0].kind, pair[0].language, pair[0].length, pair[0].depth)):
        found = [is_right for _, is_right in group]
        low, high = wilson(sum(found), len(found))
        kind, language, length, depth = key
        cells.append(
            RetrievalCell(kind=kind, language=language, length=length, depth=depth, correct=sum(found), total=len(found), low=low, high=high)
        )
    return tuple(cells)


def find(decoder: Decoder, items: Sequence[Item]) -> list[bool]:
    """Whether every token of each answer is the most likely one."""
    right = [False] * len(items)
    order = sorted(range(len(items)), key=lambda index: len(items[index].ids))
    most = BATCH_TOKENS.get(decoder.embedding.weight.device.type, 2_048)
    while order:
        rows = max(1, most // stepped(len(items[order[-1]].ids)))
        group, order = order[-rows:], order[:-rows]
        for index, is_right in zip(group, _answers(decoder, [items[index] for index in group]), strict=True):
            right[index] = is_right
    return right


@torch.inference_mode()
def _answers(decoder: Decoder, items: Sequence[Item]) -> list[bool]:
    device = decoder.embedding.weight.device
    length_B = [len(item.ids) - 1 for item in items]
    width = stepped(max(length_B))
    ids_BT = torch.zeros(len(items), width + 1, dtype=torch.long)
    for row, item in enumerate(items):
        ids_BT[row, : len(item.ids)] = torch.tensor(item.ids)
    ids_BT = ids_BT.to(device)
    hidden_BTD = decoder(ids_BT[:, :-1], Placement.ragged([0] * len(items), length_B, width, device)).hidden_BTD
    right = []
    for row, item in enumerate(items):
        asked = slice(length_B[row] - item.num_answer, length_B[row])
        chosen = decoder.head.logits(hidden_BTD[row, asked]).argmax(-1)
        right.append(bool((chosen == ids_BT[row, 1:][asked]).all()))
    return right
