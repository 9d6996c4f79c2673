"""Byte-level BPE with the pre-tokenizer that llama.cpp knows as `qwen2`, its ids laid out so that smaller vocabularies are prefixes.

Ids: the 256 bytes (id = byte), then the results of merges in the order they were learned, then `SPECIAL_TOKENS`, always the
last of the vocabulary. Digits stand alone, nothing is normalised: any Unicode string comes back as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from hagane.errors import DataError, RecipeError
from hagane.tokenizer.special import SPECIAL_TOKENS

# Qwen2's expression, word for word that of llama.cpp (LLAMA_VOCAB_PRE_TYPE_QWEN2)
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Where text may be cut: no token of PATTERN spans these places, and none looks across them. A token with a space after its first character
# is white space all through, one with a line feed ends with it or goes on in white space; only `\s+(?!\S)` looks ahead, from white space.
_CUT = re.compile(r"(?<=\S)(?= )|(?<=\n)(?=\S)")
MIN_VOCABULARY = 256 + len(SPECIAL_TOKENS)
NUM_SPECIAL = len(SPECIAL_TOKENS)
# Thinking tags are ordinary tokens to a decoder that leaves special ones out: what was thought stays readable (as in Qwen3).
KEPT_IN_TEXT = frozenset({"<think>", "</think>"})


def byte_characters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def train_tokenizer(texts: Iterable[str] | Iterator[str], max_vocabulary: int) -> Tokenizer:
    """Learn merges from texts. The vocabulary (special tokens counted) is smaller than asked where the text has too few pairs.

    Raises RecipeError where `max_vocabulary` has no room for bytes and special tokens, DataError where there is no text.
    """
    if max_vocabulary < MIN_VOCABULARY:
        raise RecipeError(f"a vocabulary of {max_vocabulary} is too small: 256 bytes and {NUM_SPECIAL} special tokens need {MIN_VOCABULARY}.")
    learner = _bare(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=max_vocabulary - NUM_SPECIAL,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=byte_characters(),
    )
    seen = 0

    def counted() -> Iterator[str]:
        nonlocal seen
        for text in texts:
            seen += len(text)
            yield text

    learner.train_from_iterator(counted(), trainer)
    if not seen:
        raise DataError("there is no text to train the tokenizer on: the corpus sample is empty.")
    merges = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
    return _build(merges, None)


def cut(tokenizer: Tokenizer, vocabulary_size: int) -> Tokenizer:
    """The tokenizer with a smaller vocabulary: kept tokens keep their ids, special tokens become the last again.

    A size beyond what was learned is filled with unused tokens before the special ones. Raises RecipeError below the 256 bytes
    and special tokens.
    """
    if vocabulary_size < MIN_VOCABULARY:
        raise RecipeError(f"a vocabulary of {vocabulary_size} is too small: 256 bytes and {NUM_SPECIAL} special tokens need {MIN_VOCABULARY}.")
    return _build(_merges(tokenizer), vocabulary_size)


def num_learned(tokenizer: Tokenizer) -> int:
    """The size of the vocabulary without unused filling: bytes, results of merges and special tokens."""
    return len(json.loads(tokenizer.to_str())["model"]["vocab"]) + NUM_SPECIAL


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Token -> id of the special tokens."""
    found: dict[str, int] = {}
    for token in SPECIAL_TOKENS:
        number = tokenizer.token_to_id(token)
        if number is None:
            raise DataError(f"the tokenizer has no token {token}: it was not made by this version of hagane. Make it again with `hagane tokenizer`.")
        found[token] = number
    return found


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer without its special tokens: text that spells `<|im_end|>` or `<think>` stays text. For everything a user wrote."""
    bare = Tokenizer(tokenizer.model)  # shared: a copy would go through JSON, and learn words anew that this one remembers
    bare.pre_tokenizer, bare.decoder = tokenizer.pre_tokenizer, tokenizer.decoder
    if tokenizer.normalizer is not None:  # ours has none; a published one may
        bare.normalizer = tokenizer.normalizer
    return bare


def pieces(text: str, size: int) -> list[str]:
    """The text in pieces of `size` characters or a little more, whose ids one after another are those of the whole.

    The library spends less on a short text than on a part of a long one, and every core gets as much of a long document as of short ones.
    """
    assert size > 0
    cut, start = [], 0
    while len(text) - start > size and (place := _CUT.search(text, start + size)):
        cut.append(text[start : place.start()])
        start = place.start()
    return [*cut, text[start:]]


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read `folder/tokenizer.json`. Special tokens in text *are* recognised by what this returns; see `plain`."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise DataError(f"{path} is missing: there is no tokenizer yet. Make one with `hagane tokenizer`.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{path} is damaged ({error}). Delete it and make the tokenizer again.") from None


def bytes_per_token(tokenizer: Tokenizer, held_out: dict[str, list[str]], sizes: Sequence[int]) -> dict[int, dict[str, float]]:
    """Bytes of UTF-8 per token for every vocabulary size and language. Every size is encoded anew: keep the texts small (100 kB each)."""
    return {size: bytes_per_token_as_it_is(cut(tokenizer, size), held_out) for size in sizes}


def bytes_per_token_as_it_is(tokenizer: Tokenizer, held_out: dict[str, list[str]]) -> dict[str, float]:
    """Bytes of UTF-8 per token by language, with the whole vocabulary."""
    encoder, measured = plain(tokenizer), {}
    for language, texts in held_out.items():
        tokens = sum(len(encoding) for encoding in encoder.encode_batch_fast(texts, add_special_tokens=False))
        if tokens:
            measured[language] = sum(len(text.encode()) for text in texts) / tokens
    return measured


def pre_tokenizer_is_ours(tokenizer: Tokenizer) -> bool:
    """Whether text is split as PATTERN does and nothing is normalised: then pieces of a text may be encoded one by one, and llama.cpp knows the name."""
    description = json.loads(tokenizer.to_str())
    steps = (description.get("pre_tokenizer") or {}).get("pretokenizers", [])
    patterns = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    return description["model"]["type"] == "BPE" and patterns == [PATTERN] and description.get("normalizer") is None


def not_byte_level(tokenizer: Tokenizer) -> str | None:
    """Why a tokenizer is not byte-level BPE whose ids are a function of the text; None where it is."""
    description = json.loads(tokenizer.to_str())
    model, words = description["model"], description.get("pre_tokenizer") or {}
    if model["type"] != "BPE":
        return f"its model is {model['type']}"
    if model.get("dropout"):
        return "its merges are dropped at random (dropout)"
    steps = [words, *words.get("pretokenizers", [])]
    if not any(step.get("type") == "ByteLevel" for step in steps):
        return "its pre_tokenizer does not turn text into bytes"
    lacking = [byte for byte, character in enumerate(byte_characters()) if character not in model["vocab"]]
    return f"its vocabulary lacks byte {lacking[0]}" if lacking else None


def _bare(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return [(left, right) for left, right in model["merges"]]


def _build(merges: Sequence[tuple[str, str]], vocabulary_size: int | None) -> Tokenizer:
    """Lay out ids from the order of merges alone. Two merges may have the same result ("a b"+"c", "a"+"b c"): it is one token, at its first place."""
    vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
    room = None if vocabulary_size is None else vocabulary_size - NUM_SPECIAL
    for left, right in merges:
        if room is not None and len(vocabulary) >= room:
            break
        if left in vocabulary and right in vocabulary:
            vocabulary.setdefault(left + right, len(vocabulary))
    kept = [(left, right) for left, right in merges if left in vocabulary and right in vocabulary and left + right in vocabulary]
    tokenizer = _bare(models.BPE(vocab=vocabulary, merges=kept))
    # in one call: each rebuilds the matcher of all added tokens
    tokenizer.add_tokens([AddedToken(f"<|unused_{number}|>", special=True, normalized=False) for number in range((room or 0) - len(vocabulary))])
    for token in SPECIAL_TOKENS:
        tokenizer.add_tokens([AddedToken(token, special=token not in KEPT_IN_TEXT, normalized=False)])
    return tokenizer
