"""Byte-level BPE: round trips, the pre-tokenizer, nested prefixes."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hagane.errors import DataError, RecipeError
from hagane.tokenizer.bpe import (
    MIN_VOCABULARY,
    PATTERN,
    _build,
    bytes_per_token,
    cut,
    load_tokenizer,
    num_learned,
    pieces,
    plain,
    special_ids,
    train_tokenizer,
)
from hagane.tokenizer.special import SPECIAL_TOKENS

SIZES = (MIN_VOCABULARY, 300, 401, 700)


def vocabulary(tokenizer):
    return json.loads(tokenizer.to_str())["model"]["vocab"]


def merges(tokenizer):
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


@settings(max_examples=300)
@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=200))
def test_every_string_comes_back_from_every_size(text):
    for encoder in _plain_sizes():
        ids = encoder.encode(text, add_special_tokens=False).ids
        assert encoder.decode(ids, skip_special_tokens=False) == text


@given(st.lists(st.one_of(st.sampled_from([*SPECIAL_TOKENS, "<|unused_0|>", "\r\n", "\u0000", "e\u0301", "ﬁ", " ", "  \n", "12", "'LL"]), st.text(max_size=5))))
def test_spelled_special_tokens_stay_text(parts):
    text = "".join(parts).encode("utf-8", "ignore").decode()
    for encoder in _plain_sizes():
        ids = encoder.encode(text, add_special_tokens=False).ids
        assert encoder.decode(ids, skip_special_tokens=False) == text
        assert all(number < encoder.get_vocab_size() for number in ids)


_built: dict[str, Tokenizer] = {}


@pytest.fixture(autouse=True)
def _keep(tokenizer):
    _built["full"] = tokenizer


def _plain_sizes():
    if "plain" not in _built:
        _built["plain"] = [plain(cut(_built["full"], size)) for size in (*SIZES, 900)]
    return _built["plain"]


def test_ids_are_bytes_then_merges_in_order_then_special_tokens(tokenizer):
    ids = vocabulary(tokenizer)
    assert [tokenizer.encode(chr(code)).ids for code in (0, 65, 122)] == [[0], [65], [122]]
    first = {}
    for left, right in merges(tokenizer):
        first.setdefault(left + right, len(first) + 256)
    assert {token: number for token, number in ids.items() if number >= 256} == first
    size = tokenizer.get_vocab_size()
    assert size == 700 == num_learned(tokenizer)
    assert special_ids(tokenizer) == {token: size - 5 + index for index, token in enumerate(SPECIAL_TOKENS)}


@pytest.mark.parametrize("size", SIZES)
def test_a_smaller_vocabulary_is_a_prefix(tokenizer, texts, size):
    small = cut(tokenizer, size)
    assert small.get_vocab_size() == size
    assert list(special_ids(small).values()) == list(range(size - 5, size))
    large = vocabulary(tokenizer)
    assert vocabulary(small) == {token: number for token, number in large.items() if number < size - 5}
    assert merges(small) == [pair for pair in merges(tokenizer) if large["".join(pair)] < size - 5]
    assert cut(cut(tokenizer, max(size, 401)), size).to_str() == small.to_str()


def test_a_prefix_is_what_training_to_that_size_gives(texts):
    assert cut(train_tokenizer(texts * 2, 500), 400).to_str() == train_tokenizer(texts * 2, 400).to_str()


def test_two_merges_with_one_result_are_one_token():
    tokenizer = _build([("a", "b"), ("b", "a"), ("ab", "a"), ("a", "ba"), ("aba", "b")], None)
    assert {token: number for token, number in vocabulary(tokenizer).items() if number >= 256} == {"ab": 256, "ba": 257, "aba": 258, "abab": 259}
    assert special_ids(tokenizer)["<|endoftext|>"] == 260
    for size in range(MIN_VOCABULARY, 266):
        assert cut(tokenizer, size).get_vocab_size() == size
    assert merges(cut(tokenizer, 264)) == [("a", "b"), ("b", "a"), ("ab", "a"), ("a", "ba")]


def test_a_size_beyond_what_was_learned_is_filled(texts):
    tokenizer = train_tokenizer(texts[:1], 5000)
    learned = num_learned(tokenizer)
    assert learned < 5000
    filled = cut(tokenizer, 6000)
    assert filled.get_vocab_size() == 6000
    assert list(special_ids(filled).values()) == list(range(5995, 6000))
    assert plain(filled).encode(texts[0]).ids == plain(tokenizer).encode(texts[0]).ids
    assert cut(filled, learned).to_str() == cut(tokenizer, learned).to_str()


def _words(tokenizer, text):
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


@settings(max_examples=1000)
@given(st.text(st.sampled_from("aÅ漢'sS1-_ .\n\r\t\x0b\x1c\x85\xa0\u180e\u200b\u2028\u3000\u0301"), max_size=40), st.integers(1, 9))
def test_pieces_of_a_text_have_the_words_of_the_whole(text, size):
    assert "".join(pieces(text, size)) == text
    assert [word for piece in pieces(text, size) for word in _words(_built["full"], piece)] == _words(_built["full"], text)


def test_no_character_makes_a_cut_unsafe(tokenizer):
    """Python and the pre-tokenizer need not agree on what is white space; all that is neither letter nor digit is tried on both sides of a cut."""
    for character in map(chr, range(0x20000)):
        if unicodedata.category(character)[0] in "LN" or unicodedata.category(character) in ("Cn", "Co", "Cs"):
            continue
        text = f"a{character} b.{character} .\n{character}b\n{character} "
        assert [word for piece in pieces(text, 1) for word in _words(tokenizer, piece)] == _words(tokenizer, text), hex(ord(character))


def test_the_pre_tokenizer_is_that_of_qwen2(tokenizer):
    published = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    assert published == PATTERN
    words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("He'll pay 1234 kr.\n\n  Då (ja)!")]
    assert words == ["He", "'ll", "Ġpay", "Ġ", "1", "2", "3", "4", "Ġkr", ".ĊĊ", "Ġ", "ĠDÃ¥", "Ġ(", "ja", ")!"]


def test_nothing_is_normalised(tokenizer):
    assert json.loads(tokenizer.to_str())["normalizer"] is None
    assert tokenizer.encode("e\u0301").ids != tokenizer.encode("\u00e9").ids


def test_thinking_stays_readable_where_special_tokens_are_left_out(tokenizer):
    ids = tokenizer.encode("<|im_start|>a<think>b</think>c<|im_end|>").ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<think>b</think>c"


def test_larger_vocabularies_need_fewer_tokens(tokenizer, texts):
    measured = bytes_per_token(tokenizer, {"sv": texts[1:2], "ja": texts[2:3], "xx": [""]}, (MIN_VOCABULARY, 400, 700))
    assert measured[MIN_VOCABULARY] == {"sv": 1.0, "ja": 1.0}
    assert 1 < measured[400]["sv"] < measured[700]["sv"]


def test_training_is_repeatable(texts):
    assert train_tokenizer(iter(texts), 400).to_str() == train_tokenizer(texts, 400).to_str()


def test_bad_input(tmp_path, tokenizer):
    with pytest.raises(RecipeError, match="a vocabulary of 260 is too small"):
        cut(tokenizer, 260)
    with pytest.raises(RecipeError, match="too small"):
        train_tokenizer(["x"], 100)
    with pytest.raises(DataError, match="no text to train the tokenizer"):
        train_tokenizer([], 400)
    with pytest.raises(DataError, match="there is no tokenizer yet"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="is damaged"):
        load_tokenizer(tmp_path)
