"""A finished tokenizer with tokens for languages it was not made for: byte-level BPE that goes on where it stopped.

New merges come after all old ones, and none makes a string that is a token already. So on any text the old merges are done first and as
ever, and no old merge takes up what a new one made: the new tokens of a text are its old ones, some neighbours joined. A new token stands
for one sequence of old ones only, its *pieces*; with every new token written out in pieces, any text has exactly its old ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from hagane.errors import DataError
from hagane.tokenizer.bpe import KEPT_IN_TEXT
from hagane.tokenizer.special import SPECIAL_TOKENS

Pieces = dict[int, tuple[int, ...]]
_FIRST = 0x10000  # old token number n is written as this character + n: a plane without white space or surrogates
_SPARE = 1.25  # merges learned over those wanted: some make a string that is a token already


@dataclass(frozen=True)
class Extended:
    """`pieces`: new id -> the ids, of the tokenizer it was made from, that it stands for."""

    tokenizer: Tokenizer
    pieces: Pieces

    def written_out(self, ids: Iterable[int]) -> list[int]:
        """Ids with every new one replaced by its pieces: those of the old tokenizer."""
        return [piece for number in ids for piece in self.pieces.get(number, (number,))]


def with_special_tokens(tokenizer: Tokenizer, stand_ins: Mapping[str, int]) -> Extended:
    """The tokenizer with those of our special tokens that it lacks, after all its ids. Pieces are those of the spelled token, or its stand-in."""
    lacking = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if not lacking:
        return Extended(tokenizer, {})
    spelled: Pieces = {}
    description, first = _description(tokenizer), next_id(tokenizer)
    for number, token in enumerate(lacking, first):
        spelled[number] = (stand_ins[token],) if token in stand_ins else tuple(tokenizer.encode(token, add_special_tokens=False).ids)
        description["model"]["vocab"][token] = number
        form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": token not in KEPT_IN_TEXT}
        description["added_tokens"].append({"id": number, "content": token, **form})
    return Extended(Tokenizer.from_str(json.dumps(description)), spelled)


def extend(tokenizer: Tokenizer, texts: Iterable[str], max_new: int, min_count: int = 2) -> Extended:
    """At most `max_new` more tokens, after all ids there are. A pair must occur `min_count` times in the texts to become one.

    `tokenizer` must be byte-level BPE. Raises DataError where there is no text.
    """
    learned = _learn(tokenizer, texts, max_new, min_count)
    description = _description(tokenizer)
    model, old = description["model"], set(description["model"]["vocab"])
    string_of = {number: token for token, number in model["vocab"].items()}
    made: dict[str, tuple[int, ...]] = {}
    for left, right in learned:
        strings = ["".join(string_of[number] for number in part) for part in (left, right)]
        result, ids = "".join(strings), left + right
        known = all(len(part) == 1 or made.get(string) == part for part, string in zip((left, right), strings, strict=True))
        if not known or result in old or made.get(result, ids) != ids:
            continue
        # such tokenizers look a whole word up before they merge: it must have the pieces that its string has by itself
        if model.get("ignore_merges") and tuple(token.id for token in tokenizer.model.tokenize(result)) != ids:
            continue
        if result not in made:
            if len(made) == max_new:
                break
            made[result] = ids
        model["merges"].append(strings)
    first = next_id(tokenizer)
    model["vocab"] |= {token: first + number for number, token in enumerate(made)}
    return Extended(Tokenizer.from_str(json.dumps(description)), {first + number: ids for number, ids in enumerate(made.values())})


def next_id(tokenizer: Tokenizer) -> int:
    """The first id after all that are taken."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def _learn(tokenizer: Tokenizer, texts: Iterable[str], max_new: int, min_count: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Merges of sequences of old ids, in the order they were learned: the library's trainer on texts whose characters are old tokens."""
    first, seen = next_id(tokenizer), 0
    segmented: dict[str, str] = {}

    def segments(text: str) -> Iterator[str]:
        normal = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            if word not in segmented:
                segmented[word] = "".join(chr(_FIRST + token.id) for token in tokenizer.model.tokenize(word))
            yield segmented[word]

    def joined() -> Iterator[str]:
        nonlocal seen
        for text in texts:
            seen += len(text)
            yield " ".join(segments(text))

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    alphabet = [chr(_FIRST + number) for number in range(first)]
    size = first + round(max_new * _SPARE) + 64
    learner.train_from_iterator(joined(), trainers.BpeTrainer(vocab_size=size, min_frequency=min_count, show_progress=False, initial_alphabet=alphabet))
    if not seen:
        raise DataError("there is no text to learn new tokens from: the corpus has none in a language that start.languages does not name.")
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(_numbers(left), _numbers(right)) for left, right in merges]


def _numbers(characters: str) -> tuple[int, ...]:
    return tuple(ord(character) - _FIRST for character in characters)


def _description(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer as JSON, added tokens in the vocabulary of its model too: one that is not there takes whatever id is free when it is read again."""
    description: dict[str, Any] = json.loads(tokenizer.to_str())
    description["model"]["vocab"] |= {token["content"]: token["id"] for token in description["added_tokens"]}
    return description
