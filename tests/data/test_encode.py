"""Encoding: what was written is read back, whole or not at all."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from hagane.corpus.build import build_corpus
from hagane.corpus.documents import read_documents
from hagane.data import encode as module
from hagane.data.encode import encode_text, write_conversations
from hagane.data.shards import Collection
from hagane.errors import DataError
from hagane.recipe.schema import CorpusSettings, Source
from hagane.tokenizer.bpe import cut, plain, train_tokenizer
from hagane.tokenizer.chat import ChatEncoder, Conversation, render
from hagane.tokenizer.save import save_for_transformers

CONTEXT = 32


def write_corpus(root, count=200):
    folder = root / "input"
    for language, text in (("sv", "Det var en gång en liten stuga vid sjön, nummer {}. "), ("ja", "これは{}番目の文書です。湖のほとりに家がありました。")):
        (folder / language).mkdir(parents=True)
        records = [json.dumps({"text": text.format(number) * (1 + number % 5)}) for number in range(count)]
        (folder / language / "a.jsonl").write_text("\n".join(records))
    (root / "corpus").mkdir()
    # every document is like a held-out one, on purpose
    return build_corpus([Source(name="text", path=str(folder))], CorpusSettings(min_characters=8, held_out_overlap=0), root / "corpus")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    facts = write_corpus(root)
    texts = [row["text"] for name in facts.shards for row in read_documents(root / "corpus", "train", name)]
    return root / "corpus", facts, cut(train_tokenizer(texts, 500), 400)


def test_words_of_another_pre_tokenizer_are_not_cut(corpus, tmp_path, monkeypatch):
    """One whose words are whole lines, as they may be in a published tokenizer: a document is then encoded as a whole."""
    folder, facts, tokenizer = corpus
    monkeypatch.setattr(module, "PIECE_CHARACTERS", 20)
    other = Tokenizer.from_str(tokenizer.to_str())
    split = pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), behavior="isolated")
    other.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    encode_text(folder, facts.shards, other, tmp_path / "text", [CONTEXT])
    shard = Collection(tmp_path / "text").shards["text.sv"]
    first = next(iter(read_documents(folder, "train", "text.sv")))["text"]
    assert shard.tokens[1 : shard.documents[1]].tolist() == plain(other).encode(first).ids


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_encoded_is_read_back(corpus, tmp_path):
    folder, facts, tokenizer = corpus
    encoded = encode_text(folder, facts.shards, tokenizer, tmp_path / "text", (CONTEXT, 64))
    collection = Collection(tmp_path / "text")
    end = tokenizer.token_to_id("<|endoftext|>")
    assert (collection.vocabulary_size, collection.end_token) == (400, end)
    assert set(collection.shards) == {"text.sv", "text.ja"}
    for name, shard in collection.shards.items():
        texts = [row["text"] for row in read_documents(folder, "train", name)]
        assert len(shard.documents) - 1 == len(texts) == encoded.shards[name].documents
        for text, start, stop in zip(texts, shard.documents[:-1], shard.documents[1:]):
            assert shard.tokens[start] == end
            assert plain(tokenizer).decode([number for number in shard.tokens[start:stop].tolist() if number != end]) == text
        assert shard.tokens[-1] == end
        assert shard.documents[-1] == len(shard.tokens) == encoded.shards[name].tokens
        assert encoded.shards[name].bytes == sum(len(text.encode()) for text in texts) == facts.shards[name].bytes
        rows = shard.rows(CONTEXT)
        assert rows.num_rows == encoded.shards[name].rows[CONTEXT]
        assert np.concatenate([shard.tokens[a:b][:-1] for a, b in rows.segments_S2]).tolist() == shard.tokens[:-1].tolist()
    assert encoded.tokens == sum(len(shard.tokens) for shard in collection.shards.values())


def test_small_batches_and_pieces_give_the_same_files_as_large_ones(corpus, tmp_path, monkeypatch):
    folder, facts, tokenizer = corpus
    encode_text(folder, facts.shards, tokenizer, tmp_path / "a", (CONTEXT,))
    monkeypatch.setattr(module, "BATCH_BYTES", 300)
    monkeypatch.setattr(module, "PIECE_CHARACTERS", 20)
    encode_text(folder, facts.shards, tokenizer, tmp_path / "b", (CONTEXT,))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_ids_that_need_it_are_written_with_four_bytes(corpus, tmp_path):
    folder, facts, tokenizer = corpus
    encode_text(folder, facts.shards, cut(tokenizer, 70_000), tmp_path, (CONTEXT,))
    shard = Collection(tmp_path).shards["text.ja"]
    assert shard.tokens.dtype.itemsize == 4
    assert shard.tokens[0] == 70_000 - 5


def test_progress_ends_at_the_total(corpus, tmp_path):
    folder, facts, tokenizer = corpus
    calls = []
    encode_text(folder, facts.shards, tokenizer, tmp_path, (CONTEXT,), progress=lambda *call: calls.append(call))
    assert calls[-1][1] == calls[-1][2] == sum(shard.bytes for shard in facts.shards.values())


def conversations(count=50):
    for number in range(count):
        yield Conversation.single(f"What is {number} + 1?", str(number + 1), f"{number} + 1 = {number + 1}" if number % 2 else None, "en", "problems")
        yield Conversation.single(f"{number} + 1 は?", str(number + 1), None, "ja", "problems")


def batches(given, tokenizer):
    """By language, seven conversations at a time, so that a shard comes in several batches."""
    given, encoder = list(given), ChatEncoder(tokenizer)
    parts = [given[start : start + 7] for start in range(0, len(given), 7)]
    return [batch for part in parts for batch in encoder.batches(part, lambda one: f"{one.source}.{one.language}")]


def test_conversations_are_whole_and_only_the_answer_is_a_target(corpus, tmp_path):
    tokenizer = corpus[2]
    facts = write_conversations(batches(conversations(), tokenizer), tokenizer, tmp_path, (128,))
    collection = Collection(tmp_path)
    assert {name: shard.documents for name, shard in facts.shards.items()} == {"problems.en": 50, "problems.ja": 50}
    shard = collection.shards["problems.en"]
    for given, start, stop in zip([one for one in conversations() if one.language == "en"], shard.documents[:-1], shard.documents[1:]):
        ids, weight = shard.tokens[start:stop].tolist(), shard.weight[start:stop]
        assert tokenizer.decode(ids, skip_special_tokens=False) + "\n" == render(given.messages, given.thinking, add_generation_prompt=False)
        prompt = len(tokenizer.encode(render(given.messages[:1], given.thinking)).ids)
        assert weight.tolist() == [0] * prompt + [1] * (len(ids) - prompt)
    assert facts.shards["problems.en"].target_tokens == int(shard.weight.sum())
    row = shard.row(128, 0)
    assert set(row.document_T.tolist()) >= {0, 1}  # several conversations share a row
    assert facts.over_long == 0


def test_conversations_that_no_row_can_hold_are_counted(corpus, tmp_path):
    long = Conversation.single("q", "a " * 400, "t", "en", "problems")
    facts = write_conversations(batches([*conversations(), long], corpus[2]), corpus[2], tmp_path / "a", (128,))
    assert facts.over_long == 1
    assert facts.shards["problems.en"].over_long == {128: 1}
    with pytest.raises(DataError, match=r"every conversation is longer than train\.context = 128"):
        write_conversations(batches([long], corpus[2]), corpus[2], tmp_path / "b", (128,))


def test_a_corpus_smaller_than_one_batch_is_refused(corpus, tmp_path):
    folder, facts, tokenizer = corpus
    with pytest.raises(DataError, match=r"the text is only [\d,]+ tokens; one step of training reads 9,000,000\. Give more text"):
        encode_text(folder, facts.shards, tokenizer, tmp_path / "a", (CONTEXT,), tokens_per_step=9_000_000)
    assert not (tmp_path / "a" / "index.json").exists()
    with pytest.raises(DataError, match="nothing to train on"):
        write_conversations([], tokenizer, tmp_path / "b", (CONTEXT,))


def test_a_corpus_that_went_away_or_is_damaged_is_named(tmp_path):
    facts = write_corpus(tmp_path, 20)
    tokenizer = train_tokenizer(["x y z"], 300)
    (tmp_path / "corpus" / "train" / "text.ja.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"text\.ja\.parquet is damaged"):
        encode_text(tmp_path / "corpus", facts.shards, tokenizer, tmp_path / "text", (CONTEXT,))
    (tmp_path / "corpus" / "train" / "text.ja.parquet").unlink()
    with pytest.raises(DataError, match=r"text\.ja\.parquet is gone"):
        encode_text(tmp_path / "corpus", facts.shards, tokenizer, tmp_path / "text", (CONTEXT,))


@pytest.mark.parametrize("failing", range(7))
def test_a_failure_at_any_write_leaves_nothing_that_passes_for_complete(corpus, tmp_path, monkeypatch, failing):
    folder, facts, tokenizer = corpus
    encode_text(folder, facts.shards, tokenizer, tmp_path / "whole", (CONTEXT,))
    encode_text(folder, facts.shards, cut(tokenizer, 300), tmp_path / "text", (CONTEXT,))  # an earlier, other result is there
    calls = iter(range(1000))

    def sync(descriptor):
        if next(calls) == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", sync)
    with pytest.raises(OSError, match="No space left"):
        encode_text(folder, facts.shards, tokenizer, tmp_path / "text", (CONTEXT,))
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"index\.json is missing"):
        Collection(tmp_path / "text")
    encode_text(folder, facts.shards, tokenizer, tmp_path / "text", (CONTEXT,))
    assert files(tmp_path / "text") == files(tmp_path / "whole")


def test_kill_at_random_moments_leaves_nothing_that_passes_for_complete(corpus, tmp_path):
    folder, facts, tokenizer = corpus
    encode_text(folder, facts.shards, tokenizer, tmp_path / "whole", (CONTEXT,))
    save_for_transformers(tokenizer, tmp_path / "tokenizer", CONTEXT)
    # One process that forks the victims: importing takes longer than all of them live.
    program = textwrap.dedent(f"""
        import os, random, shutil, signal, time
        from pathlib import Path
        from hagane.corpus.build import CorpusFacts
        from hagane.data import encode
        from hagane.tokenizer.bpe import load_tokenizer
        facts = CorpusFacts.model_validate_json({facts.model_dump_json()!r})
        tokenizer = load_tokenizer(Path({str(tmp_path / "tokenizer")!r}))
        encode.BATCH_BYTES = 100
        random.seed(0)
        for victim in range(8):
            text = Path({str(tmp_path)!r}, "text")
            child = os.fork()
            if child == 0:
                while True:
                    encode.encode_text(Path({str(folder)!r}), facts.shards, tokenizer, text, ({CONTEXT},))
            time.sleep(random.uniform(0, 0.2))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if text.exists():
                shutil.copytree(text, text.with_name(f"killed-{{victim}}"))
    """)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    killed = list(tmp_path.glob("killed-*"))
    assert len(killed) >= 4
    for attempt in killed:
        if (attempt / "index.json").exists():
            assert {name: data for name, data in files(attempt).items() if not name.startswith(".")} == files(tmp_path / "whole")
    encode_text(folder, facts.shards, tokenizer, tmp_path / "text", (CONTEXT,))
    assert files(tmp_path / "text") == files(tmp_path / "whole")
