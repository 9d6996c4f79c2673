"""Tokenizer and token stream for `transformers_train.py`: byte-level BPE by the `tokenizers` library, documents one after another.

Made before the clock starts: the other side's tokenizer and encoding are given for free.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BEGIN = "<|endoftext|>"
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # that of Llama 3
SAMPLE_BYTES = 20_000_000  # text a tokenizer is trained on; more changes no merge that matters at these sizes


def _texts(stream: Path) -> Iterator[list[str]]:
    with pq.ParquetFile(stream) as file:
        for batch in file.iter_batches(1000, columns=["text"]):
            yield batch["text"].to_pylist()


def prepare_tokens(stream: Path, vocabulary_size: int, folder: Path) -> Path:
    """A folder with `tokenizer.json` and `ids.npy` (uint16; every document begins with BEGIN), made once."""
    folder = folder / f"tokens-{vocabulary_size}"
    if (folder / "facts.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(_first_bytes(stream, SAMPLE_BYTES), trainer)
    tokenizer.add_special_tokens([AddedToken(BEGIN, special=True, normalized=False)])
    trained = time.monotonic() - started
    begin = tokenizer.token_to_id(BEGIN)
    parts = []
    for texts in _texts(stream):
        for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            parts.append(np.array([begin, *encoding.ids], dtype=np.uint16))
    np.save(folder / "ids.npy", np.concatenate(parts))
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"vocabulary_size": tokenizer.get_vocab_size(), "trained_seconds": trained, "encoded_seconds": time.monotonic() - started - trained}
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder


def _first_bytes(stream: Path, most: int) -> Iterator[str]:
    """The stream is mixed evenly from its first document on, so its beginning is a fair sample."""
    seen = 0
    for text in itertools.chain.from_iterable(_texts(stream)):
        yield text
        seen += len(text.encode())
        if seen >= most:
            return
