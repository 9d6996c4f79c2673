"""Small corpora written on the spot."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard

from hagane.corpus import gather, pool
from hagane.corpus.build import CorpusFacts, build_corpus
from hagane.corpus.documents import read_documents
from hagane.recipe.schema import CorpusSettings, Source

SENTENCES = {
    "sv": "Det var en gång en liten stuga vid sjön, nummer {}, och där bodde en gammal man. ",
    "ja": "これは{}番目の文書です。湖のほとりに小さな家があり、老人が住んでいました。",
    "en": "Once upon a time there was a small cottage by the lake, number {}, and an old man lived there. ",
}


def record(language: str, number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"{language}-{number}", "text": SENTENCES[language].format(number) * 3, "lang": language, "license": "CC0-1.0", **more}


def write_jsonl(path: Path, records: Sequence[Any]) -> Path:
    """Write records, compressed as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in records).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


@pytest.fixture
def make() -> SimpleNamespace:
    """Helpers for tests of the corpus: `record`, `write_jsonl`, `texts_of`."""
    return SimpleNamespace(record=record, write_jsonl=write_jsonl, texts_of=texts_of)


@pytest.fixture
def list_of_files() -> Callable[[Path], list[dict[str, Any]]]:
    """`list_of_files(corpus)`: what `files.jsonl` says."""
    return lambda corpus: [json.loads(line) for line in (corpus / "files.jsonl").read_text(encoding="utf-8").splitlines()]


Build = Callable[..., CorpusFacts]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """`build(path, ..., workers=, seed=, **settings)`: a corpus in tmp_path/corpus of one source named `text`."""

    def run(*paths: Path | str, out: str = "corpus", workers: int = 1, seed: int = 0, sources: Sequence[Source] = (), **settings: Any) -> CorpusFacts:
        folder = tmp_path / out
        folder.mkdir()
        settings = {"near_duplicates": 0.0, "held_out_overlap": 0.0} | settings  # the small documents of these tests are made from one sentence
        sources = sources or [Source(name="text", path=tuple(str(path) for path in paths))]
        return build_corpus(sources, CorpusSettings(**settings), folder, workers=workers, seed=seed)

    return run


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a task of its own, and every task is worth a process."""
    monkeypatch.setattr(gather, "TASK_BYTES", 0)
    monkeypatch.setattr(pool, "useful_workers", lambda workers, *_: workers)


def texts_of(corpus: Path, facts: CorpusFacts) -> dict[str, list[str]]:
    """Texts by split."""
    return {
        "train": [row["text"] for name in facts.shards for row in read_documents(corpus, "train", name)],
        "held_out": [row["text"] for name in facts.shards for row in read_documents(corpus, "held_out", name)],
    }
