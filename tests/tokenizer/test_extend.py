"""A finished tokenizer with new tokens: written out in pieces every text has its old ids, whatever the text."""

import collections
import itertools
import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from hagane.errors import DataError
from hagane.tokenizer.bpe import byte_characters, plain, train_tokenizer
from hagane.tokenizer.extend import extend, next_id, with_special_tokens
from hagane.tokenizer.save import save_for_transformers
from hagane.tokenizer.special import SPECIAL_TOKENS

OLD = ["Once upon a time there was a small cottage by the lake, and an old man lived there; he'd counted 1234 boats.\n"] * 4
NEW = ["Det var en gång en liten stuga vid sjön, och där bodde en gammal man som räknade båtar.\n", "湖のほとりに小さな家があり、老人が住んでいました。\n"] * 6
KINDS = ("ours", "ignore_merges", "nfc", "other words")


@cache
def old(kind="ours") -> Tokenizer:
    tokenizer = train_tokenizer(OLD, 400)
    if kind == "nfc":  # as Qwen publishes it
        tokenizer.normalizer = normalizers.NFC()
    if kind == "other words":  # as Llama 3 does: three digits a word
        split = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}{1,3}|[^\p{L}\p{N}]+"), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if kind == "ignore_merges":  # likewise: words that are tokens are looked up
        description = json.loads(tokenizer.to_str())
        description["model"]["ignore_merges"] = True
        tokenizer = Tokenizer.from_str(json.dumps(description))
    return tokenizer


@cache
def new(kind="ours", max_new=60):
    return extend(old(kind), NEW, max_new)


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


TEXTS = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=60),
    st.text(st.sampled_from("Det var en gång湖のほと小さな家1é\n"), max_size=60),
    st.lists(st.sampled_from(" ".join([*OLD[:1], *NEW[:2]]).split(" ")), max_size=12).map(" ".join),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_written_out_in_pieces_every_text_has_its_old_ids(kind, text):
    for encoder, before in ((new(kind).tokenizer, old(kind)), (plain(new(kind).tokenizer), plain(old(kind)))):
        assert new(kind).written_out(ids(encoder, text)) == ids(before, text)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_every_string_comes_back(text):
    encoder = plain(new().tokenizer)
    assert encoder.decode(ids(encoder, text), skip_special_tokens=False) == text


@pytest.mark.parametrize("kind", KINDS)
def test_new_ids_follow_all_old_ones_which_stay_and_new_text_is_shorter(kind):
    before, after = old(kind).get_vocab(with_added_tokens=True), new(kind).tokenizer.get_vocab(with_added_tokens=True)
    assert before.items() <= after.items() and sorted(after.values()) == list(range(len(before) + 60)) and next_id(old(kind)) == len(before)
    assert set(new(kind).pieces) == set(after.values()) - set(before.values())
    assert len(ids(new(kind).tokenizer, NEW[0])) < 0.6 * len(ids(old(kind), NEW[0]))
    string_of = {number: token for token, number in after.items()}
    for number, pieces in new(kind).pieces.items():
        assert len(pieces) > 1 and "".join(string_of[piece] for piece in pieces) == string_of[number]


def test_the_merges_are_those_of_byte_pair_encoding_on_the_old_tokens():
    """Against a written-out learner: join the most frequent pair of neighbours in a word, count anew."""
    words = collections.Counter(word for text in NEW for word, _ in old().pre_tokenizer.pre_tokenize_str(text))
    counts = [([(token.id,) for token in old().model.tokenize(word)], count) for word, count in words.items()]
    for pieces in itertools.islice(new().pieces.values(), 25):
        pairs = collections.Counter()
        for parts, count in counts:
            for pair in itertools.pairwise(parts):
                pairs[pair] += count
        best = max(pairs.values())
        tied = [pair for pair, count in pairs.items() if count == best and pair[0] + pair[1] == pieces]
        assert tied, "of equally frequent pairs any may come first"
        for parts, _ in counts:
            index = 0
            while index + 1 < len(parts):
                if (parts[index], parts[index + 1]) == tied[0]:
                    parts[index : index + 2] = [pieces]
                index += 1


def test_a_pair_that_is_too_rare_is_no_token():
    rare = extend(old(), [*NEW, "zyxwvu " * 3], 5000, min_count=7)
    assert 0 < len(rare.pieces) < 400 and all("zyx" not in token for token in rare.tokenizer.get_vocab())
    assert len(extend(old(), NEW, 0).pieces) == 0


def test_a_string_that_is_a_token_already_is_not_made_another_way():
    """`ab` + `c` would spell the old `a` + `bc`: an old merge could then take it up, and old text would change."""
    description = json.loads(old().to_str())
    base = {token: number for token, number in description["model"]["vocab"].items() if number < 256}
    description["model"] |= {"vocab": base | {"bc": 256, "ab": 257, "abc": 258, "abcd": 259}, "merges": [["b", "c"], ["a", "b"], ["a", "bc"], ["abc", "d"]]}
    description["added_tokens"] = []
    tight = Tokenizer.from_str(json.dumps(description))
    made = extend(tight, ["xab cx abab xabab abab"] * 9, 50)
    strings = {made.tokenizer.id_to_token(number) for number in made.pieces}
    assert strings and not strings & {"abc", "abcd", "ab", "bc"}
    for text in ("abc", "abcd", "ababc", "xababcd", "cabab"):
        assert made.written_out(ids(made.tokenizer, text)) == ids(tight, text)


def test_special_tokens_that_are_lacking_come_after_all_ids():
    description = json.loads(old().to_str())
    description["added_tokens"] = description["added_tokens"][:1]  # <|endoftext|> only
    lacking = Tokenizer.from_str(json.dumps(description))
    lacking.add_special_tokens([AddedToken("<s>", special=True)])
    start, end = lacking.token_to_id("<s>"), lacking.token_to_id("<|endoftext|>")
    whole = with_special_tokens(lacking, {"<|im_end|>": start})
    im_start, im_end, think, end_think = range(start + 1, start + 5)
    assert [whole.tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [end, im_start, im_end, think, end_think]
    assert whole.pieces.keys() == {im_start, im_end, think, end_think} and whole.pieces[im_end] == (start,)
    assert whole.written_out([think]) == ids(lacking, "<think>") and ids(whole.tokenizer, "a<|im_end|>b") == [97, im_end, 98]
    assert ids(plain(whole.tokenizer), "<think>") == ids(plain(lacking), "<think>")
    assert with_special_tokens(old(), {}).tokenizer is old() and not with_special_tokens(old(), {}).pieces


def test_the_file_is_read_as_it_was_written_here_and_by_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    save_for_transformers(new().tokenizer, tmp_path, 64)
    again, theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json")), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (*OLD[:1], *NEW[:2], "<|im_start|>user\nDet<|im_end|>", "<think>12</think>"):
        assert ids(again, text) == ids(new().tokenizer, text) == theirs(text)["input_ids"]
        assert theirs.decode(ids(again, text)) == text
    assert len(byte_characters()) == 256 and len(theirs) == next_id(again)


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(DataError, match=r"start\.languages"):
        extend(old(), [], 10)
