"""What nanochat reads: parquet files of pieces of documents, and its own tokenizer trained on them by its own command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from peers.process import run_process

if TYPE_CHECKING:
    from peers.contestants import Nanochat

PIECE_BYTES = 600
DATA = "base_data_climbmix"  # the folder its loader looks into; of its files the last by name is its validation text
SAMPLE_CHARACTERS = 20_000_000


def cut(text: str, most: int = PIECE_BYTES) -> list[str]:
    """Pieces of at most `most` bytes of UTF-8, cut after white space where some comes in the last quarter."""
    pieces = []
    while text:
        piece = text.encode()[:most].decode("utf-8", "ignore")
        if len(piece) < len(text):
            space = max(piece.rfind(" "), piece.rfind("\n"))
            if space > 0.75 * len(piece):
                piece = piece[: space + 1]
        pieces.append(piece)
        text = text[len(piece) :]
    return pieces


def prepare_documents(stream: Path, tokenizer: Path | None, base: Path, seed: int) -> None:
    """A base folder of nanochat's with the text of `stream` in pieces, in an order by seed; made once."""
    done = base / "ready"
    if done.exists():
        return
    shutil.rmtree(base, ignore_errors=True)
    (base / DATA).mkdir(parents=True)
    pieces = [piece for text in pq.read_table(stream, columns=["text"])["text"].to_pylist() for piece in cut(text)]
    order = np.random.default_rng(seed).permutation(len(pieces))
    table = pa.table({"text": [pieces[index] for index in order]})
    pq.write_table(table, base / DATA / "shard_00000.parquet", compression="zstd", row_group_size=1024)
    pq.write_table(table.slice(0, 1024), base / DATA / "shard_99999.parquet", compression="zstd")  # never read: its evaluation is off
    if tokenizer is not None:
        shutil.copytree(tokenizer, base / "tokenizer")
    done.touch()


def prepare_tokenizer(contestant: Nanochat) -> Path:
    """nanochat's tokenizer, trained once for all seeds."""
    base = contestant.text.folder / "nanochat" / "tokenizer"
    made = base / "tokenizer"
    if not (made / "token_bytes.pt").exists():
        prepare_documents(contestant.text.stream, None, base, 0)
        command = [contestant.python, "-m", "scripts.tok_train", f"--vocab-size={contestant.VOCABULARY}", f"--max-chars={SAMPLE_CHARACTERS}"]
        run_process(command, base / "log", contestant.environment(base), cwd=contestant.checkout)
    return made
