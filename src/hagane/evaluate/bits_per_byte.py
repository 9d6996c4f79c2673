"""Bits per byte of held-out text, and bits per parallel sentence.

Bits per byte can be compared between tokenizers but not between scripts: a Japanese character has three bytes, a Latin one.
Sentences that say the same in every language can be. Both are sums of -log2 p over tokens of the text; what is
scored begins with <|endoftext|>, as documents do in training, and longer documents go on in windows of the context,
each of which starts with the last token of the one before: every token of the text is scored once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hagane.corpus.documents import read_documents
from hagane.evaluate.facts import BitsPerByte, BitsPerSentence
from hagane.evaluate.intervals import bootstrap_ratio
from hagane.model.decoder import Decoder
from hagane.model.linear import stepped
from hagane.model.sequence import Sequence as Placement
from hagane.tokenizer.bpe import plain, special_ids
from hagane.tokenizer.special import END_OF_TEXT

BATCH_TOKENS = {"cpu": 2_048, "cuda": 65_536}
"""Tokens of one forward pass; on a CPU more of them are slower, their intermediates leave the processor's caches."""

FEWEST_DOCUMENTS = 20
"""A document counts with at most this share (1/20) of the text scored, so that a single long one does not decide."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out text of one shard, cut to what is scored."""

    shard: str
    language: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """Per text: -log2 p of its tokens summed, UTF-8 bytes, tokens."""

    bits_D: NDArray[np.float64]
    bytes_D: NDArray[np.int64]
    tokens_D: NDArray[np.int64]

    @staticmethod
    def joined(parts: Iterable[Scores]) -> Scores:
        bits, num_bytes, tokens = zip(*((part.bits_D, part.bytes_D, part.tokens_D) for part in parts))
        return Scores(np.concatenate(bits), np.concatenate(num_bytes), np.concatenate(tokens))


def read_held_out(corpus: Path, max_bytes: int, seed: int = 0) -> list[HeldOut]:
    """At most `max_bytes` of every held-out shard of a corpus folder: documents in a seeded order, none with more than its share."""
    found = []
    for path in sorted((corpus / "held_out").glob("*.parquet")):
        records = list(read_documents(corpus, "held_out", path.stem))
        if records:
            random.Random(f"{seed}/{path.stem}").shuffle(records)
            found.append(HeldOut(path.stem, records[0]["lang"], tuple(cut([record["text"] for record in records], max_bytes))))
    return found


def cut(texts: Sequence[str], max_bytes: int) -> list[str]:
    """The first texts up to `max_bytes` in all, each cut to an equal share where there are fewer than FEWEST_DOCUMENTS, else to 1/20."""
    share = max_bytes // max(1, min(FEWEST_DOCUMENTS, len(texts)))
    kept, room = [], max_bytes
    for text in texts:
        text = text.encode()[: min(share, room)].decode("utf-8", "ignore")
        room -= len(text.encode())
        if text:
            kept.append(text)
        if room <= 0:
            break
    return kept


def score(decoder: Decoder, tokenizer: Tokenizer, texts: Sequence[str], context: int) -> Scores:
    """-log2 p of every text. Special tokens spelled in a text are scored as text."""
    end = special_ids(tokenizer)[END_OF_TEXT]
    ids_D = [[end, *encoding.ids] for encoding in plain(tokenizer).encode_batch_fast(list(texts), add_special_tokens=False)]
    windows = [(document, ids[start : start + context + 1]) for document, ids in enumerate(ids_D) for start in range(0, len(ids) - 1, context)]
    windows.sort(key=lambda window: -len(window[1]))  # rows of one pass are of like length: next to no padding
    bits_D = np.zeros(len(texts))
    for group in _groups(windows, BATCH_TOKENS.get(decoder.embedding.weight.device.type, 2_048)):
        np.add.at(bits_D, [document for document, _ in group], _window_bits(decoder, [ids for _, ids in group]))
    num_bytes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
    return Scores(bits_D, num_bytes, np.array([len(ids) - 1 for ids in ids_D], dtype=np.int64))


def _groups(windows: list[tuple[int, list[int]]], batch_tokens: int) -> Iterable[list[tuple[int, list[int]]]]:
    start = 0
    while start < len(windows):
        rows = max(1, batch_tokens // stepped(len(windows[start][1]) - 1))
        yield windows[start : start + rows]
        start += rows


@torch.inference_mode()
def _window_bits(decoder: Decoder, rows: list[list[int]]) -> NDArray[np.float64]:
    """-log2 p of all tokens but the first, summed per row."""
    device = decoder.embedding.weight.device
    length_B = [len(row) - 1 for row in rows]
    width = stepped(max(length_B))
    ids_BT = np.zeros((len(rows), width + 1), dtype=np.int64)
    for index, row in enumerate(rows):
        ids_BT[index, : len(row)] = row
    ids = torch.from_numpy(ids_BT).to(device)
    hidden_BTD = decoder(ids[:, :-1], Placement.ragged([0] * len(rows), length_B, width, device)).hidden_BTD
    logprob_BT = decoder.head.token_logprobs(hidden_BTD, ids[:, 1:]).double()
    real_BT = torch.arange(width, device=device) < torch.tensor(length_B, device=device)[:, None]
    bits_B: NDArray[np.float64] = (-(logprob_BT * real_BT).sum(1) / math.log(2)).cpu().numpy()
    return bits_B


def bits_per_byte(decoder: Decoder, tokenizer: Tokenizer, held_out: Sequence[HeldOut], context: int) -> tuple[dict[str, BitsPerByte], dict[str, BitsPerByte]]:
    """By language (all its shards together) and by shard."""
    scores = score_shards(decoder, tokenizer, held_out, context)
    return {language: rate(own) for language, own in by_language(scores, held_out).items()}, {shard: rate(own) for shard, own in scores.items()}


def score_shards(decoder: Decoder, tokenizer: Tokenizer, held_out: Sequence[HeldOut], context: int) -> dict[str, Scores]:
    """Scores of every shard that has text."""
    return {part.shard: score(decoder, tokenizer, part.texts, context) for part in held_out if part.texts}


def by_language(scores: Mapping[str, Scores], held_out: Sequence[HeldOut]) -> dict[str, Scores]:
    """Scores of shards put together by language, in the order of their tags; documents in the order of the shards."""
    languages: dict[str, list[Scores]] = {}
    for part in held_out:
        if part.shard in scores:
            languages.setdefault(part.language, []).append(scores[part.shard])
    return {language: Scores.joined(parts) for language, parts in sorted(languages.items())}


def rate(scores: Scores) -> BitsPerByte:
    """Bits per byte of all texts together, with the interval over them."""
    low, high = bootstrap_ratio(scores.bits_D.tolist(), scores.bytes_D.tolist())
    total = int(scores.bytes_D.sum())
    value = float(scores.bits_D.sum()) / total
    return BitsPerByte(value=value, low=low, high=high, bytes=total, tokens=int(scores.tokens_D.sum()), documents=len(scores.bits_D))


def bits_per_sentence(decoder: Decoder, tokenizer: Tokenizer, sentences: Sequence[Mapping[str, str]], context: int) -> dict[str, BitsPerSentence]:
    """Mean bits of each language's form of the same sentences. Every sentence must be there in every language."""
    result = {}
    for language in sentences[0] if sentences else ():
        bits = score(decoder, tokenizer, [sentence[language] for sentence in sentences], context).bits_D
        low, high = bootstrap_ratio(bits.tolist(), [1.0] * len(bits))
        result[language] = BitsPerSentence(bits_per_sentence=float(bits.mean()), low=low, high=high, sentences=len(bits))
    return result
