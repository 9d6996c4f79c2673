"""Words and runs of words are hashed as a plain loop would find them."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hagane.corpus import shingles as shingling
from hagane.corpus.shingles import shingles, word_hashes, word_starts

TEXT = st.text(st.sampled_from("abcé Åß9,.-\n\tжД한국漢字かなไทยअनु\u0301\u200d𠮷😀") | st.characters(), max_size=60)
UNSPACED = re.compile(r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U00032fff]")


def plain_words(text: str) -> list[str]:
    words, word = [], ""
    for character in text.lower():
        inside = unicodedata.category(character)[0] in "LMN" and ord(character) < 0x33000
        if not inside or UNSPACED.match(character):
            words += [word] if word else []
            word = ""
            words += [character] if inside else []
        else:
            word += character
    return words + ([word] if word else [])


@given(TEXT)
@settings(deadline=None)
def test_a_word_is_what_a_plain_loop_says(text):
    words, hashes = plain_words(text), word_hashes(text)
    assert len(hashes) == len(words)
    assert len(set(hashes.tolist())) == len(set(words))
    for word in words:
        assert word_hashes(f"...{word} ")[0] == hashes[words.index(word)]  # the same anywhere


@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.integers(1, 6))
def test_a_shingle_is_a_run_of_words(words, length):
    array = np.array(words, np.uint64)
    found = shingles(array, length).tolist()
    runs = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    assert len(found) == len(runs)
    assert len(set(found)) == len(set(runs))


def test_no_words():
    assert len(word_hashes("")) == len(word_hashes(" ,.\n")) == 0
    assert len(shingles(word_hashes("one two"), 3)) == 0


@pytest.mark.parametrize("space", [" ", "\n", ""])
def test_a_long_text_is_hashed_in_parts_alike(space, monkeypatch):
    text = "".join(f"ord{number}{space}漢字" for number in range(60))
    whole = word_hashes(text), word_starts(text)
    monkeypatch.setattr(shingling, "BLOCK", 37)
    if space:
        assert word_hashes(text).tolist() == whole[0].tolist()
        assert word_starts(text).tolist() == whole[1].tolist()
    else:  # a cut may go through a word
        assert len(whole[1]) <= len(word_starts(text)) <= len(whole[1]) + len(text) // 37 + 1
