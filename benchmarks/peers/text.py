"""The text of `equal_time.py`: made once by hagane's corpus stage, before any clock starts, and the same for every contestant.

`train/LANGUAGE.parquet` are cleaned documents without duplicates and without the held-out ones: what `hagane run --corpus` is given.
`stream.parquet` is the same documents as the other contestants read them: in the mixture that hagane would choose (UniMax: equal
bytes per language, nothing repeated more than four times), spread evenly, so that they need no mixture of their own.
`test.jsonl` are whole held-out documents, chosen by the hash of their text; nobody trains on them.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hagane.corpus.build import CorpusFacts, build_corpus
from hagane.corpus.documents import read_documents
from hagane.corpus.mixture import unimax_budgets
from hagane.recipe.schema import CorpusSettings, Source

MAX_REPEATS = 4.0
LONGEST_SHARE = 0.25  # of a language's test: a longer document is passed over while there are others, so that no one of them decides


@dataclass(frozen=True)
class Text:
    """What was made: `digest` names the bytes that are tested and trained on."""

    folder: Path
    digest: str
    test_bytes: dict[str, list[int]]  # language -> bytes of its test documents
    train_bytes: dict[str, int]

    @property
    def train(self) -> Path:
        return self.folder / "train"

    @property
    def stream(self) -> Path:
        return self.folder / "stream.parquet"

    @property
    def test(self) -> Path:
        return self.folder / "test.jsonl"


def choose_folders(corpus: Path, languages: list[str]) -> list[Path]:
    """The named folders of a corpus that has one per language, or as many of the largest as a single number says."""
    folders = sorted((path for path in corpus.iterdir() if path.is_dir()), key=lambda path: -sum(file.stat().st_size for file in path.rglob("*")))
    if not folders:
        return [corpus]
    if len(languages) == 1 and languages[0].isdigit():
        return folders[: int(languages[0])]
    missing = [name for name in languages if not (corpus / name).is_dir()]
    if missing:
        raise SystemExit(f"{corpus} has no folder {missing[0]}; it has {', '.join(sorted(path.name for path in folders))}.")
    return [corpus / name for name in languages]


def prepare(corpus: Path | None, languages: list[str], stream_bytes: int, test_bytes: int, out: Path) -> Text:
    """Read, clean, split and mix; kept below `out` under a name of these settings. Without a corpus: Python and English of the standard library."""
    paths = tuple(str(path.resolve()) for path in choose_folders(corpus, languages)) if corpus else ("embedded:python",)
    wanted = {"paths": [Path(path).name for path in paths], "stream_bytes": stream_bytes, "test_bytes": test_bytes}
    folder = out / f"text-{hashlib.blake2b(json.dumps(wanted).encode(), digest_size=4).hexdigest()}"
    facts = folder / "text.json"
    if facts.exists():
        known = json.loads(facts.read_text())
        return Text(folder, known["digest"], known["test_bytes"], known["train_bytes"])
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "corpus").mkdir(parents=True)
    # twice the test is held out: documents too long for it are passed over, but nobody trains on them
    settings = CorpusSettings(
        sources=(Source(name="text", path=paths),), sample_bytes=round(1.2 * stream_bytes) + 4 * test_bytes * len(paths),
        held_out_share=0.05, held_out_bytes=3 * test_bytes,
    )  # fmt: skip
    built = build_corpus(settings.sources, settings, folder / "corpus")
    count = len(paths) if corpus else 2
    shards = {built.shards[name].language: name for name in sorted(built.shards, key=lambda name: -built.shards[name].bytes)[:count]}
    test_sizes = _write_test(folder, built, shards, test_bytes)
    (folder / "train").mkdir()
    for language, name in shards.items():
        (folder / "corpus" / "train" / f"{name}.parquet").rename(folder / "train" / f"{language}.parquet")
    shutil.rmtree(folder / "corpus")
    train_sizes = {language: built.shards[name].bytes for language, name in shards.items()}
    _write_stream(folder, train_sizes, stream_bytes)
    digest = hashlib.blake2b((folder / "test.jsonl").read_bytes() + (folder / "stream.parquet").read_bytes(), digest_size=8).hexdigest()
    facts.write_text(json.dumps({"settings": wanted, "digest": digest, "test_bytes": test_sizes, "train_bytes": train_sizes}, ensure_ascii=False))
    return Text(folder, digest, test_sizes, train_sizes)


def _write_test(folder: Path, facts: CorpusFacts, shards: dict[str, str], most: int) -> dict[str, list[int]]:
    sizes: dict[str, list[int]] = {}
    with (folder / "test.jsonl").open("w", encoding="utf-8") as file:
        for language, name in sorted(shards.items()):
            texts = [record["text"] for record in read_documents(folder / "corpus", "held_out", name)]
            chosen = choose_test(texts, most)
            if not chosen:
                raise SystemExit(f"the corpus gives no held-out text for {language}; leave it out with --languages.")
            sizes[language] = [len(text.encode()) for text in chosen]
            file.writelines(json.dumps({"lang": language, "text": text}, ensure_ascii=False) + "\n" for text in chosen)
    return sizes


def choose_test(texts: list[str], most: int) -> list[str]:
    """Whole documents up to `most` bytes, in the order of their hash; where these are too few, the beginnings of long ones."""
    ordered = sorted(texts, key=lambda text: hashlib.blake2b(text.encode()).digest())
    longest = round(most * LONGEST_SHARE)
    chosen, room, passed_over = [], most, []
    for text in ordered:
        size = len(text.encode())
        if size > longest:
            passed_over.append(text)
        elif size <= room:
            chosen.append(text)
            room -= size
    for text in passed_over:
        if room < most / 2:
            break
        chosen.append(text.encode()[: min(longest, room)].decode("utf-8", "ignore"))
        room -= len(chosen[-1].encode())
    return chosen


def _write_stream(folder: Path, sizes: dict[str, int], stream_bytes: int) -> None:
    budgets = unimax_budgets({language: float(size) for language, size in sizes.items()}, float(stream_bytes), MAX_REPEATS)
    placed: list[tuple[float, str, str]] = []  # (how far into its language's share it comes, language, text)
    for language, budget in sorted(budgets.items()):
        texts = pq.read_table(folder / "train" / f"{language}.parquet", columns=["text"])["text"].to_pylist()
        seen = 0.0
        for text in _shuffled_again(texts, language):
            if seen >= budget:
                break
            placed.append((seen / budget, language, text))
            seen += len(text.encode())
    placed.sort(key=lambda item: item[:2])
    table = pa.table({"text": [text for _, _, text in placed], "lang": [language for _, language, _ in placed]})
    pq.write_table(table, folder / "stream.parquet", compression="zstd", row_group_size=1000)


def _shuffled_again(texts: list[str], language: str) -> Iterator[str]:
    generator = np.random.default_rng(list(language.encode()))
    while texts:
        for index in generator.permutation(len(texts)):
            yield texts[index]


def toy_text(folder: Path, documents: Mapping[str, int], num_words: int) -> Path:
    """Made-up words, `num_words` different ones of each language: so many documents by language, in a folder each. Returns `folder`."""
    for language, count in documents.items():
        draw = random.Random(language)
        words = ["".join(draw.choices("aeioukstnrldvmg", k=draw.randint(2, 7))) for _ in range(num_words)]
        (folder / language).mkdir(parents=True)
        lines = [json.dumps({"text": " ".join(draw.choices(words, k=120)), "lang": language}) for _ in range(count)]
        (folder / language / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder
