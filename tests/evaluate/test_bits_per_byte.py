import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hagane.engine.load import load_huggingface
from hagane.evaluate import bits_per_byte as module
from hagane.evaluate.bits_per_byte import HeldOut, bits_per_byte, bits_per_sentence, cut, read_held_out, score
from hagane.release.huggingface import release_huggingface
from hagane.tokenizer.bpe import plain, special_ids
from hagane.tokenizer.save import save_for_transformers
from toy_models import toy_config, toy_decoder, toy_tokenizer

TEXTS = [
    "The cat sat on the mat and 12 birds sang.",
    "三千四百二十一と書いてください。" * 9,
    "x",
    "def f(x):\n    return x <|im_end|> <think>\n" * 4,
    "Ég heiti Jón og bý á Íslandi.",
]


def brute_force(logits_of, context):
    """Token by token with someone else's logits: -log2 p of every text, windows as training cuts them."""
    tokenizer, totals = toy_tokenizer(), []
    for text in TEXTS:
        ids = [special_ids(tokenizer)["<|endoftext|>"], *plain(tokenizer).encode(text, add_special_tokens=False).ids]
        bits = 0.0
        for target in range(1, len(ids)):
            start = (target - 1) // context * context
            logits = logits_of(torch.tensor([ids[start:target]]))[0, -1].double()
            bits -= float(logits.log_softmax(-1)[ids[target]]) / math.log(2)
        totals.append(bits)
    return totals


@pytest.mark.parametrize("kind", ("dense", "experts"))
def test_bits_equal_a_loop_over_the_logits_of_transformers(tmp_path, kind, monkeypatch):
    transformers = pytest.importorskip("transformers")
    save_for_transformers(toy_tokenizer(), tmp_path, 64)
    state = dict(toy_decoder(kind).named_parameters())
    release_huggingface(state, toy_config(kind), tmp_path, tmp_path / "model", dtype="float32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    decoder, _ = load_huggingface(tmp_path / "model")
    monkeypatch.setitem(module.BATCH_TOKENS, "cpu", 50)  # several passes
    with torch.inference_mode():
        expected = brute_force(lambda ids: theirs(input_ids=ids).logits, context=32)
    scores = score(decoder, toy_tokenizer(), TEXTS, context=32)
    assert scores.bits_D == pytest.approx(expected, rel=1e-5)
    assert scores.bytes_D.tolist() == [len(text.encode()) for text in TEXTS]
    assert scores.tokens_D.sum() == sum(len(plain(toy_tokenizer()).encode(text).ids) for text in TEXTS)


def test_a_model_that_knows_nothing_needs_the_bits_of_its_vocabulary():
    decoder = toy_decoder()
    decoder.embedding.weight.zero_()
    by_language, _ = bits_per_byte(decoder, toy_tokenizer(), [HeldOut("a.en", "en", tuple(TEXTS))], 32)
    bits = by_language["en"]
    assert bits.value == pytest.approx(bits.tokens * math.log2(320) / bits.bytes, rel=1e-5)
    assert bits.low < bits.value < bits.high and bits.documents == len(TEXTS)


def test_languages_pool_their_shards():
    parts = [HeldOut("a.en", "en", tuple(TEXTS[:2])), HeldOut("b.en", "en", tuple(TEXTS[2:])), HeldOut("b.sv", "sv", ("Hej på dig",))]
    by_language, by_shard = bits_per_byte(toy_decoder(), toy_tokenizer(), parts, 32)
    assert list(by_language) == ["en", "sv"] and list(by_shard) == ["a.en", "b.en", "b.sv"]
    bits = [by_shard[name].value * by_shard[name].bytes for name in ("a.en", "b.en")]
    assert by_language["en"].value == pytest.approx(sum(bits) / by_language["en"].bytes)


def test_parallel_sentences_have_one_figure_per_language():
    sentences = [{"en": f"The number is {n}.", "ja": f"数は{n}です。"} for n in range(30)]
    result = bits_per_sentence(toy_decoder(), toy_tokenizer(), sentences, 64)
    assert list(result) == ["en", "ja"] and result["ja"].sentences == 30
    assert result["en"].low < result["en"].bits_per_sentence < result["en"].high
    assert bits_per_sentence(toy_decoder(), toy_tokenizer(), [], 64) == {}


def test_no_long_document_decides():
    kept = cut(["a" * 5000, *["b" * 100] * 40], 2000)
    assert sum(map(len, kept)) <= 2000 and max(map(len, kept)) == 100 and len(kept) == 20
    assert cut(["é" * 600, "b" * 10], 1000) == ["é" * 250, "b" * 10]
    assert cut(["é"], 1) == [] and cut([], 100) == []


def test_held_out_shards_are_read_in_a_seeded_order(tmp_path):
    (tmp_path / "held_out").mkdir()
    rows = [{"id": str(n), "text": f"no. {n}", "lang": "sv", "source": "a", "license": "CC0"} for n in range(50)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "held_out" / "a.sv.parquet")
    (part,) = read_held_out(tmp_path, 200)
    assert (part.shard, part.language) == ("a.sv", "sv") and sum(map(len, part.texts)) <= 200
    assert read_held_out(tmp_path, 200) == [part] and read_held_out(tmp_path, 200, seed=1) != [part]
    assert read_held_out(tmp_path / "held_out", 200) == []
